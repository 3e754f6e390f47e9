package conn

import (
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/thread"
)

// aside writes the notifications that wait in the kernel for a directory: by a thread, and through a device, of its own. If the
// daemon is killed meanwhile, the device that requests were read from is closed all the same; that ends them, and so whoever holds
// the directory lets go of it (fuse_dev_release). Else neither the client nor the daemon would ever end.
type aside struct {
	mu     sync.Mutex
	thread *thread.Thread // nil: closed
	fd     int            // the thread's
}

// cloneDevice is FUSE_DEV_IOC_CLONE: it makes a device that was opened one more of another one's connection.
const cloneDevice = 0x8004e500

func newAside(device int) (*aside, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	defer unix.Close(fd)
	of := uint32(device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), cloneDevice, uintptr(unsafe.Pointer(&of))); errno != 0 {
		return nil, fmt.Errorf("a second device of the connection: %w", errno)
	}
	t, err := thread.New(fd)
	if err != nil {
		return nil, err
	}
	return &aside{thread: t, fd: fd}, nil
}

// notify writes a notification, which may block. Once closed it is ENODEV.
func (a *aside) notify(message []byte) (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.thread == nil {
		return unix.ENODEV
	}
	a.thread.Do(func() {
		for err = unix.EINTR; err == unix.EINTR; {
			_, err = unix.Write(a.fd, message)
		}
	})
	return err
}

// close closes the device, without which the connection does not end. Nobody writes any more.
func (a *aside) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.thread != nil {
		a.thread.Do(func() { unix.Close(a.fd) })
		a.thread.Close()
		a.thread = nil
	}
}
