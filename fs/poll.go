package fs

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
)

// notices are what a lock's holder is told, the oldest first. Who takes none loses the oldest.
type notices struct {
	ring  []lockd.Notice
	lost  uint64 // dropped since the last one was taken
	blast bool   // dlmfs: somebody is blocked, as far as was told

	failed error // an asynchronous request was refused
}

// maxNotices is how many are kept for a descriptor.
const maxNotices = 64

func (n *notices) add(notice lockd.Notice) {
	if len(n.ring) == maxNotices {
		copy(n.ring, n.ring[1:])
		n.ring = n.ring[:maxNotices-1]
		n.lost++
	}
	n.ring = append(n.ring, notice)
}

// take returns the oldest, how many were dropped before it and how many are left.
func (n *notices) take() (notice lockd.Notice, lost uint64, left int, ok bool) {
	if len(n.ring) == 0 {
		return lockd.Notice{}, 0, 0, false
	}
	notice, lost = n.ring[0], n.lost
	copy(n.ring, n.ring[1:])
	n.ring[len(n.ring)-1] = lockd.Notice{}
	n.ring = n.ring[:len(n.ring)-1]
	if len(n.ring) == 0 {
		n.ring = nil
	}
	n.lost = 0
	return notice, lost, len(n.ring), true
}

var _ lockd.Listener = (*handle)(nil)

// Notice is what the Host tells of the handle's lock.
func (h *handle) Notice(n lockd.Notice) {
	if n.Kind == lockd.NoticeGranted || n.Kind == lockd.NoticeConverted {
		h.holds()
	}
	h.nmu.Lock()
	if h.notices == nil {
		h.notices = new(notices)
	}
	switch n.Kind {
	case lockd.NoticeFailed:
		h.notices.failed = n.Err
	case lockd.NoticeBlocking:
		h.notices.blast = true
		h.notices.add(n)
		h.fs.shared.blocking(h)
	default:
		h.notices.add(n)
	}
	h.nmu.Unlock()
	if h.fs.loop != nil {
		h.poll.Wake(h.fs.loop)
	}
}

// gaveWay drops the blocking notices of a lock that does not hold anybody up any more, since it was released or converted.
func (h *handle) gaveWay() {
	h.nmu.Lock()
	told := h.notices != nil && len(h.notices.ring) > 0
	h.nmu.Unlock()
	if !told || h.lock.Mode() != queue.None && h.fs.host.Blocks(&h.lock) {
		return
	}
	h.nmu.Lock()
	defer h.nmu.Unlock()
	h.notices.ring = slices.DeleteFunc(h.notices.ring, func(n lockd.Notice) bool { return n.Kind == lockd.NoticeBlocking })
}

// takeNotice takes the oldest notice.
func (h *handle) takeNotice() (n lockd.Notice, lost uint64, left int, ok bool) {
	h.nmu.Lock()
	defer h.nmu.Unlock()
	if h.notices == nil {
		return n, 0, 0, false
	}
	return h.notices.take()
}

// The events of poll(2).
const (
	pollReadable = unix.POLLIN | 0x40   // POLLRDNORM
	pollWritable = unix.POLLOUT | 0x100 // POLLWRNORM
	pollLost     = unix.POLLERR | unix.POLLHUP
)

// Poll answers poll(2): what is true of a descriptor now (DESIGN 1.5).
func (f *FS) Poll(fh, kh uint64, flags, _ uint32) uint32 {
	switch file := f.handles.get(fh).(type) {
	case *handle:
		file.poll.Polled(kh, flags)
		return file.events()
	case specialFile:
		return file.poll(kh, flags)
	}
	return unix.POLLNVAL
}

func (h *handle) events() uint32 {
	if h.fs.policy.ast {
		return h.astEvents()
	}
	mode, named, lost := h.lock.Mode(), h.isNamed(), h.lost(0)
	h.nmu.Lock()
	defer h.nmu.Unlock()
	if lost || h.notices != nil && h.notices.failed != nil {
		return pollLost
	}
	if mode == queue.None && !named {
		return pollReadable | pollWritable // a plain file is always ready
	}
	var events uint32
	if mode.Reads() || !named {
		events |= pollReadable
	}
	if mode.Writes() {
		events |= pollWritable
	}
	if h.notices != nil && len(h.notices.ring) > 0 {
		events |= unix.POLLPRI
	}
	return events
}

// astEvents is what dlmfs shows: POLLIN while the lock holds somebody up (dlmfs_file_poll).
func (h *handle) astEvents() uint32 {
	h.nmu.Lock()
	told := h.notices != nil && h.notices.blast
	h.nmu.Unlock()
	if h.lost(0) {
		return pollLost
	}
	if !told {
		return 0
	}
	if h.fs.host.Blocks(&h.lock) {
		return pollReadable
	}
	h.nmu.Lock()
	defer h.nmu.Unlock()
	h.notices.blast = false
	return 0
}
