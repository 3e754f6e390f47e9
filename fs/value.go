package fs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// snapshot is the value that a descriptor is in the middle of reading: a value that takes several READs is read whole
// from one generation. It ends with a new lock, and there is none in a view that writes through: there a program reads a
// piece, takes its own lock, and reads on.
type snapshot struct {
	value []byte
	next  uint64 // the offset where the last READ ended
}

// Read reads the value: the handle's own uncommitted one, or the committed one.
func (f *FS) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	switch file := f.handles.get(in.Fh).(type) {
	case *handle:
		n, st := file.readAt(cancel, in, buf[:min(len(buf), int(in.Size))])
		return fuse.ReadResultData(buf[:n]), st
	case specialFile:
		n, errno := file.read(f.call(&in.InHeader, cancel), in.Offset, buf[:min(len(buf), int(in.Size))])
		return fuse.ReadResultData(buf[:n]), fuse.Status(errno)
	}
	return nil, fuse.EBADF
}

func (h *handle) readAt(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (int, fuse.Status) {
	var owner uint64
	if in.ReadFlags&fuse.READ_LOCKOWNER != 0 {
		owner = in.LockOwner
	}
	if errno := h.mayReadValue(owner); errno != 0 {
		return 0, fuse.Status(errno)
	}
	if st := h.fs.await(&in.InHeader, cancel, h.fs.shared.of(h.ino)); st != fuse.OK {
		return 0, st
	}
	if h.flags&syscall.O_SYNC != 0 {
		if _, err := h.fs.host.Barrier(h.fs.call(&in.InHeader, cancel)); err != nil {
			return 0, status(err, forTree)
		}
	}
	n, st := h.readNow(buf, in.Offset)
	if errno := h.mayReadValue(owner); errno != 0 { // the process may have been stopped meanwhile
		return 0, fuse.Status(errno)
	}
	return n, st
}

// readNow reads from the batch, from the value that is being read, or from the newest.
func (h *handle) readNow(buf []byte, off uint64) (int, fuse.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if v, own := h.work.visible(); own {
		return copyFrom(buf, h.fs.policy.show(v, false), off), fuse.OK
	}
	if h.read == nil {
		h.read = new(snapshot)
	}
	v := h.read.value
	if off == 0 || off != h.read.next || off >= uint64(len(v)) {
		n := h.value()
		if n == nil {
			return 0, fuse.Status(syscall.ESTALE)
		}
		if off != 0 && off == h.read.next && v != nil { // the end of the value that was being read
			h.readAnew()
			return 0, fuse.OK
		}
		v = h.fs.policy.show(n.Value, n.Invalid)
	}
	n := copyFrom(buf, v, off)
	h.readAnew()
	if n > 0 && !h.fs.policy.through {
		*h.read = snapshot{value: v, next: off + uint64(n)}
	}
	return n, fuse.OK
}

// readAnew lets the next READ have the newest value, wherever the one before ended. The caller has mu.
func (h *handle) readAnew() {
	if h.read != nil {
		*h.read = snapshot{}
	}
}

// copyFrom copies what of v begins at off.
func copyFrom(buf, v []byte, off uint64) int {
	if off >= uint64(len(v)) {
		return 0
	}
	return copy(buf, v[off:])
}

// Write writes to the handle's batch or, where the view writes through, commits at once.
func (f *FS) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	file := f.handles.get(in.Fh)
	if w, ok := file.(specialWriter); ok {
		n, errno := w.write(data)
		return uint32(n), fuse.Status(errno)
	}
	h, ok := file.(*handle)
	if !ok {
		return 0, fuse.EBADF
	}
	if errno := h.mayWriteValue(lockOwner(in)); errno != 0 {
		return 0, fuse.Status(errno)
	}
	n, st := h.write(cancel, in, data)
	if f.loop != nil {
		f.loop.DropAttrAfterReply(in.Unique, in.NodeId)
	}
	return n, st
}

func (h *handle) write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	off, atEnd, limit := in.Offset, in.Flags&syscall.O_APPEND != 0, h.limit()
	if h.fs.policy.partial {
		if atEnd { // as dlmfs_file_open: O_APPEND makes no sense for a value block
			off, atEnd = 0, false
		}
		if off >= uint64(limit.size) {
			return 0, fuse.Status(limit.errno)
		}
		data = data[:min(len(data), limit.size-int(off))]
	}
	if h.fs.policy.through {
		return h.writeThrough(h.fs.call(&in.InHeader, cancel), lockOwner(in), piece{off, atEnd, data}, limit)
	}
	if st := h.lockBatch(&in.InHeader, cancel); st != fuse.OK {
		return 0, st
	}
	defer h.mu.Unlock()
	n := h.value()
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	b := &h.working().batch
	b.begin(n.Value, n.Generation)
	b.wroteBy(in.LockOwner, in.WriteFlags&fuse.WRITE_LOCKOWNER != 0)
	if errno := b.write(data, off, atEnd, limit); errno != 0 {
		return 0, fuse.Status(errno)
	}
	if h.fs.host.Room(len(b.data)-len(n.Value)) != nil { // a shell would not see it at the close
		return 0, fuse.Status(b.spoil(syscall.ENOSPC))
	}
	return uint32(len(data)), fuse.OK
}

