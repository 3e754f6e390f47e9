package fs

import (
	"syscall"

	"github.com/lockfs/lockfs/fs/conn"
	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
)

// eventsFile is an open name@events or .lockfs/events: the notices from its OPEN on, one a line (DESIGN 1.5). What was
// read is gone, whatever the offset.
type eventsFile struct {
	fs     *FS
	stream *lockd.Subscription
	block  bool // reads wait
	rest   []byte
	polled conn.Waiters
	turn   turnstile // one reader at a time
}

// openEvents subscribes. Only what the opener could stat is shown.
func (f *FS) openEvents(c *lockd.Call, filter lockd.Filter, flags uint32) *eventsFile {
	e := &eventsFile{fs: f, block: flags&syscall.O_NONBLOCK == 0}
	who := f.searcher(c)
	filter.Sees = who.sees
	filter.Wake = func() {
		if f.loop != nil {
			e.polled.Wake(f.loop)
		}
	}
	e.stream = f.host.Subscribe(filter)
	f.host.Watching(c)
	return e
}

// read returns whole lines as long as they fit; it waits for the first one.
func (e *eventsFile) read(c *lockd.Call, _ uint64, buf []byte) (int, syscall.Errno) {
	if errno := e.turn.take(c, !e.block); errno != 0 {
		return 0, errno
	}
	defer e.turn.leave()
	for {
		if n := e.take(buf); n > 0 {
			return n, 0
		}
		if !e.block {
			return 0, syscall.EAGAIN
		}
		switch err := e.stream.Wait(c); err {
		case nil:
		case lockd.ErrInterrupted:
			return 0, syscall.EINTR
		default:
			return 0, 0 // the host is closed: the end of the stream
		}
	}
}

// take fills buf with lines. A line that does not fit is continued by the next read.
func (e *eventsFile) take(buf []byte) (n int) {
	for n < len(buf) {
		if len(e.rest) == 0 {
			notice, ok := e.stream.Next()
			if !ok {
				break
			}
			e.rest = append(notice.Append(e.rest[:0]), '\n')
			if n > 0 && len(e.rest) > len(buf)-n {
				break
			}
		}
		copied := copy(buf[n:], e.rest)
		e.rest = e.rest[copied:]
		n += copied
	}
	return n
}

func (e *eventsFile) poll(kh uint64, flags uint32) uint32 {
	e.polled.Polled(kh, flags)
	if e.stream.Waiting() {
		return pollReadable
	}
	return 0
}

func (e *eventsFile) release() { e.stream.Close() }

// searcher decides what somebody could stat: all directories above it must let him search.
type searcher struct {
	fs  *FS
	who opener
}

func (f *FS) searcher(c *lockd.Call) searcher {
	s := searcher{fs: f, who: opener{uid: c.UID, gid: c.GID}}
	if c.UID == 0 {
		return s
	}
	groups, _ := f.groups(c.PID) // a caller of a foreign pid namespace has none
	s.who.groups = func() []uint32 { return groups }
	return s
}

// stranger is somebody who is no owner and in no group.
func (f *FS) stranger() searcher {
	const nobody = 1<<32 - 1 // which is no user's number
	return searcher{fs: f, who: opener{uid: nobody, gid: nobody, groups: func() []uint32 { return nil }}}
}

// Public reports whether everybody who reaches the mount could stat a node, whoever he is.
func (f *FS) Public(ino uint64) bool { return f.stranger().reaches(ino) }

// reaches reports whether every directory above the node may be searched. A node that is gone was somebody's: it is
// shown to root only.
func (s searcher) reaches(ino uint64) bool {
	if s.who.uid == 0 {
		return true
	}
	v := s.fs.host.View()
	n := v.Node(ino)
	if n == nil {
		return false
	}
	for n.Ino != rootIno {
		if n = v.Node(n.Parent); n == nil || !s.who.searches(owned{perm: n.Perm, uid: n.UID, gid: n.GID}) {
			return false
		}
	}
	return true
}

// sees reports whether all directories may be searched. What has no name is shown to root only.
func (s searcher) sees(dirs []*state.Node) bool {
	for _, d := range dirs {
		if !s.who.searches(owned{perm: d.Perm, uid: d.UID, gid: d.GID}) {
			return false
		}
	}
	return len(dirs) > 0 || s.who.uid == 0
}

// searches reports whether a directory may be searched.
func (o opener) searches(d owned) bool {
	switch {
	case o.uid == 0:
		return true
	case o.uid == d.uid:
		return d.perm&0o100 != 0
	case o.inGroup(d.gid):
		return d.perm&0o010 != 0
	}
	return d.perm&0o001 != 0
}

func (o opener) inGroup(gid uint32) bool {
	if o.gid == gid {
		return true
	}
	for _, g := range o.groups() {
		if g == gid {
			return true
		}
	}
	return false
}

var _ specialFile = (*eventsFile)(nil)
