package fs

import (
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
)

// Shared is what the mounts of one host have in common. It is made before the Host is started.
type Shared struct {
	host *lockd.Host

	watching atomic.Pointer[[]*FS] // the mounts that are told of changes; replaced, never changed

	// Closing descriptors whose last commit is under way, and removals: by inode. Whoever comes later waits for them,
	// since to a program they are over (close(2) does not wait for RELEASE).
	count   atomic.Int64
	mu      sync.Mutex
	pending map[uint64]*ending
	over    chan struct{} // closed when count is next 0; nil while it is

	digestMu sync.Mutex // held while a digest is computed: several readers have it computed once
	digestOf uint64     // the index that the last one is of
	digested string
}

// ending counts what is under way on one inode.
type ending struct {
	n    int
	over chan struct{} // closed when n is 0
}

// NewShared makes the common part of the mounts of a host, which must not be started yet.
func NewShared(host *lockd.Host) *Shared {
	s := &Shared{host: host, pending: make(map[uint64]*ending)}
	s.watching.Store(new([]*FS))
	host.OnChange(func(index uint64, changes []state.Change, from []any) {
		for _, f := range *s.watching.Load() {
			f.changed(index, changes, from)
		}
	})
	host.OnLost(func() {
		for _, f := range *s.watching.Load() {
			f.lost()
		}
	})
	return s
}

// blocking has a blocking AST shown to inotify watchers of the lock's file, if the lock still stands in the way a moment later.
func (s *Shared) blocking(h *handle) {
	stands := func() bool { return s.host.Blocks(&h.lock) }
	for _, f := range *s.watching.Load() {
		if f.raiser != nil {
			f.raiser.Blocking(f.fileOf(h.ino), stands)
		}
	}
}

// watch has a mount told of changes from now on.
func (s *Shared) watch(f *FS) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append(slices.Clone(*s.watching.Load()), f)
	s.watching.Store(&list)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		list := slices.DeleteFunc(slices.Clone(*s.watching.Load()), func(g *FS) bool { return g == f })
		s.watching.Store(&list)
	}
}

// digest is the hash of a view, in hexadecimal digits. It takes as long as the state is large, but for the index of
// the last time.
func (s *Shared) digest(v *state.View) string {
	s.digestMu.Lock()
	defer s.digestMu.Unlock()
	if s.digested == "" || s.digestOf != v.Index() {
		sum := v.Digest()
		s.digestOf, s.digested = v.Index(), hex.EncodeToString(sum[:])
	}
	return s.digested
}

// begin notes that something ends on an inode; done must be called when it has.
func (s *Shared) begin(ino uint64) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.pending[ino]
	if e == nil {
		e = &ending{over: make(chan struct{})}
		s.pending[ino] = e
	}
	e.n++
	if s.count.Add(1) == 1 {
		s.over = make(chan struct{})
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.n--; e.n == 0 {
			delete(s.pending, ino)
			close(e.over)
		}
		if s.count.Add(-1) == 0 {
			close(s.over)
			s.over = nil
		}
	}
}

// of returns a channel that is closed when nothing ends on the inode any more, nil if nothing does.
func (s *Shared) of(ino uint64) <-chan struct{} {
	if s.count.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.pending[ino]; e != nil {
		return e.over
	}
	return nil
}

// any returns a channel that is closed when nothing ends anywhere, nil if nothing does.
func (s *Shared) any() <-chan struct{} {
	if s.count.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}
