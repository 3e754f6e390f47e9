package conn

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a mount: the device and the place where it is mounted.
type Conn struct {
	options    Options
	mountPoint string // absolute, without symbolic links
	mountID    uint64
	number     uint32 // of the connection, as in /sys/fs/fuse/connections
	allowOther bool
	helper     string // the fusermount3 that mounted it, "" for mount(2)
	fd         int

	holds     atomic.Int64 // 1 while it is open, and 1 for each notification under way; closed at 0
	closeOnce sync.Once
}

// MountPoint is where it is mounted: absolute, without symbolic links.
func (c *Conn) MountPoint() string { return c.mountPoint }

// Number is the connection's under /sys/fs/fuse/connections.
func (c *Conn) Number() uint32 { return c.number }

// AllowOther reports whether other users may use the mount: asked for, and permitted.
func (c *Conn) AllowOther() bool { return c.allowOther }

// notify writes a notification, which may block. It may come at any time, also when the device is closed: then it is
// ENODEV, and not written into whatever has got the descriptor's number.
func (c *Conn) notify(message []byte) error {
	if !c.hold() {
		return unix.ENODEV
	}
	defer c.release()
	for {
		_, err := unix.Write(c.fd, message)
		if err != unix.EINTR {
			return err
		}
	}
}

// reply writes the reply of a request, while Serve has not ended. Unlike a notification it never sleeps, so the scheduler need not be told of the
// call (which costs a tenth of a microsecond).
func (c *Conn) reply(message []byte) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(unsafe.SliceData(message))),
		uintptr(len(message)))
	if errno != 0 {
		return errno
	}
	return nil
}

// hold keeps the descriptor from being closed until release, if it is still open.
func (c *Conn) hold() bool {
	for {
		n := c.holds.Load()
		if n == 0 {
			return false
		}
		if c.holds.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *Conn) release() {
	if c.holds.Add(-1) == 0 {
		unix.Close(c.fd)
	}
}

// closeDevice closes the device, which ends the connection: what clients have open answers ECONNABORTED or ENOTCONN.
// Who reads or replies must have ended.
func (c *Conn) closeDevice() { c.closeOnce.Do(c.release) }
