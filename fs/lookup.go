package fs

import (
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/inotify"
	"github.com/lockfs/lockfs/lockd/state"
)

// Lookup finds a name in a directory: an entry, .lock, .lockfs in the root, or an alias of one of them.
func (f *FS) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	parent := h.NodeId
	if f.raises(h) {
		return f.raiseLookup(inotify.Name{Parent: parent, Name: name}, out)
	}
	if isSpecial(parent) || parent == rootIno && name == specialName {
		return f.specialLookup(h, name, out)
	}
	base, a := name, alias{}
	if strings.IndexByte(name, '@') >= 0 {
		var errno syscall.Errno
		if base, a, errno = parseAlias(name); errno != 0 {
			return fuse.Status(errno)
		}
	}
	if st := f.awaitEphemeral(h, cancel, parent, base); st != fuse.OK {
		return st
	}
	view := f.host.View()
	if a.kind != 0 {
		return f.lookupAlias(view, parent, base, a, out)
	}
	node, n := f.find(view, parent, name)
	if n == nil {
		return f.absent(view, name, out)
	}
	f.entry(out, node, n)
	if ephemeral(view, n) {
		out.SetEntryTimeout(0)
	}
	return fuse.OK
}

// find returns the node id and node of a plain name.
func (f *FS) find(view *state.View, parent uint64, name string) (uint64, *state.Node) {
	if name == lockName {
		dir := view.Node(parent)
		if dir == nil || !dir.Dir {
			return 0, nil
		}
		return parent | lockBit, dir
	}
	n := view.Lookup(parent, name)
	if n == nil {
		return 0, nil
	}
	return n.Ino, n
}

// absent tells the kernel that there is no such name, and for how long it need not ask again.
func (f *FS) absent(view *state.View, name string, out *fuse.EntryOut) fuse.Status {
	if uint64(len(name)) > view.Limits().NameLen {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	out.NodeId = 0
	out.SetEntryTimeout(f.validFor())
	return fuse.OK
}

// entry fills the reply that names a node.
func (f *FS) entry(out *fuse.EntryOut, node uint64, n *state.Node) {
	out.NodeId = node
	out.Generation = 1
	valid := f.validFor()
	out.SetEntryTimeout(valid)
	out.SetAttrTimeout(valid)
	f.fillAttr(&out.Attr, node, n)
}

// lookupAlias makes an alias inode. Neither it nor its absence is kept by the kernel.
func (f *FS) lookupAlias(view *state.View, parent uint64, base string, a alias, out *fuse.EntryOut) fuse.Status {
	_, n := f.find(view, parent, base)
	if n == nil {
		return fuse.ENOENT
	}
	al := aliasNode{alias: a, node: n.Ino | lockBitOf(n)}
	id := f.aliases.add(al)
	out.NodeId = id
	out.Generation = 1
	f.fillAlias(&out.Attr, id, al, n)
	return fuse.OK
}

// Forget drops what is kept for an inode that the kernel has dropped.
func (f *FS) Forget(node, nlookup uint64) {
	switch {
	case isAlias(node):
		f.aliases.forget(node)
	case isSpecial(node):
		f.specialForget(node, nlookup)
	}
}