// lockOwner is the owner of byte ranges that a WRITE is of, 0 if it is not known.
func lockOwner(in *fuse.WriteIn) uint64 {
	if in.WriteFlags&fuse.WRITE_LOCKOWNER == 0 {
		return 0
	}
	return in.LockOwner
}

// piece is what a WRITE brings.
type piece struct {
	off   uint64
	atEnd bool // wherever that is
	data  []byte
}

// writeThrough commits bytes to the newest value.
func (h *handle) writeThrough(c *lockd.Call, owner uint64, p piece, limit valueLimit) (uint32, fuse.Status) {
	commit := &statepb.Commit{}
	switch {
	case p.atEnd:
		commit.Change = &statepb.Commit_Append{Append: p.data}
	case p.off > uint64(limit.size) || uint64(len(p.data)) > uint64(limit.size)-p.off:
		return 0, fuse.Status(limit.errno)
	default:
		commit.Change = &statepb.Commit_Write{Write: &statepb.Write{Offset: p.off, Bytes: p.data}}
	}
	if err := h.commitThrough(c, owner, commit); err != nil {
		return 0, status(err, forTree)
	}
	return uint32(len(p.data)), fuse.OK
}

// commitThrough commits a change to the newest value, at once. A program that brings its own protocol does so under a
// flock(2) or byte ranges: then the commit is worth something only in the session that has them.
func (h *handle) commitThrough(c *lockd.Call, owner uint64, commit *statepb.Commit) error {
	commit.Ino, commit.Posix = h.ino, true
	session, err := h.rangesStand(owner)
	switch {
	case err != nil:
		return err
	case h.lock.Mode() != queue.None:
		_, err = h.fs.host.Commit(c, &h.lock, commit)
	default:
		err = h.fs.host.CommitIn(c, session, commit)
	}
	return err
}

// lockBatch locks mu when no commit is under way.
func (h *handle) lockBatch(in *fuse.InHeader, cancel <-chan struct{}) fuse.Status {
	for {
		h.mu.Lock()
		committing := h.work.commits()
		if committing == nil {
			return fuse.OK
		}
		h.mu.Unlock()
		if st := h.fs.await(in, cancel, committing); st != fuse.OK {
			return st
		}
	}
}

// resize is ftruncate(2) in a view with batches.
func (h *handle) resize(cancel <-chan struct{}, in *fuse.SetAttrIn) fuse.Status {
	if errno := h.mayWriteValue(resizeOwner(in)); errno != 0 {
		return fuse.Status(errno)
	}
	if st := h.lockBatch(&in.InHeader, cancel); st != fuse.OK {
		return st
	}
	defer h.mu.Unlock()
	n := h.value()
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	b := &h.working().batch
	b.begin(n.Value, n.Generation)
	b.wroteBy(in.LockOwner, in.Valid&fuse.FATTR_LOCKOWNER != 0)
	return fuse.Status(b.resize(in.Size, h.limit()))
}

// resizeOwner is the owner of byte ranges that an ftruncate(2) is of, 0 if it is not known.
func resizeOwner(in *fuse.SetAttrIn) uint64 {
	if in.Valid&fuse.FATTR_LOCKOWNER == 0 {
		return 0
	}
	return in.LockOwner
}

// resizeThrough is ftruncate(2) in a view without.
func (h *handle) resizeThrough(c *lockd.Call, in *fuse.SetAttrIn) fuse.Status {
	owner := resizeOwner(in)
	return status(h.commitThrough(c, owner, &statepb.Commit{Change: &statepb.Commit_Truncate{Truncate: in.Size}}), forTree)
}

// commit stores the batch, whatever state it is in, and waits for the answer. A spoiled batch gives
// its error and stays; a commit that fails spoils the batch.
func (h *handle) commit(c *lockd.Call) syscall.Errno {
	h.mu.Lock()
	for {
		committing := h.work.commits()
		if committing == nil {
			break
		}
		h.mu.Unlock()
		if c.Park != nil {
			c.Park()
		}
		<-committing // ends within the time for operations
		h.mu.Lock()
	}
	switch h.work.state() {
	case batchNone:
		h.mu.Unlock()
		return 0
	case batchSpoiled:
		defer h.mu.Unlock()
		return h.work.batch.spoiled
	}
	w := h.work
	if n := h.value(); n != nil {
		w.batch.begin(nil, n.Generation)
	}
	over := make(chan struct{})
	w.committing = over
	op := &statepb.Commit{
		Ino:            h.ino,
		BaseGeneration: w.batch.base,
		Change:         &statepb.Commit_Whole{Whole: w.batch.data},
	}
	h.mu.Unlock()
	_, err := h.fs.host.Commit(c, &h.lock, op)
	h.mu.Lock()
	defer h.mu.Unlock()
	defer close(over)
	w.committing = nil
	h.readAnew()
	if err != nil {
		return w.batch.spoil(commitErrno(err))
	}
	w.batch.discard()
	return 0
}

