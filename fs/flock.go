package fs

import (
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
)

// GetLk, SetLk and SetLkw are fcntl(2) byte ranges and flock(2).

func (f *FS) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	return f.testRange(in, out)
}

func (f *FS) SetLk(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return f.setLock(cancel, in, false)
}

func (f *FS) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	return f.setLock(cancel, in, true)
}

func (f *FS) setLock(cancel <-chan struct{}, in *fuse.LkIn, wait bool) fuse.Status {
	h, ok := f.handles.get(in.Fh).(*handle)
	if !ok {
		return fuse.EBADF
	}
	if st := f.await(&in.InHeader, cancel, f.shared.of(h.ino)); st != fuse.OK {
		return st
	}
	if in.LkFlags&fuse.LK_FLOCK == 0 {
		return h.setRange(cancel, in, wait)
	}
	st := h.flock(cancel, in, wait)
	if st == fuse.OK && in.Lk.Typ != syscall.F_UNLCK {
		f.settle(&in.InHeader, cancel)
		st = status(f.host.Check(&h.lock), forFlock)
	}
	return st
}

// flockModes are what flock(2) asks for: on a descriptor without a mode, and on one that has one, where it converts.
var flockModes = map[uint32]struct{ plain, named queue.Mode }{
	syscall.F_RDLCK: {queue.PR, queue.PR},
	syscall.F_WRLCK: {queue.EX, queue.EX},
	syscall.F_UNLCK: {queue.None, queue.NL},
}

func (h *handle) flock(cancel <-chan struct{}, in *fuse.LkIn, wait bool) fuse.Status {
	modes, ok := flockModes[in.Lk.Typ]
	if !ok {
		return fuse.EINVAL
	}
	c := h.fs.call(&in.InHeader, cancel)
	for {
		busy := h.turn.enter()
		if busy == nil {
			break
		}
		if in.Lk.Typ == syscall.F_UNLCK && h.lock.Mode() == queue.None {
			return fuse.OK // another thread waits for the lock; there is none to let go of yet
		}
		if !wait {
			return fuse.EAGAIN
		}
		if st := h.fs.await(&in.InHeader, cancel, busy); st != fuse.OK {
			return st
		}
	}
	defer h.turn.leave()
	r := lockd.Request{Ino: h.ino, Mode: modes.plain, Linger: restartTime}
	if !wait {
		r.Flags, r.Linger = queue.NoQueue, 0
	}
	if h.isNamed() {
		r.Mode = modes.named
		return status(h.convert(c, r), forFlock)
	}
	return status(h.flockPlain(c, r), forFlock)
}

// restartTime is how long a flock(2) that a signal interrupted keeps its place in the queue: the kernel restarts it, as
// a new request, when the signal's handler has returned.
const restartTime = 50 * time.Millisecond

// flockPlain is flock(2) as it is everywhere: changing a lock lets go of the old one first.
func (h *handle) flockPlain(c *lockd.Call, r lockd.Request) error {
	has := h.lock.Mode()
	switch {
	case !h.rights.allow(r.Mode):
		return syscall.EACCES
	case r.Mode == queue.None:
		h.letGo()
		return nil
	case h.fs.host.Check(&h.lock) != nil:
		return lockd.ErrLost // until LOCK_UN: the program must learn of it
	case has == r.Mode:
		return nil
	case has != queue.None:
		h.fs.host.Release(&h.lock)
		h.gaveWay()
	}
	err := h.fs.lock(c, &h.lock, r)
	h.holds()
	return err
}

// request takes a lock on a descriptor that has none, and gives the descriptor that mode: the ioctl. The caller has
// the handle's turn.
func (h *handle) request(c *lockd.Call, r lockd.Request, async bool) error {
	switch {
	case !h.rights.allow(r.Mode):
		return syscall.EACCES
	case h.lock.Mode() != queue.None || h.isNamed():
		return syscall.EINVAL
	}
	r.Ino = h.ino
	var err error
	if async {
		err = h.fs.host.Enqueue(c, &h.lock, r)
	} else {
		err = h.fs.lock(c, &h.lock, r)
	}
	if err == nil {
		h.setNamed(true)
		h.holds()
	}
	return err
}

// convert changes the mode of a lock. What was written commits first if the new mode no longer permits writing. The
// caller has the handle's turn.
func (h *handle) convert(c *lockd.Call, r lockd.Request) error {
	switch {
	case !h.rights.allow(r.Mode):
		return syscall.EACCES
	case h.fs.host.Check(&h.lock) != nil:
		return lockd.ErrLost
	case h.lock.Mode() == queue.None:
		return syscall.EINVAL // asked for asynchronously, and not there yet
	}
	if h.lock.Mode().Writes() && !r.Mode.Writes() {
		if errno := h.commit(c); errno != 0 {
			return commitFailure{errno}
		}
	}
	closing := h.fs.shared.any()
	err := h.fs.host.ConvertBy(c, &h.lock, r)
	if closing != nil && errors.Is(err, lockd.ErrBusy) {
		if c.Park != nil {
			c.Park()
		}
		select {
		case <-closing:
			err = h.fs.host.ConvertBy(c, &h.lock, r)
		case <-c.Cancel:
			err = lockd.ErrInterrupted
		}
	}
	h.holds()
	h.gaveWay()
	return err
}

// commitFailure is the error of a conversion that had to commit first and could not. Towards flock(2) it is ENOLCK,
// which must never see EIO; the close will tell.
type commitFailure struct{ errno syscall.Errno }

func (e commitFailure) Error() string { return "committing before the conversion: " + e.errno.Error() }
