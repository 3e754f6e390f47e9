package fs

import (
	"errors"
	"fmt"
	"iter"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/conn"
)

// MountOptions are what [Mount] needs: those of New, and where.
type MountOptions struct {
	Options
	MountPoint string
	AllowOther bool // other users may use the mount, if the host permits it

	// Mounted is called before anything in the mount can be opened, with whether other users may use it. An error
	// undoes the mount. May be nil.
	Mounted func(mountPoint string, others bool) error
}

// Mounted is a mount that is served.
type Mounted struct {
	fs   *FS
	conn *conn.Conn
	loop *conn.Loop
	err  error // of Serve, when the loop is done
	done chan struct{}
}

// Mount mounts a view of a host and serves it until it is unmounted or closed. It returns when the mount can be used.
// While it is served the host renews its lease only if its loop answers.
func Mount(o MountOptions) (*Mounted, error) {
	c, err := conn.Mount(conn.Options{MountPoint: o.MountPoint, AllowOther: o.AllowOther, Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	if o.Mounted != nil {
		if err := o.Mounted(c.MountPoint(), c.AllowOther()); err != nil {
			return nil, errors.Join(err, conn.NewLoop(c, fuse.NewDefaultRawFileSystem(), nil).Close())
		}
	}
	f := New(o.Options)
	f.dev = unix.Mkdev(0, c.Number())
	m := &Mounted{fs: f, conn: c, loop: conn.NewLoop(c, f, f), done: make(chan struct{})}
	f.loop, f.notes = m.loop, m.loop.Notifier()
	f.raiser = f.newRaiser(c, m.loop)
	f.stop = append(f.stop, f.shared.watch(f), f.host.AddProbe(m.loop.Alive))
	if f.raiser != nil {
		f.stop = append(f.stop, f.raiser.Close)
	}
	go func() {
		defer close(m.done)
		m.err = m.loop.Serve()
	}()
	select {
	case <-m.loop.Ready():
		if f.raiser != nil {
			f.raiser.Start()
		}
		return m, nil
	case <-m.done:
		if m.err == nil {
			return nil, fmt.Errorf("mount %s: unmounted by somebody else before it was ready", o.MountPoint)
		}
		return nil, m.err
	}
}

// FS is the file system behind the mount.
func (m *Mounted) FS() *FS { return m.fs }

// MountPoint is where it is mounted: absolute, without symbolic links.
func (m *Mounted) MountPoint() string { return m.conn.MountPoint() }

// AllowOther reports whether other users may use the mount: asked for, and permitted.
func (m *Mounted) AllowOther() bool { return m.conn.AllowOther() }

// Requests returns how many requests of each kind the kernel has sent: see [conn.Loop.Requests].
func (m *Mounted) Requests() iter.Seq2[string, uint64] { return m.loop.Requests() }

// Parked is how many requests of the mount wait, for a lock or for the cluster.
func (m *Mounted) Parked() int { return m.loop.Parked() }

// Done is closed when the mount is gone; Err then says why, nil for an unmount or Close.
func (m *Mounted) Done() <-chan struct{} { return m.done }

// Err is the error that ended the serving. To be asked after Done.
func (m *Mounted) Err() error { return m.err }

// Unmount takes the mount point away and lets those who have something open there go on until they close it.
func (m *Mounted) Unmount() error { return m.conn.Unmount() }

// Close unmounts and ends the serving, whatever is still open; it returns when all of it has ended. Locks of
// descriptors that are open are released.
func (m *Mounted) Close() error {
	if m.fs.raiser != nil {
		m.fs.raiser.Close() // while its calls are still answered
	}
	err := m.loop.Close()
	<-m.done
	return err
}
