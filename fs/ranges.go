package fs

import (
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/state"
)

// rangeOwners are the owners of fcntl(2) locks that were taken through this mount, by file, and the session in which they
// have them, 0 while they only ask: a FLUSH of such an owner drops what it has, and with the session it is lost. The
// kernel reuses owners, so they mean something together with the file only.
type rangeOwners struct {
	count atomic.Int64
	mu    sync.Mutex
	set   map[rangeOwner]uint64
}

type rangeOwner struct{ ino, owner uint64 }

func (o *rangeOwners) any() bool { return o.count.Load() > 0 }

func (o *rangeOwners) add(k rangeOwner) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.set == nil {
		o.set = make(map[rangeOwner]uint64)
	}
	o.set[k] += 0
	o.count.Store(int64(len(o.set)))
}

// granted notes a session in which the owner has a range. It returns false if the owner had some in another one: those
// are lost, and it must learn of it.
func (o *rangeOwners) granted(k rangeOwner, session uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	had, known := o.set[k]
	if known && had == 0 {
		o.set[k] = session
	}
	return had == 0 || had == session
}

// session returns that in which the owner has ranges, 0 if it has none.
func (o *rangeOwners) session(k rangeOwner) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.set[k]
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
		return h.unlockRange(c, r)
	}
	if _, err := h.rangesStand(in.Owner); err != nil {
		return status(err, forRange)
	}
	if wait {
		h.fs.park(&in.InHeader) // it waits for the log in any case
		r.OFD = process.WaitsForOFD(in.Pid)
	}
	// The owner is noted first: its process may be killed while it waits, and its close then drops what was granted.
	h.tookRange(in.Owner)
	h.fs.ranges.add(rangeOwner{h.ino, in.Owner})
	session, err := h.fs.host.LockRange(c, h.ino, r, wait)
	if err != nil {
		return status(err, forRange)
	}
	if !h.fs.ranges.granted(rangeOwner{h.ino, in.Owner}, session) {
		h.fs.host.UnlockRange(c, h.ino, r) // will be unlocked, whatever the answer
		return status(lockd.ErrLost, forRange)
	}
	h.fs.settle(&in.InHeader, cancel)
	return status(h.fs.host.Stands(session), forRange)
}

// unlockRange is F_UNLCK. Ranges that are lost are there no more; the owner has noticed when it unlocks the whole file.
func (h *handle) unlockRange(c *lockd.Call, r lockd.Range) fuse.Status {
	k := rangeOwner{h.ino, r.Owner}
	if session := h.fs.ranges.session(k); session == 0 || h.fs.host.Stands(session) == nil {
		return status(h.fs.host.UnlockRange(c, h.ino, r), forRange)
	}
	if r.Start == 0 && r.End >= state.MaxRange {
		h.fs.ranges.remove(k)
	}
	return fuse.OK
}

// rangesStand returns the session in which byte ranges are held through the handle, or on its file by the owner of a
// request (0: not known): 0 for none. ErrLost if any of them are lost.
func (h *handle) rangesStand(owner uint64) (session uint64, err error) {
	if !h.fs.ranges.any() {
		return 0, nil
	}
	owners := []uint64{owner}
	h.mu.Lock()
	if h.work != nil {
		owners = append(owners, h.work.owners...)
	}
	h.mu.Unlock()
	for _, owner := range owners {
		s := h.fs.ranges.session(rangeOwner{h.ino, owner})
		if s == 0 {
			continue
		}
		if err := h.fs.host.Stands(s); err != nil {
			return s, err
		}
		session = s
	}
	return session, nil
}

// testRange is F_GETLK: the holder's process if it is on this host, else 0 (lockfs why names it).
func (f *FS) testRange(in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	h, ok := f.handles.get(in.Fh).(*handle)
	if !ok {
		return fuse.EBADF
	}
	if err := f.host.Fresh(); err != nil {
		return status(lockd.ErrLost, forRange) // nobody knows
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
