package fs

import (
	"github.com/lockfs/lockfs/fs/conn"
	"github.com/lockfs/lockfs/fs/inotify"
	"github.com/lockfs/lockfs/lockd/state"
)

// changed queues what the kernel must be told of an entry of the log. from says which mount's requests made the changes: what the
// kernel knows of those it changes itself, when it gets the reply, and it raises their inotify events. The loop that applies the log
// calls it: it only queues.
func (f *FS) changed(index uint64, changes []state.Change, from []any) {
	if f.notes == nil {
		return
	}
	visible := false
	for i := range changes {
		c := &changes[i]
		own := f.made(i, from)
		visible = visible || shows(c)
		switch c.Kind {
		case state.Made:
			f.nameChanged(index, c.Parent, c.Name, own)
		case state.Removed:
			if c.Parent != 0 {
				f.nameChanged(index, c.Parent, c.Name, own)
				f.notes.Inode(index, c.Ino, -1, 0)
			}
		case state.Moved:
			f.nameChanged(index, c.Parent, c.Name, own)
			f.nameChanged(index, c.NewParent, c.NewName, own)
			f.notes.Inode(index, c.Ino, -1, 0)
		case state.Attr, state.Xattr:
			f.notes.Inode(index, c.Ino, -1, 0)
			if f.isDir(c.Ino) {
				f.notes.Inode(index, c.Ino|lockBit, -1, 0)
			}
		case state.Value, state.Invalidated:
			f.notes.Inode(index, f.fileOf(c.Ino), 0, 0)
		}
	}
	if f.raiser != nil && visible {
		f.raiser.Tell(index, func(t *inotify.Told) { f.raise(t, changes, from) })
	}
}

// made reports whether a request of this mount made a change.
func (f *FS) made(i int, from []any) bool { return i < len(from) && from[i] == any(f) }

// nameChanged has a name looked up again, unless this mount's own request changed it, and its directory's listing and
// attributes read again.
func (f *FS) nameChanged(index, parent uint64, name string, own bool) {
	if !own {
		f.notes.Entry(index, parent, name, conn.ExpireOnly)
	}
	f.notes.Inode(index, parent, 0, 0)
}

// fileOf returns the node id of a resource's file: of a directory that of its .lock.
func (f *FS) fileOf(ino uint64) uint64 {
	if f.isDir(ino) {
		return ino | lockBit
	}
	return ino
}

func (f *FS) isDir(ino uint64) bool {
	n := f.host.View().Node(ino)
	return n != nil && n.Dir
}

// lost is told that the session is lost. The kernel keeps names and attributes no longer than the lease anyway; what
// else it knows are the pages of mappings. Whoever polls a descriptor with byte ranges learns that they are lost.
func (f *FS) lost() {
	if f.notes == nil {
		return
	}
	for _, file := range f.handles.all() {
		if h, ok := file.(*handle); ok {
			f.notes.Inode(0, h.node, 0, 0)
			h.poll.Wake(f.loop)
		}
	}
}
