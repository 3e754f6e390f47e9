package fs

import (
	"errors"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// opening is what an OPEN asks for.
type opening struct {
	ino    uint64
	mode   queue.Mode // of the lock; None asks for none
	wait   time.Duration
	async  bool
	proven rights // what the kernel has checked already
}

// Open opens a file, and so asks for a lock (DESIGN 1.2). It may wait: for the lock, for the last commit of whoever
// closed the file just now, and for invalidations.
func (f *FS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if isSpecial(in.NodeId) {
		return f.specialOpen(cancel, in, out)
	}
	o := opening{ino: resource(in.NodeId)}
	if isAlias(in.NodeId) {
		a, ok := f.aliases.get(in.NodeId)
		if !ok {
			return fuse.Status(syscall.ESTALE)
		}
		if a.kind != aliasMode {
			return f.wordOpen(cancel, in, a, out)
		}
		o = opening{ino: resource(a.node), mode: a.mode, wait: a.wait, async: a.async, proven: a.needs()}
	} else {
		access := in.Flags & syscall.O_ACCMODE
		if access > syscall.O_RDWR {
			return fuse.EINVAL
		}
		o.mode = f.policy.plain[access]
		o.proven = [...]rights{mayRead, mayWrite, mayAll}[access]
	}
	if st := f.enterFile(cancel, in, o.ino); st != fuse.OK {
		return st
	}
	h := f.newHandle(in, o.ino)
	errno := h.open(f.call(&in.InHeader, cancel), in, o)
	if errno != 0 {
		h.close()
		return fuse.Status(errno)
	}
	f.settle(&in.InHeader, cancel)
	if h.lost(0) { // all that may have taken long
		h.close()
		return fuse.EIO
	}
	out.Fh = f.handles.add(h)
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// enterFile waits for what ends on a file, and counts a descriptor of it. The count comes first: a removal looks at it
// after it has begun, so that one of the two sees the other.
func (f *FS) enterFile(cancel <-chan struct{}, in *fuse.OpenIn, ino uint64) fuse.Status {
	for {
		if f.policy.orphans {
			f.opens.add(ino)
		}
		over := f.shared.of(ino)
		if over == nil {
			return fuse.OK
		}
		if f.policy.orphans {
			f.opens.remove(ino)
		}
		if st := f.await(&in.InHeader, cancel, over); st != fuse.OK {
			return st
		}
	}
}

// open does what OPEN asks for. After an error the handle is to be closed.
func (h *handle) open(c *lockd.Call, in *fuse.OpenIn, o opening) syscall.Errno {
	n := h.value()
	if n == nil {
		return syscall.ESTALE
	}
	h.rights = h.fs.rightsFor(c, n, o.proven)
	truncates := in.Flags&syscall.O_TRUNC != 0
	switch {
	case o.mode != queue.None && !h.rights.allow(o.mode):
		return syscall.EACCES
	case truncates && h.fs.policy.truncate == truncateBatch && !o.mode.Writes():
		return syscall.EACCES // without PW or EX nothing is ever written
	}
	if o.mode != queue.None {
		h.named = true
		if errno := h.ask(c, o, in.Flags&syscall.O_NONBLOCK != 0); errno != 0 {
			return errno
		}
	}
	if in.Flags&syscall.O_SYNC != 0 {
		if _, err := h.fs.host.Barrier(c); err != nil {
			return errno(err, forLock)
		}
	}
	if truncates {
		if errno := h.truncateAtOpen(c); errno != 0 {
			return errno
		}
	}
	return 0
}

// ask requests the lock of an open.
func (h *handle) ask(c *lockd.Call, o opening, try bool) syscall.Errno {
	r := lockd.Request{Ino: o.ino, Mode: o.mode, Wait: o.wait}
	if try || o.wait < 0 {
		r.Flags, r.Wait = queue.NoQueue, 0
	}
	if o.async && r.Flags&queue.NoQueue == 0 {
		return errno(h.fs.host.Enqueue(c, &h.lock, r), forLock)
	}
	err := h.fs.lock(c, &h.lock, r)
	if errors.Is(err, lockd.ErrBusy) {
		return h.fs.policy.busy
	}
	h.holds()
	return errno(err, forLock)
}

// lock requests a lock. A try that meets a lock whose descriptor is closed already, but whose last commit is still
// under way, waits for that and looks again: to its caller the lock is free.
func (f *FS) lock(c *lockd.Call, l *lockd.Lock, r lockd.Request) error {
	for {
		closing := f.shared.any()
		err := f.host.Lock(c, l, r)
		if closing == nil || !errors.Is(err, lockd.ErrBusy) {
			return err
		}
		if c.Park != nil {
			c.Park()
		}
		select {
		case <-closing:
		case <-c.Cancel:
			return lockd.ErrInterrupted
		}
	}
}

// truncateAtOpen is O_TRUNC: the start of a batch, a commit at once, or nothing, as the view has it.
func (h *handle) truncateAtOpen(c *lockd.Call) syscall.Errno {
	n := h.value()
	if n == nil {
		return syscall.ESTALE
	}
	switch h.fs.policy.truncate {
	case truncateThrough:
		if n.Generation > 0 {
			return syscall.Errno(h.fs.truncate(c, h.ino, 0))
		}
	case truncateBatch:
		if n.Generation > 0 || h.lock.Mode() == queue.None {
			h.mu.Lock()
			h.working().batch.truncate(n.Generation, h.lock.Mode().Writes())
			h.mu.Unlock()
		}
	}
	return 0
}

// truncate commits a new length of a value.
func (f *FS) truncate(c *lockd.Call, ino, size uint64) fuse.Status {
	_, err := f.host.Commit(c, nil, &statepb.Commit{Ino: ino, Posix: true, Change: &statepb.Commit_Truncate{Truncate: size}})
	return status(err, forTree)
}

// rightsFor finds what the caller may do with a file, at the OPEN.
func (f *FS) rightsFor(c *lockd.Call, n *state.Node, proven rights) rights {
	perm := n.Perm
	if n.Dir {
		perm &= 0o666
	}
	return rightsOf(owned{perm: perm, uid: n.UID, gid: n.GID}, opener{uid: c.UID, gid: c.GID, groups: func() []uint32 {
		if process.ForeignNS(c.PID) {
			return nil
		}
		groups, err := f.groups(c.PID)
		if err != nil {
			f.log.Debug("supplementary groups", "thread", c.PID, "error", err)
		}
		return groups
	}}, proven)
}
