package fs

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/process"
)

// rangeOwners are the owners of fcntl(2) locks that were taken through this mount, by file: a FLUSH of such an owner
// drops what it has. The kernel reuses owners, so they mean something together with the file only.
type rangeOwners struct {
	count atomic.Int64
	mu    sync.Mutex
	set   map[rangeOwner]struct{}
}

type rangeOwner struct{ ino, owner uint64 }

func (o *rangeOwners) any() bool { return o.count.Load() > 0 }

func (o *rangeOwners) add(k rangeOwner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.set == nil {
		o.set = make(map[rangeOwner]struct{})
	}
	o.set[k] = struct{}{}
	o.count.Store(int64(len(o.set)))
}

func (o *rangeOwners) remove(k rangeOwner) (had bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, had = o.set[k]
	delete(o.set, k)
	o.count.Store(int64(len(o.set)))
	return had
}

// setRange is fcntl(2) F_SETLK and F_SETLKW, and their OFD kind. The kernel has checked that the descriptor is open for
// reading or writing as the lock needs.
func (h *handle) setRange(cancel <-chan struct{}, in *fuse.LkIn, wait bool) fuse.Status {
	c := h.fs.call(&in.InHeader, cancel)
	r := lockd.Range{
		Owner: in.Owner,
		Write: in.Lk.Typ == syscall.F_WRLCK,
		Start: in.Lk.Start,
		End:   in.Lk.End,
		PID:   in.Lk.Pid,
	}
	if in.Lk.Typ == syscall.F_UNLCK {
		return status(h.fs.host.UnlockRange(c, h.ino, r), forRange)
	}
	if wait {
		h.fs.park(&in.InHeader) // it waits for the log in any case
		r.OFD = process.WaitsForOFD(in.Pid)
	}
	// The owner is noted first: its process may be killed while it waits, and its close then drops what was granted.
	h.tookRange(in.Owner)
	h.fs.ranges.add(rangeOwner{h.ino, in.Owner})
	_, err := h.fs.host.LockRange(c, h.ino, r, wait)
	st := status(err, forRange)
	if st == fuse.OK {
		h.fs.settle(&in.InHeader, cancel)
	}
	return st
}

// testRange is F_GETLK: the holder's process if it is on this host, else 0 (lockfs why names it).
func (f *FS) testRange(in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	h, ok := f.handles.get(in.Fh).(*handle)
	if !ok {
		return fuse.EBADF
	}
	r := lockd.Range{Owner: in.Owner, Write: in.Lk.Typ == syscall.F_WRLCK, Start: in.Lk.Start, End: in.Lk.End}
	held, host, ok := f.host.TestRange(h.ino, r)
	if !ok {
		out.Lk = fuse.FileLock{Typ: syscall.F_UNLCK}
		return fuse.OK
	}
	out.Lk = fuse.FileLock{Typ: syscall.F_RDLCK, Start: held.Start, End: held.End}
	if host == f.host.Name() {
		out.Lk.Pid = held.PID
	}
	if held.Write {
		out.Lk.Typ = syscall.F_WRLCK
	}
	return fuse.OK
}

// dropRanges drops what the owner of a FLUSH has on the file, as POSIX wants it at every close. Owners of open file
// descriptions (OFD) never send one. It does not wait.
func (f *FS) dropRanges(h *handle, owner uint64) {
	h.closedRanges(owner)
	if f.ranges.remove(rangeOwner{h.ino, owner}) {
		f.host.DropRanges(h.ino, owner)
	}
}

// dropRangesOf drops what was locked through a handle that is closed, by owners that are the handle itself.
func (f *FS) dropRangesOf(ino uint64, owners []uint64) {
	for _, owner := range owners {
		f.ranges.remove(rangeOwner{ino, owner})
		f.host.DropRanges(ino, owner)
	}
}
