package fs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

const (
	blockSize = 4096
	maxLink   = 1 // of every node; for a directory it says that nobody counts its subdirectories (find(1) knows)
)

// fillAttr writes the attributes of a node as a node id shows it: itself, or the .lock file of a directory.
func (f *FS) fillAttr(a *fuse.Attr, node uint64, n *state.Node) {
	*a = fuse.Attr{
		Ino:     node,
		Nlink:   maxLink,
		Blksize: blockSize,
		Owner:   fuse.Owner{Uid: n.UID, Gid: n.GID},
	}
	a.Atime, a.Atimensec = split(n.Atime)
	a.Mtime, a.Mtimensec = split(n.Mtime)
	a.Ctime, a.Ctimensec = split(n.Ctime)
	switch {
	case isLockFile(node):
		a.Mode = syscall.S_IFREG | n.Perm&0o666
		a.Size = f.policy.size(len(n.Value))
	case n.Dir:
		a.Mode = syscall.S_IFDIR | n.Perm
		return
	default:
		a.Mode = syscall.S_IFREG | n.Perm
		a.Size = f.policy.size(len(n.Value))
		if n.Orphan != 0 {
			a.Nlink = 0
		}
	}
	a.Blocks = (a.Size + 511) / 512
}

// split makes seconds and nanoseconds of nanoseconds since the epoch.
func split(ns int64) (sec uint64, nsec uint32) {
	s, rest := ns/1e9, ns%1e9
	if rest < 0 {
		s, rest = s-1, rest+1e9
	}
	return uint64(s), uint32(rest)
}

// fillAlias writes the attributes of an alias: those of its file, with the permissions of its mode.
func (f *FS) fillAlias(a *fuse.Attr, id uint64, al aliasNode, n *state.Node) {
	f.fillAttr(a, al.node|lockBitOf(n), n)
	a.Ino = id
	a.Mode = syscall.S_IFREG | aliasPerm(n.Perm, al.needs())
}

// needs is the permission that opening the alias takes.
func (a alias) needs() rights {
	if a.kind == aliasMode {
		return modeNeeds[a.mode]
	}
	return mayRead
}

// lockBitOf is what makes a directory's node id that of its .lock file.
func lockBitOf(n *state.Node) uint64 {
	if n.Dir {
		return lockBit
	}
	return 0
}

// GetAttr answers stat. A handle with uncommitted writes sees their size, which is not to be kept: other
// descriptors of the inode share the kernel's idea of it.
func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if isSpecial(in.NodeId) {
		return f.specialGetAttr(in, out)
	}
	if isAlias(in.NodeId) {
		return f.aliasAttr(in, out)
	}
	n := f.node(in.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	f.fillAttr(&out.Attr, in.NodeId, n)
	out.SetTimeout(f.validFor())
	f.ownSize(in, out)
	return fuse.OK
}

func (f *FS) aliasAttr(in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	a, ok := f.aliases.get(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	n := f.host.View().Node(resource(a.node))
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	f.fillAlias(&out.Attr, in.NodeId, a, n)
	f.ownSize(in, out)
	return fuse.OK
}

// ownSize puts the size of a handle's own uncommitted value in place.
func (f *FS) ownSize(in *fuse.GetAttrIn, out *fuse.AttrOut) {
	if in.Flags()&fuse.FUSE_GETATTR_FH == 0 {
		return
	}
	if h, ok := f.handles.get(in.Fh()).(*handle); ok {
		if size, own := h.ownSize(); own {
			out.Size = f.policy.size(size)
			out.SetTimeout(0)
		}
	}
}

// SetAttr changes mode, owner, times, and by a handle the size. What the caller may, the kernel has checked.
func (f *FS) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if f.raises(&in.InHeader) {
		if !f.raiser.PermitsTouch(in.NodeId) {
			return fuse.Status(syscall.ESTALE)
		}
		return f.GetAttr(cancel, &fuse.GetAttrIn{InHeader: in.InHeader}, out)
	}
	if isSpecial(in.NodeId) {
		return fuse.EPERM
	}
	node := in.NodeId
	if isAlias(node) {
		a, ok := f.aliases.get(node)
		if !ok {
			return fuse.Status(syscall.ESTALE)
		}
		node = a.node
	}
	if isLockFile(node) || isAlias(in.NodeId) {
		if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
			return fuse.EPERM
		}
	}
	if in.Valid&fuse.FATTR_SIZE != 0 {
		if st := f.setSize(cancel, in, resource(node)); st != fuse.OK {
			return st
		}
	}
	if op := setAttrOp(in, resource(node)); op != nil {
		c := f.call(&in.InHeader, nil)
		if isLockFile(node) {
			c.From = nil // the directory's attributes change too, of which the kernel knows nothing
		}
		_, err := f.host.Do(c, &statepb.Command{Op: &statepb.Command_SetAttr{SetAttr: op}})
		if err != nil {
			return status(err, forTree)
		}
	}
	get := fuse.GetAttrIn{InHeader: in.InHeader, Fh_: in.Fh}
	if in.Valid&fuse.FATTR_FH != 0 {
		get.Flags_ = fuse.FUSE_GETATTR_FH
	}
	return f.GetAttr(cancel, &get, out)
}

// setAttrOp returns the command for a SETATTR, nil if it leaves all but the size alone.
func setAttrOp(in *fuse.SetAttrIn, ino uint64) *statepb.SetAttr {
	op := &statepb.SetAttr{Ino: ino}
	changes := false
	if v, ok := in.GetMode(); ok {
		op.Perm, changes = &v, true
	}
	if v, ok := in.GetUID(); ok {
		op.Uid, changes = &v, true
	}
	if v, ok := in.GetGID(); ok {
		op.Gid, changes = &v, true
	}
	if t, ok := in.GetATime(); ok {
		ns := t.UnixNano()
		op.Atime, changes = &ns, true
	}
	if t, ok := in.GetMTime(); ok {
		ns := t.UnixNano()
		op.Mtime, changes = &ns, true
	}
	if !changes {
		return nil
	}
	return op
}

// setSize answers truncate(2), without a handle, and ftruncate(2).
func (f *FS) setSize(cancel <-chan struct{}, in *fuse.SetAttrIn, ino uint64) fuse.Status {
	h, _ := f.handles.get(in.Fh).(*handle)
	if in.Valid&fuse.FATTR_FH == 0 {
		h = nil
	}
	switch {
	case f.policy.truncate == truncateNever:
		return fuse.OK
	case f.policy.truncate == truncateThrough && h == nil:
		return f.truncate(f.call(&in.InHeader, nil), ino, in.Size)
	case f.policy.truncate == truncateThrough:
		return h.resizeThrough(f.call(&in.InHeader, nil), in)
	case h == nil:
		return fuse.EACCES
	}
	return h.resize(cancel, in)
}

// Access is not asked: default_permissions lets the kernel decide.
func (f *FS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.ENOSYS }

// StatFs shows the cluster's limits of nodes and bytes as the size of the file system.
func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	v := f.host.View()
	limits := v.Limits()
	nodes, bytes := v.Counts()
	free := func(limit, used uint64) uint64 { return max(limit, used) - used }
	*out = fuse.StatfsOut{
		Bsize:   blockSize,
		Frsize:  blockSize,
		Blocks:  limits.Bytes / blockSize,
		Bfree:   free(limits.Bytes, bytes) / blockSize,
		Bavail:  free(limits.Bytes, bytes) / blockSize,
		Files:   limits.Nodes,
		Ffree:   free(limits.Nodes, nodes),
		NameLen: uint32(limits.NameLen),
	}
	return fuse.OK
}
