package fs

import (
	"slices"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/conn"
	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// handle is an open file description: what an OPEN made and a RELEASE ends. It owns at most one lock.
//
// Locking order: Host's own mutex, then nmu; mu is taken before anything of the Host and never by a Listener. Neither
// is held while anything waits.
type handle struct {
	fs     *FS
	lock   lockd.Lock
	node   uint64 // node id that was opened; an alias's is its own
	ino    uint64 // of the resource
	flags  uint32 // of open(2)
	thread uint32 // that opened
	rights rights
	poll   conn.Waiters // who polls

	turn turnstile // who changes the lock: one at a time

	mu     sync.Mutex
	holder uint32    // the process that opened, found when the lock first permitted writing; 0: not known
	named  bool      // the lock has a mode of its own: flock(2) converts it
	work   *work     // nil: nothing is under way, as with most
	read   *snapshot // nil: nothing was read yet

	nmu     sync.Mutex
	notices *notices // nil: never any
}

// work is what is under way through a handle.
type work struct {
	batch      batch
	committing chan struct{} // closed when the commit under way is over; nil: none
	setting    []byte        // pieces of a new value that came by ioctl
	owners     []uint64      // range lock owners that locked through this handle and did not close yet
}

// working returns what is under way, to be changed. The caller has mu.
func (h *handle) working() *work {
	if h.work == nil {
		h.work = new(work)
	}
	return h.work
}

// visible returns what the handle itself reads, and whether that is something else than the committed value.
func (w *work) visible() ([]byte, bool) {
	if w == nil {
		return nil, false
	}
	return w.batch.visible()
}

// state returns that of the batch.
func (w *work) state() batchState {
	if w == nil {
		return batchNone
	}
	return w.batch.state
}

// commits returns a channel that is closed when the commit under way is over, nil if there is none.
func (w *work) commits() chan struct{} {
	if w == nil {
		return nil
	}
	return w.committing
}

// newHandle makes the handle of an open; it is not in the table yet.
func (f *FS) newHandle(in *fuse.OpenIn, ino uint64) *handle {
	h := &handle{fs: f, node: in.NodeId, ino: ino, flags: in.Flags, thread: in.Pid}
	h.lock.Listener = h
	h.lock.File = process.File{Dev: f.dev, Ino: in.NodeId}
	h.lock.Opener, h.lock.Opened = in.Pid, f.host.Now()
	return h
}

// holds notes what the lock permits after a grant. If that is writing, the process that opened is from now on the
// holder whose death makes the value invalid; but where programs bring their own protocol a plain flock(2) says
// nothing of the value. What is read from now on is the value that came with the grant.
func (h *handle) holds() {
	writes := h.lock.Mode().Writes() && (!h.fs.policy.through || h.isNamed())
	h.mu.Lock()
	h.readAnew()
	known := h.holder != 0
	h.mu.Unlock()
	if known || !writes {
		return
	}
	holder := process.Tgid(h.thread)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holder = holder
}

// value returns the resource's node as of now, nil if it is gone.
func (h *handle) value() *state.Node { return h.fs.host.View().Node(h.ino) }

// limit is the limit of what is written through the handle.
func (h *handle) limit() valueLimit {
	p := h.fs.policy
	size := int(h.fs.host.View().Limits().ValueLen)
	if p.fixed != 0 {
		size = min(size, p.fixed)
	}
	return valueLimit{size: size, errno: p.fullErrno}
}

// lost reports whether what the handle has is lost, by the clock of this moment: its lock, or byte ranges held through it
// or by the owner of a request (0: not known). Nothing is read or written under it any more.
func (h *handle) lost(owner uint64) bool {
	if h.fs.host.Check(&h.lock) != nil {
		return true
	}
	_, err := h.rangesStand(owner)
	return err != nil
}

// mayReadValue says whether the value may be read through the handle now, by that owner of byte ranges (DESIGN 1.4).
func (h *handle) mayReadValue(owner uint64) syscall.Errno {
	mode, named := h.lock.Mode(), h.isNamed()
	switch {
	case h.rights&mayRead == 0:
		return syscall.EACCES
	case h.lost(owner), h.fs.host.Fresh() != nil:
		return syscall.EIO
	case named && mode == queue.None:
		return h.notGranted()
	case named && !mode.Reads():
		return syscall.EACCES
	}
	return 0
}

// mayWriteValue says whether the value may be written through the handle now, by that owner.
func (h *handle) mayWriteValue(owner uint64) syscall.Errno {
	mode := h.lock.Mode()
	switch {
	case h.rights&mayWrite == 0:
		return syscall.EACCES
	case h.lost(owner):
		return syscall.EIO
	case h.fs.policy.through && !h.isNamed():
		return 0
	case mode == queue.None && h.isNamed():
		return h.notGranted()
	case !mode.Writes():
		return syscall.EACCES
	}
	return 0
}

// notGranted is the errno of using a lock that was asked for asynchronously and is not there: EAGAIN while it waits.
func (h *handle) notGranted() syscall.Errno {
	h.nmu.Lock()
	defer h.nmu.Unlock()
	if h.notices != nil && h.notices.failed != nil {
		return errno(h.notices.failed, forLock)
	}
	return syscall.EAGAIN
}

func (h *handle) isNamed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.named
}

func (h *handle) setNamed(named bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.named = named
}

// ownSize returns the size of the handle's own uncommitted value, if it has one.
func (h *handle) ownSize() (size int, own bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v, own := h.work.visible()
	return len(v), own
}

// tookRange notes that an owner took a byte-range lock through the handle.
func (h *handle) tookRange(owner uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.working(); !slices.Contains(w.owners, owner) {
		w.owners = append(w.owners, owner)
	}
}

// closedRanges forgets an owner whose process has closed the file: what it had is dropped. It reports whether it had
// taken any range through the handle.
func (h *handle) closedRanges(owner uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.work == nil {
		return false
	}
	i := slices.Index(h.work.owners, owner)
	if i < 0 {
		return false
	}
	h.work.owners = slices.Delete(h.work.owners, i, i+1)
	return true
}

// turnstile lets one at a time through, and others wait without blocking the loop.
type turnstile struct {
	mu    sync.Mutex
	busy  bool
	freed chan struct{} // closed when whoever is in leaves; nil: nobody waits
}

// enter returns nil if the caller is in now, else a channel to wait for before it tries again.
func (t *turnstile) enter() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.busy {
		t.busy = true
		return nil
	}
	if t.freed == nil {
		t.freed = make(chan struct{})
	}
	return t.freed
}

// take waits until the caller is in: EAGAIN for one who only tries, EINTR after an interrupt.
func (t *turnstile) take(c *lockd.Call, try bool) syscall.Errno {
	for {
		busy := t.enter()
		if busy == nil {
			return 0
		}
		if try {
			return syscall.EAGAIN
		}
		if c.Park != nil {
			c.Park()
		}
		select {
		case <-busy:
		case <-c.Cancel:
			return syscall.EINTR
		}
	}
}

func (t *turnstile) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy = false
	if t.freed != nil {
		close(t.freed)
		t.freed = nil
	}
}

// closeFile ends what a handle id stood for.
func (f *FS) closeFile(file opened) {
	switch file := file.(type) {
	case *handle:
		file.close()
	case specialFile:
		file.release()
	}
}