// commitErrno is the errno of a commit that failed: the old value stands.
func commitErrno(err error) syscall.Errno {
	if e := errno(err, forTree); e == syscall.ENOSPC || e == syscall.EFBIG || e == syscall.ESTALE {
		return e
	}
	return syscall.EIO
}

// Fsync commits what was written through the handle, by whomever. Of a lock that is lost it says so, even where there is
// nothing to commit: who asks whether all is well is to hear that it is not.
func (f *FS) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, ok := f.handles.get(in.Fh).(*handle)
	if !ok {
		return fuse.OK
	}
	errno := h.commit(f.call(&in.InHeader, cancel))
	if errno == 0 && h.lost(0) {
		errno = syscall.EIO
	}
	return fuse.Status(errno)
}

// Flush is a close by one process: of the descriptor itself, a duplicate or an inherited one. It commits if that process
// wrote since the last commit, and drops the process's fcntl(2) locks on the file.
func (f *FS) Flush(cancel <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h, ok := f.handles.get(in.Fh).(*handle)
	if !ok {
		return fuse.OK
	}
	if f.ranges.any() {
		f.dropRanges(h, in.LockOwner)
	}
	if !h.mattersAtFlush() {
		return fuse.OK
	}
	return h.flush(f.call(&in.InHeader, cancel), in.LockOwner)
}

// mattersAtFlush reports whether a FLUSH can have anything to do: there is a batch, or a lock whose holder's death makes
// the value invalid.
func (h *handle) mattersAtFlush() bool {
	if h.lock.Mode().Writes() {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.work.state() != batchNone
}

func (h *handle) flush(c *lockd.Call, owner uint64) fuse.Status {
	h.mu.Lock()
	wrote := h.work != nil && h.work.batch.wrote(owner)
	h.mu.Unlock()
	if process.Killed(c.PID) {
		return h.flushKilled(c, wrote)
	}
	if !wrote {
		return fuse.OK
	}
	errno := h.commit(c)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.work.state() == batchSpoiled {
		h.work.batch.discard()
	}
	return fuse.Status(errno)
}

// flushKilled is the FLUSH of a process that a signal killed: nothing of the batch is committed, and if it was the
// holder (it opened the descriptor, or wrote through it) of PW or EX, the value becomes invalid.
func (h *handle) flushKilled(c *lockd.Call, wrote bool) fuse.Status {
	killed := process.Tgid(c.PID)
	h.mu.Lock()
	held := killed != 0 && killed == h.holder
	if h.work != nil && (wrote || held) {
		h.work.batch.discard()
	}
	h.mu.Unlock()
	if !wrote && !held {
		return fuse.OK
	}
	if !h.lock.Mode().Writes() {
		return fuse.OK
	}
	err := h.fs.host.Invalidate(c, &h.lock, h.ino)
	if err != nil && !errors.Is(err, lockd.ErrLost) {
		h.fs.log.Warn("marking the value of a killed holder invalid", "ino", h.ino, "error", err)
	}
	return fuse.OK
}

// Release ends the handle. It must not wait.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { f.closeFile(f.handles.remove(in.Fh)) }

// close commits what is left, drops the lock and all that belongs to the handle. What must wait for the log goes on
// after it returned; whoever comes later waits for that.
func (h *handle) close() {
	h.mu.Lock()
	_, uncommitted := h.work.visible()
	commit := uncommitted && h.lock.Mode().Writes()
	var owners []uint64
	if h.work != nil {
		owners, h.work.owners = h.work.owners, nil
	}
	h.mu.Unlock()
	h.fs.dropRangesOf(h.ino, owners)
	if !commit {
		h.letGo()
		h.fs.closed(h.ino)
		return
	}
	c := &lockd.Call{}
	if !isAlias(h.node) {
		c.From = h.fs
	}
	done := h.fs.shared.begin(h.ino)
	h.fs.closing.Go(func() {
		defer done()
		if errno := h.commit(c); errno != 0 {
			h.fs.log.Warn("the last commit of a closed descriptor", "ino", h.ino, "error", errno)
		}
		h.letGo()
		h.fs.closed(h.ino)
	})
}

// Lseek answers SEEK_DATA and SEEK_HOLE with ENOSYS: the kernel then takes the value for one piece of data.
func (f *FS) Lseek(<-chan struct{}, *fuse.LseekIn, *fuse.LseekOut) fuse.Status { return fuse.ENOSYS }

// Fallocate and CopyFileRange are left to the kernel's own ways.
func (f *FS) Fallocate(<-chan struct{}, *fuse.FallocateIn) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}
