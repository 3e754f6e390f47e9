package fs

import (
	"sync"

	"github.com/lockfs/lockfs/fs/conn"
	"github.com/lockfs/lockfs/lockd/state"
)

// ownNames are the names that this mount's own requests are changing: at most one request each, since the kernel locks
// the name. The kernel changes its cache of them itself, when it gets the reply; being told besides would only make it
// look them up again.
type ownNames struct {
	mu    sync.Mutex
	names map[nameKey]struct{}
}

type nameKey struct {
	parent uint64
	name   string
}

// begin notes names that a request changes; done must be called when it has been answered.
func (o *ownNames) begin(keys ...nameKey) (done func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.names == nil {
		o.names = make(map[nameKey]struct{})
	}
	for _, k := range keys {
		o.names[k] = struct{}{}
	}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, k := range keys {
			delete(o.names, k)
		}
	}
}

// take reports whether a change of a name is the request's own, which is so once.
func (o *ownNames) take(k nameKey) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, own := o.names[k]; !own {
		return false
	}
	delete(o.names, k)
	return true
}

// changed queues what the kernel must be told of an entry of the log. The loop that applies the log calls it: it only
// queues.
func (f *FS) changed(index uint64, changes []state.Change) {
	if f.notes == nil {
		return
	}
	for i := range changes {
		c := &changes[i]
		switch c.Kind {
		case state.Made:
			f.nameChanged(index, c.Parent, c.Name)
		case state.Removed:
			if c.Parent != 0 {
				f.nameChanged(index, c.Parent, c.Name)
				f.notes.Inode(index, c.Ino, -1, 0)
			}
		case state.Moved:
			f.nameChanged(index, c.Parent, c.Name)
			f.nameChanged(index, c.NewParent, c.NewName)
			f.notes.Inode(index, c.Ino, -1, 0)
		case state.Attr, state.Xattr:
			f.notes.Inode(index, c.Ino, -1, 0)
			if f.isDir(c.Ino) {
				f.notes.Inode(index, c.Ino|lockBit, -1, 0)
			}
		case state.Value, state.Invalidated:
			node := c.Ino
			if f.isDir(node) {
				node |= lockBit
			}
			f.notes.Inode(index, node, 0, 0)
		}
	}
}

// nameChanged has a name looked up again, unless this mount's own request changed it, and its directory's listing and
// attributes read again.
func (f *FS) nameChanged(index, parent uint64, name string) {
	if !f.names.take(nameKey{parent, name}) {
		f.notes.Entry(index, parent, name, conn.ExpireOnly)
	}
	f.notes.Inode(index, parent, 0, 0)
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
