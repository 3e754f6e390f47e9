package conn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Unmount takes the mount point away, lazily: who has something open there keeps it, and the loop serves it until the
// last is closed. What somebody else has mounted at the place is left alone. A second call does nothing.
func (c *Conn) Unmount() error {
	if p, err := look(c.mountPoint); err != nil || c.mountID != 0 && p.mountID != c.mountID {
		return nil
	}
	if err := detach(c.mountPoint, c.helper); err != nil {
		return fmt.Errorf("unmount %s: %w", c.mountPoint, err)
	}
	return nil
}

// Abort ends the connection by force, from outside: all requests fail with ECONNABORTED, and Serve returns. It works
// through fusectl, or where that is not mounted through umount(2)'s MNT_FORCE, and needs the rights for it. Loop.Close
// needs neither; Abort is for a loop that hangs.
func (c *Conn) Abort() error {
	err := os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", c.number), []byte("1"), 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p, err := look(c.mountPoint); err != nil || p.mountID != c.mountID {
		return fmt.Errorf("abort %s: it is not mounted there any more, and fusectl is not mounted: %w", c.mountPoint, unix.ENOENT)
	}
	err = unix.Unmount(c.mountPoint, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("abort %s: %w", c.mountPoint, err)
	}
	return nil
}

// Close unmounts and ends the connection, whatever is still open there, and returns when Serve has. Handlers that wait
// are cancelled, and what clients keep open fails with ENOTCONN from then on. Not to be called by a handler.
func (l *Loop) Close() error {
	err := l.conn.Unmount()
	if !l.serving.Load() {
		l.conn.closeDevice()
		return err
	}
	// The Notifier must not hang in a write when the reading stops: it may wait for a directory that the kernel
	// holds for a request that nobody would read.
	l.cancelParked()
	l.notifier.end()
	l.closing.Store(true)
	l.retrieve(closeUnique) // fails if the connection has ended, which the reader sees too
	<-l.done
	return err
}

// closeUnique marks the NOTIFY_REPLY that Close asks for.
const closeUnique = 1
