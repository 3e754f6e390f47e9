// Package ioc is the ioctl interface of a lockfs descriptor: the request flags that open(2) and
// flock(2) have no room for, exact tokens, notices, and the value block whatever the offset.
//
// Every request is LOCKFS_IOC_x = _IOWR('L', n, struct): one fixed-size struct that the kernel copies
// in and out, in the machine's byte order, with explicit padding, so that 32- and 64-bit callers agree.
// lockfs.h beside this file is the same interface for C. Every field marked "pad" and every flag bit
// not named here must be zero (EINVAL), so that both can be given a meaning later.
//
//	program ── ioctl(fd, cmd, &struct) ──► kernel ── FUSE_IOCTL ──► fs: ioc.DecodeX(in) … x.Encode(out)
//	   └─ ioc.Lock, Convert, Token … (this package's user side)
//
// Modes are numbered 1 NL, 2 CR, 3 CW, 4 PR, 5 PW, 6 EX, and 0 none, as in lockd/queue. Durations are
// nanoseconds. Errors are those of open and flock on the same file: EAGAIN busy, ETIMEDOUT, EINTR
// (withdrawn), EDEADLK, EACCES, ENOLCK, EIO (the lock is lost), EINVAL (malformed, or the descriptor has
// no lock where one is needed), ENOTTY (not a lockfs descriptor).
package ioc
