package fs

import (
	"strings"
	"syscall"

	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/queue"
)

// View is what one mount point makes of the tree (DESIGN 1.7). A lock is the same lock through every view.
type View uint8

const (
	ViewLock  View = iota // a plain open asks for a lock by its access mode
	ViewPosix             // a plain open never locks, writes go through at once
	ViewDlmfs             // the kernel's dlmfs, for libo2dlm
)

// ParseView returns the view of that name.
func ParseView(name string) (View, bool) {
	for v := range policies {
		if policies[v].name == name {
			return View(v), true
		}
	}
	return 0, false
}

// String returns the view's name.
func (v View) String() string { return policies[v].name }

// policy is a view's row in the table of rules.
type policy struct {
	name string
	ioc  ioc.View

	plain   [3]queue.Mode // what a plain open asks for, by access mode: O_RDONLY, O_WRONLY, O_RDWR
	busy    syscall.Errno // of an O_NONBLOCK open that cannot be granted
	through bool          // writes are commits at once, to the newest value, without a lock; else they gather in a batch
	orphans bool          // a file that is open can be unlinked

	truncate truncation // O_TRUNC and truncate(2)

	fixed     int           // if not 0: the value shows as so many bytes, filled up with zeros
	fullErrno syscall.Errno // a write past the limit of a value
	partial   bool          // a write that reaches past the limit writes what fits; else none of it
	ast       bool          // poll(2) shows a blocking AST as POLLIN, and nothing else
	flat      bool          // directories in the root only, files below them only, no rename
}

// truncation is what a view does with a request for a shorter file.
type truncation uint8

const (
	truncateBatch   truncation = iota // O_TRUNC and ftruncate go to the batch, truncate(2) by path is EACCES
	truncateThrough                   // a commit at once
	truncateNever                     // ignored, as dlmfs_file_setattr does
)

var policies = [...]policy{
	ViewLock: {
		name: "lock", ioc: ioc.ViewLock,
		plain:     [3]queue.Mode{queue.None, queue.PW, queue.EX},
		busy:      syscall.EAGAIN,
		truncate:  truncateBatch,
		fullErrno: syscall.EFBIG,
	},
	ViewPosix: {
		name: "posix", ioc: ioc.ViewPosix,
		busy:      syscall.EAGAIN,
		through:   true,
		orphans:   true,
		truncate:  truncateThrough,
		fullErrno: syscall.EFBIG,
	},
	ViewDlmfs: { // Linux fs/ocfs2/dlmfs/dlmfs.c
		name: "dlmfs", ioc: ioc.ViewDlmfs,
		plain:     [3]queue.Mode{queue.PR, queue.EX, queue.EX},
		busy:      syscall.ETXTBSY,
		truncate:  truncateNever,
		fixed:     64, // DLM_LVB_LEN
		fullErrno: syscall.ENOSPC,
		partial:   true,
		ast:       true,
		flat:      true,
	},
}

// Limits of names in the dlmfs view: O2NM_MAX_NAME_LEN for a domain, USER_DLM_LOCK_ID_MAX_LEN for a lock, the
// terminating zero included.
const (
	dlmfsDomainLen = 64
	dlmfsLockLen   = 32
)

// checkMake says whether the view lets a name be made in a directory: the root or another.
func (p *policy) checkMake(name string, dir, inRoot bool) syscall.Errno {
	switch {
	case !p.flat:
		return 0
	case dir && !inRoot:
		return syscall.EPERM
	case !dir && inRoot:
		return syscall.EACCES
	case dir && len(name) >= dlmfsDomainLen:
		return syscall.EINVAL
	case !dir && (len(name) >= dlmfsLockLen || strings.HasPrefix(name, "$")):
		return syscall.EINVAL
	}
	return 0
}

// show returns the value as the view shows it.
func (p *policy) show(value []byte, invalid bool) []byte {
	switch {
	case p.fixed == 0:
		return value
	case invalid:
		return nil
	case len(value) >= p.fixed:
		return value[:p.fixed]
	}
	shown := make([]byte, p.fixed)
	copy(shown, value)
	return shown
}

// size returns the size that the view reports of a value of n bytes.
func (p *policy) size(n int) uint64 {
	if p.fixed != 0 {
		return uint64(p.fixed)
	}
	return uint64(n)
}
