package load

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// onFile prepares a workload that makes one call over and over on a file of the worker's own, with a value of 64 bytes.
// fd is a descriptor of it without a lock.
func (t *turn) onFile(call func(path *byte, fd uintptr) func() unix.Errno) (act, error) {
	c, ok := t.client.(*files)
	if !ok {
		return act{}, errors.New("only files have such a call")
	}
	value, err := c.Value(t.own(t.Worker))
	if err != nil {
		return act{}, err
	}
	v := value.(*fileValue)
	op := call(v.path, v.fd)
	repeated := func() error {
		if errno := op(); errno != 0 {
			return fmt.Errorf("%s: %w", v.name, errno)
		}
		return nil
	}
	a := act{
		run:  func(o *outcome) error { return t.repeat(o, repeated) },
		undo: func() { v.Remove() },
	}
	if err := errors.Join(v.Write(make([]byte, valueSize)), warm(repeated)); err != nil {
		a.undo()
		return act{}, err
	}
	return a, nil
}

func prepareFlock(t *turn) (act, error) {
	return t.onFile(func(_ *byte, fd uintptr) func() unix.Errno {
		return func() unix.Errno {
			if _, _, errno := unix.RawSyscall(unix.SYS_FLOCK, fd, unix.LOCK_EX, 0); errno != 0 {
				return errno
			}
			_, _, errno := unix.RawSyscall(unix.SYS_FLOCK, fd, unix.LOCK_UN, 0)
			return errno
		}
	})
}

func prepareRead(t *turn) (act, error) {
	p := make([]byte, valueSize)
	return t.onFile(func(_ *byte, fd uintptr) func() unix.Errno {
		return func() unix.Errno {
			_, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
			return errno
		}
	})
}

func prepareCat(t *turn) (act, error) {
	p := make([]byte, valueSize)
	return t.onFile(func(path *byte, _ uintptr) func() unix.Errno {
		return func() unix.Errno {
			fd, errno := openFile(path, unix.O_RDONLY)
			if errno != 0 {
				return errno
			}
			_, _, errno = unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
			closeFD(fd)
			return errno
		}
	})
}

func prepareStat(t *turn) (act, error) {
	var st unix.Stat_t
	return t.onFile(func(path *byte, _ uintptr) func() unix.Errno {
		return func() unix.Errno {
			at := unix.AT_FDCWD
			_, _, errno := unix.RawSyscall6(unix.SYS_NEWFSTATAT, uintptr(at), uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&st)), 0, 0, 0)
			return errno
		}
	})
}
