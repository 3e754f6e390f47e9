package conn

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

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
		return fmt.Errorf("abort %s: it is not mounted there any more, and fusectl is not mounted: %w", c.mountPoint,
			unix.ENOENT)
	}
	err = unix.Unmount(c.mountPoint, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("abort %s: %w", c.mountPoint, err)
	}
	return nil
}

// Close unmounts and ends the connection, whatever is still open there, and returns when Serve has. Handlers that wait
// are cancelled, requests that have not been read fail, and what clients keep open answers ENOTCONN from then on. Where
// somebody else has unmounted before, files are still open and fusectl is not mounted, it fails, and Serve ends only with
// the next request. Not to be called by a handler.
func (l *Loop) Close() error {
	root, reachable := l.conn.OpenRoot()
	err := l.conn.Unmount()
	if !l.serving.Load() {
		if reachable {
			unix.Close(root)
		}
		l.conn.closeDevice()
		return err
	}
	// The Notifier must not hang in a write when the reading stops: it may wait for a directory that the kernel
	// holds for a request that nobody would read.
	l.cancelParked()
	l.notifier.end()
	l.closing.Store(true)
	if !reachable {
		return errors.Join(err, l.closeUnreachable())
	}
	awake := make(chan struct{})
	go func() {
		defer close(awake)
		defer unix.Close(root)
		var st unix.Statfs_t
		unix.Fstatfs(root, &st)
	}()
	<-l.done
	<-awake
	return err
}

// abortTime is how long Close gives a connection to end that it cannot end itself.
const abortTime = time.Second

// closeUnreachable is Close where somebody else has unmounted already, or mounted over it. If nothing is open there, the
// connection has ended; else only an abort can end it.
func (l *Loop) closeUnreachable() error {
	aborted := l.conn.Abort()
	if aborted == nil {
		<-l.done
		return nil
	}
	select {
	case <-l.done:
		return nil
	case <-time.After(abortTime):
		return fmt.Errorf("%w; programs have files open there; it ends when they next use or close them, or with this process",
			aborted)
	}
}

// OpenRoot opens the root of the mount, of which the daemon learns nothing; false if the mount is not at its place. While it is
// open the connection does not end by an unmount, and umount(8) says that the mount is busy.
//
// Close has it to wake the reader, which sleeps in a read(2) that nothing but a request ends: closing the descriptor does
// not, nor a signal, since Go's handlers restart it. (NOTIFY_RETRIEVE would cause a request, but for regular files
// only.)
func (c *Conn) OpenRoot() (fd int, ok bool) {
	fd, err := unix.Open(c.mountPoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false
	}
	var st unix.Statx_t
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err != nil || st.Mask&unix.STATX_MNT_ID == 0 || st.Mnt_id != c.mountID {
		unix.Close(fd)
		return -1, false
	}
	return fd, true
}
