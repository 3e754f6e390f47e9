package fs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
)

// purpose is the kind of call that an error is answered to. The same error can mean different things to a program that
// asked for a lock and to one that removes a file.
type purpose uint8

const (
	forTree  purpose = iota // names, attributes, the value
	forLock                 // OPEN and the ioctls that ask for a lock
	forFlock                // flock(2): never EIO, which makes flock(1) open the file anew (DESIGN 1.3)
	forRange                // fcntl(2) byte ranges
	purposes
)

// errnos is the one table of errnos. A row holds the first error that matches (errors.Is), from the top.
var errnos = []struct {
	err   error
	errno [purposes]syscall.Errno
}{
	//                          tree             lock               flock              range
	{lockd.ErrBusy, row(syscall.EBUSY, syscall.EAGAIN, syscall.EAGAIN, syscall.EAGAIN)},
	{lockd.ErrTimeout, row(syscall.EBUSY, syscall.ETIMEDOUT, syscall.ETIMEDOUT, syscall.ETIMEDOUT)},
	{lockd.ErrInterrupted, row(syscall.EINTR, syscall.EINTR, syscall.EINTR, syscall.EINTR)},
	{lockd.ErrDeadlock, row(syscall.EDEADLK, syscall.EDEADLK, syscall.EDEADLK, syscall.EDEADLK)},
	{lockd.ErrLost, row(syscall.EIO, syscall.EIO, syscall.ENOLCK, syscall.ENOLCK)},
	{lockd.ErrNoQuorum, row(syscall.EIO, syscall.EIO, syscall.EAGAIN, syscall.EAGAIN)},
	{lockd.ErrNoSpace, row(syscall.ENOSPC, syscall.ENOSPC, syscall.ENOLCK, syscall.ENOLCK)},
	{lockd.ErrDraining, row(syscall.EIO, syscall.ENOLCK, syscall.ENOLCK, syscall.ENOLCK)},
	{lockd.ErrClosed, row(syscall.EIO, syscall.EIO, syscall.ENOLCK, syscall.ENOLCK)},
	{lockd.ErrFlags, row(syscall.EINVAL, syscall.EINVAL, syscall.EINVAL, syscall.EINVAL)},
	{lockd.ErrNoLocks, row(syscall.ENOLCK, syscall.ENOLCK, syscall.ENOLCK, syscall.ENOLCK)},

	{state.NotFound, row(syscall.ENOENT, syscall.ESTALE, syscall.ENOLCK, syscall.ENOLCK)},
	{state.Exists, row(syscall.EEXIST, syscall.EEXIST, syscall.ENOLCK, syscall.ENOLCK)},
	{state.NotEmpty, row(syscall.ENOTEMPTY, syscall.EIO, syscall.ENOLCK, syscall.ENOLCK)},
	{state.NotDir, row(syscall.ENOTDIR, syscall.ENOTDIR, syscall.ENOLCK, syscall.ENOLCK)},
	{state.IsDir, row(syscall.EISDIR, syscall.EISDIR, syscall.ENOLCK, syscall.ENOLCK)},
	{state.Busy, row(syscall.EBUSY, syscall.EAGAIN, syscall.EAGAIN, syscall.EAGAIN)},
	{state.Recalling, row(syscall.EBUSY, syscall.EAGAIN, syscall.EAGAIN, syscall.EAGAIN)},
	{state.NoSpace, row(syscall.ENOSPC, syscall.ENOSPC, syscall.ENOLCK, syscall.ENOLCK)},
	{state.TooBig, row(syscall.EFBIG, syscall.EFBIG, syscall.ENOLCK, syscall.ENOLCK)},
	{state.Stale, row(syscall.ESTALE, syscall.ESTALE, syscall.ENOLCK, syscall.ENOLCK)},
	{state.NotHolder, row(syscall.EIO, syscall.EIO, syscall.ENOLCK, syscall.ENOLCK)},
	{state.Ended, row(syscall.EIO, syscall.EIO, syscall.ENOLCK, syscall.ENOLCK)},
	{state.Invalid, row(syscall.EINVAL, syscall.EINVAL, syscall.EINVAL, syscall.EINVAL)},
	{state.NameTooLong, row(syscall.ENAMETOOLONG, syscall.ENAMETOOLONG, syscall.ENOLCK, syscall.ENOLCK)},
	{state.TooDeep, row(syscall.ELOOP, syscall.ELOOP, syscall.ENOLCK, syscall.ENOLCK)},
	{state.NoAttr, row(syscall.ENODATA, syscall.ENODATA, syscall.ENOLCK, syscall.ENOLCK)},
	{state.Reserved, row(syscall.EPERM, syscall.EPERM, syscall.ENOLCK, syscall.ENOLCK)},
	{state.Loop, row(syscall.EINVAL, syscall.EINVAL, syscall.ENOLCK, syscall.ENOLCK)},
	{state.TooMany, row(syscall.ENOLCK, syscall.ENOLCK, syscall.ENOLCK, syscall.ENOLCK)},
	{state.Deadlock, row(syscall.EDEADLK, syscall.EDEADLK, syscall.EDEADLK, syscall.EDEADLK)},
}

func row(tree, lock, flock, ranges syscall.Errno) [purposes]syscall.Errno {
	return [purposes]syscall.Errno{tree, lock, flock, ranges}
}

// unknown is the errno of an error that the table does not have.
var unknown = row(syscall.EIO, syscall.EIO, syscall.ENOLCK, syscall.ENOLCK)

// errno returns the errno of an error for a purpose, 0 for none. An errno given as the error stands for itself.
func errno(err error, c purpose) syscall.Errno {
	if err == nil {
		return 0
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	for i := range errnos {
		if errors.Is(err, errnos[i].err) {
			return errnos[i].errno[c]
		}
	}
	return unknown[c]
}

// status is errno as the answer to a request.
func status(err error, c purpose) fuse.Status { return fuse.Status(errno(err, c)) }
