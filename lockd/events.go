package lockd

import (
	"slices"
	"strings"
	"sync"

	"github.com/lockfs/lockfs/lockd/state"
)

// Filter chooses the notices of a subscription.
type Filter struct {
	// Ino, if not 0, is a resource: its notices, and if it is a directory those of everything below.
	Ino uint64
	// Path, if not empty, is a path prefix: the notices of that path and of everything below.
	Path string
	// Sees, if not nil, reports whether what lies below all these directories may be seen, none if what it is has no name any more.
	// A name that moves out of sight, or into it, is told as removed or created. It is called under the subscription's lock, must
	// be quick and must not call the Host.
	Sees func(dirs []*state.Node) bool
	// Wake, if not nil, is called when the first notice arrives after Next returned none. It must be quick and not block.
	Wake func()
	// Limit is how many notices are kept; 0: Limits.Notices of the host.
	Limit int
}

// Subscription is a stream of notices. A reader that is too slow loses the oldest, and is told how many.
type Subscription struct {
	host   *Host
	filter Filter

	mu     sync.Mutex
	ring   []Notice // grows up to filter.Limit
	start  int
	count  int
	lost   uint64
	closed bool
	ready  chan struct{} // closed while count+lost > 0 or closed
}

// Subscribe starts a stream of the notices that the filter takes. It must be closed.
func (h *Host) Subscribe(f Filter) *Subscription {
	if f.Limit <= 0 {
		f.Limit = h.cfg.Limits.Notices
	}
	s := &Subscription{host: h, filter: f, ready: make(chan struct{})}
	h.subsMu.Lock()
	h.subs = append(slices.Clone(h.subs), s)
	h.subscribed.Store(true)
	h.subsMu.Unlock()
	h.watch()
	return s
}

// Close ends the stream; a Wait returns.
func (s *Subscription) Close() {
	h := s.host
	h.subsMu.Lock()
	if i := slices.Index(h.subs, s); i >= 0 {
		h.subs = slices.Delete(slices.Clone(h.subs), i, i+1)
		h.subscribed.Store(len(h.subs) > 0)
	}
	h.subsMu.Unlock()
	h.watch()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		if s.count == 0 && s.lost == 0 {
			close(s.ready)
		}
	}
}

// Next takes the oldest notice; ok is false if there is none. After a loss it is an overflow notice.
func (s *Subscription) Next() (n Notice, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.lost > 0:
		n = Notice{Kind: NoticeOverflow, Count: s.lost, Time: s.host.wall()}
		s.lost = 0
	case s.count > 0:
		n = s.ring[s.start]
		s.ring[s.start] = Notice{}
		s.start = (s.start + 1) % len(s.ring)
		s.count--
	default:
		return Notice{}, false
	}
	if s.count == 0 && !s.closed {
		s.ready = make(chan struct{})
	}
	return n, true
}

// Ready returns a channel that is closed while Next has something, and after Close.
func (s *Subscription) Ready() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ready
}

// Waiting reports whether Next has something.
func (s *Subscription) Waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count > 0 || s.lost > 0
}

// Wait waits until Next has something. It returns ErrInterrupted, or ErrClosed after Close.
func (s *Subscription) Wait(c *Call) error {
	ready := s.Ready()
	select {
	case <-ready:
	default:
		c.park()
		select {
		case <-ready:
		case <-c.cancel():
			return ErrInterrupted
		case <-s.host.stopped:
			return ErrClosed
		}
	}
	if !s.Waiting() {
		return ErrClosed
	}
	return nil
}

// offer adds a notice if the filter takes it.
func (s *Subscription) offer(n *Notice) {
	if s.push(n) && s.filter.Wake != nil {
		s.filter.Wake()
	}
}

// push reports whether the stream was empty before.
func (s *Subscription) push(n *Notice) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.filter.takes(n) {
		return false
	}
	seen, ok := s.filter.seen(*n)
	if !ok {
		return false
	}
	first = s.count == 0 && s.lost == 0
	switch {
	case s.count == s.filter.Limit:
		s.start = (s.start + 1) % len(s.ring)
		s.count--
		s.lost++
	case s.count == len(s.ring):
		s.grow()
	}
	s.ring[(s.start+s.count)%len(s.ring)] = seen
	s.count++
	if first {
		close(s.ready)
	}
	return first
}

// grow doubles the ring.
func (s *Subscription) grow() {
	ring := make([]Notice, min(max(2*len(s.ring), 16), s.filter.Limit))
	for i := range s.count {
		ring[i] = s.ring[(s.start+i)%len(s.ring)]
	}
	s.ring, s.start = ring, 0
}

// takes reports whether a notice is of what the filter chooses.
func (f *Filter) takes(n *Notice) bool {
	if n.Kind == NoticeOverflow {
		return true
	}
	is := func(d *state.Node) bool { return d.Ino == f.Ino }
	if f.Ino != 0 && n.Ino != f.Ino && !slices.ContainsFunc(n.above, is) && !slices.ContainsFunc(n.to, is) {
		return false
	}
	return f.Path == "" || below(n.Path, f.Path) || below(n.To, f.Path)
}

// seen returns of a notice what may be seen, false if nothing.
func (f *Filter) seen(n Notice) (Notice, bool) {
	switch {
	case f.Sees == nil || n.Ino == 0 || n.Ino == state.Root:
		return n, true
	case n.Kind != NoticeRenamed:
		return n, f.Sees(n.above)
	}
	from, to := f.Sees(n.above), f.Sees(n.to)
	switch {
	case from && !to:
		n.Kind, n.To = NoticeRemoved, ""
	case to && !from:
		n.Kind, n.Path, n.To = NoticeCreated, n.To, ""
	}
	return n, from || to
}

// below reports whether path is prefix or lies below it.
func below(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(prefix, "/"))
	return ok && path != "" && (rest == "" || rest[0] == '/')
}
