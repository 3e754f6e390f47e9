package fs

import (
	"math"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/conn"
	"github.com/lockfs/lockfs/fs/inotify"
	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
)

// What was done elsewhere shows to inotify watchers of this mount too: see package inotify. Here is what its raiser is told, and how
// the requests of its own thread are answered: nothing is ever proposed for them, and none of them waits.

// newRaiser makes the raiser of a mount, nil if it cannot be had.
func (f *FS) newRaiser(c *conn.Conn, l *conn.Loop) *inotify.Raiser {
	r, err := inotify.New(inotify.Options{Mount: raised{c, l}, Tree: names{f.host}, Logger: f.log})
	if err != nil {
		f.log.Warn("inotify shows nothing of what other hosts do", "error", err)
		return nil
	}
	return r
}

// raised is the mount as its raiser sees it.
type raised struct {
	*conn.Conn
	loop *conn.Loop
}

func (m raised) Known(node uint64) bool { return m.loop.Known(node) }

func (m raised) Expire(parent uint64, name string) { m.loop.InvalEntry(parent, name, conn.ExpireOnly) }

func (m raised) Settle(index uint64, stop <-chan struct{}) {
	m.loop.Notifier().Wait(index, stop, time.Duration(math.MaxInt64))
}

// names is the tree as the raiser sees it.
type names struct{ host *lockd.Host }

func (t names) Root() uint64 { return rootIno }

func (t names) Where(node uint64) (inotify.Name, bool) {
	n := t.host.View().Node(resource(node))
	switch {
	case n == nil:
		return inotify.Name{}, false
	case isLockFile(node):
		return inotify.Name{Parent: n.Ino, Name: lockName}, true
	}
	return inotify.Name{Parent: n.Parent, Name: n.Name}, n.Parent != 0
}

func (t names) Gone(node uint64) bool {
	n := t.host.View().Node(node)
	return n == nil || n.Orphan != 0
}

// shows reports whether a change may show to inotify watchers.
func shows(c *state.Change) bool { return c.Kind.Tree() || c.Kind == state.Deadlocked }

// raise tells the raiser of the changes of an entry that no request of this mount made.
func (f *FS) raise(t *inotify.Told, changes []state.Change, from []any) {
	for i := range changes {
		c, own := &changes[i], f.made(i, from)
		name, to := inotify.Name{Parent: c.Parent, Name: c.Name}, inotify.Name{Parent: c.NewParent, Name: c.NewName}
		entry := inotify.Entry{Ino: c.Ino, Dir: c.Dir}
		switch {
		case c.Kind == state.Deadlocked:
			f.raiseDeadlock(t, c.ID)
		case own && c.Kind == state.Moved:
			t.Known(name)
			t.Known(to)
		case own && (c.Kind == state.Made || c.Kind == state.Removed):
			t.Known(name)
		case own:
		case c.Kind == state.Made:
			t.Made(name, entry)
		case c.Kind == state.Removed && c.Parent != 0:
			t.Removed(name, entry)
		case c.Kind == state.Moved:
			t.Moved(name, to, entry)
		case c.Kind == state.Attr, c.Kind == state.Xattr:
			t.Node(c.Ino, inotify.Attrib)
		case c.Kind == state.Invalidated:
			t.Node(f.fileOf(c.Ino), inotify.Attrib)
		case c.Kind == state.Value:
			t.Node(f.fileOf(c.Ino), inotify.Modify)
		}
	}
}

// raiseDeadlock tells of the files of a deadlock.
func (f *FS) raiseDeadlock(t *inotify.Told, id uint64) {
	for _, cycle := range f.host.View().Cycles() {
		if cycle.ID == id {
			for i := range cycle.Parties {
				t.Node(f.fileOf(cycle.Parties[i].Wait.Ino), inotify.Attrib)
			}
		}
	}
}

// raises reports whether a request is of the raiser's own thread.
func (f *FS) raises(h *fuse.InHeader) bool { return f.raiser != nil && f.raiser.Own(h.Pid) }

// permit is the answer to a request of the raiser that has nothing to return.
func permit(ok bool) fuse.Status {
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	return fuse.OK
}

// raiseLookup shows the raiser a name as watchers have been shown it. What is not the truth is for this once.
func (f *FS) raiseLookup(name inotify.Name, out *fuse.EntryOut) fuse.Status {
	e, differs := f.raiser.Shown(name)
	switch {
	case differs && e.Ino == 0:
		return fuse.ENOENT
	case differs:
		f.raiseEntry(e, out)
		return fuse.OK
	}
	view := f.host.View()
	node, n := f.find(view, name.Parent, name.Name)
	if n == nil {
		return fuse.ENOENT
	}
	f.entry(out, node, n)
	if ephemeral(view, n) {
		out.SetEntryTimeout(0)
	}
	return fuse.OK
}

// raiseMade answers the making of a name that is there.
func (f *FS) raiseMade(name inotify.Name, dir bool, out *fuse.EntryOut) fuse.Status {
	e, ok := f.raiser.PermitsMake(name, dir)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	f.raiseEntry(e, out)
	return fuse.OK
}

// raiseEntry fills the reply that names a node, which may be gone. The kernel asks again for whoever comes next.
func (f *FS) raiseEntry(e inotify.Entry, out *fuse.EntryOut) {
	n := f.host.View().Node(e.Ino)
	if n == nil {
		n = &state.Node{Ino: e.Ino, Dir: e.Dir}
	}
	f.entry(out, e.Ino, n)
	out.SetEntryTimeout(0)
	if n.Parent == 0 {
		out.SetAttrTimeout(0)
	}
}
