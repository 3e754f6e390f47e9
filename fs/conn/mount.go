package conn

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Options says how to mount. The zero value of each field but MountPoint works.
type Options struct {
	MountPoint string // an existing directory
	FSName     string // the source shown in mount tables; "": lockfs
	Subtype    string // after "fuse." in the type shown, and what a stale mount is known by; "": lockfs
	AllowOther bool   // other users may use the mount, if the host permits it: see Conn.AllowOther
	MaxWrite   int    // bytes of the largest READ and WRITE, a multiple of 4096 up to 1 MiB; 0: 128 KiB

	// ExplicitDataCache turns off that cached reads check the attributes: cached pages then live until they are
	// invalidated, however long ago the attributes have run out.
	ExplicitDataCache bool

	Logger *slog.Logger // nil: slog.Default()
}

func (o Options) withDefaults() (Options, error) {
	if o.FSName == "" {
		o.FSName = "lockfs"
	}
	if o.Subtype == "" {
		o.Subtype = "lockfs"
	}
	if o.MaxWrite == 0 {
		o.MaxWrite = 128 << 10
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch {
	case o.MountPoint == "":
		return o, errors.New("mount: no mount point given")
	case strings.ContainsRune(o.MountPoint, 0) || strings.ContainsRune(o.FSName, 0):
		return o, errors.New("mount: a NUL byte in the mount point or the source name")
	case !plain(o.Subtype):
		return o, fmt.Errorf("mount: subtype %q: only letters, digits, '-' and '_'", o.Subtype)
	case o.MaxWrite < 4096 || o.MaxWrite > 1<<20 || o.MaxWrite%4096 != 0:
		return o, fmt.Errorf("mount: max write %d: a multiple of 4096 up to 1 MiB", o.MaxWrite)
	}
	return o, nil
}

// plain reports whether s can stand in the type of a file system.
func plain(s string) bool {
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		default:
			return false
		}
	}
	return s != "" && len(s) <= 32
}

// Mount mounts a file system that a Loop is to serve. As root it is mount(2), else (or where root may not) fusermount3.
// A dead mount of the same subtype, whose daemon is gone, is taken off the mount point first; a living one is refused.
// Until the loop has answered INIT the mount must not be used by this process.
func Mount(o Options) (*Conn, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	mountPoint, err := prepare(o)
	if err != nil {
		return nil, err
	}
	c := &Conn{options: o, mountPoint: mountPoint, fd: -1}
	if os.Geteuid() == 0 {
		err = c.mountDirect()
	}
	if os.Geteuid() != 0 || errors.Is(err, unix.EPERM) {
		err = c.mountHelped()
	}
	if err != nil {
		return nil, err
	}
	c.holds.Store(1)
	if err := c.identify(); err != nil {
		c.Unmount()
		c.closeDevice()
		return nil, err
	}
	return c, nil
}

// mountDirect mounts by mount(2).
func (c *Conn) mountDirect() error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("mount %s: opening /dev/fuse (is the fuse module loaded?): %w", c.mountPoint, err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions,max_read=%d",
		fd, os.Geteuid(), os.Getegid(), c.options.MaxWrite)
	if c.options.AllowOther {
		options += ",allow_other"
	}
	err = unix.Mount(c.options.FSName, c.mountPoint, "fuse."+c.options.Subtype, unix.MS_NOSUID|unix.MS_NODEV, options)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("mount %s: %w", c.mountPoint, err)
	}
	c.fd, c.allowOther = fd, c.options.AllowOther
	return nil
}
