package conn

import (
	"sync"
	"sync/atomic"

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

	closeOnce sync.Once
	closed    atomic.Bool
}

// MountPoint is where it is mounted: absolute, without symbolic links.
func (c *Conn) MountPoint() string { return c.mountPoint }

// Number is the connection's under /sys/fs/fuse/connections.
func (c *Conn) Number() uint32 { return c.number }

// AllowOther reports whether other users may use the mount: asked for, and permitted.
func (c *Conn) AllowOther() bool { return c.allowOther }

// write writes one message to the device.
func (c *Conn) write(message []byte) error {
	for {
		_, err := unix.Write(c.fd, message)
		if err != unix.EINTR {
			return err
		}
	}
}

// closeDevice closes the device, which ends the connection: what clients have open answers ECONNABORTED or ENOTCONN.
func (c *Conn) closeDevice() {
	c.closeOnce.Do(func() {
		c.closed.Store(true)
		unix.Close(c.fd)
	})
}
