package fs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/inotify"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Operations on names. The kernel holds the directory while they run, so they end within the time for operations, are
// not interrupted half-way, and never wait for an invalidation.

// Mknod makes a file: the kernel's O_CREAT too, since CREATE is not there. A name that was made meanwhile is ESTALE, so
// that the kernel looks it up (and gives O_EXCL its EEXIST itself).
func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&syscall.S_IFMT != syscall.S_IFREG && in.Mode&syscall.S_IFMT != 0 {
		return fuse.EPERM
	}
	return f.make(&in.InHeader, name, in.Mode&07777, false, out)
}

// Mkdir makes a directory.
func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.make(&in.InHeader, name, in.Mode&07777, true, out)
}

func (f *FS) make(h *fuse.InHeader, name string, perm uint32, dir bool, out *fuse.EntryOut) fuse.Status {
	parent := h.NodeId
	if f.raises(h) {
		return f.raiseMade(inotify.Name{Parent: parent, Name: name}, dir, out)
	}
	if errno := f.checkName(parent, name); errno != 0 {
		return fuse.Status(errno)
	}
	if errno := f.policy.checkMake(name, dir, parent == rootIno); errno != 0 {
		return fuse.Status(errno)
	}
	in := f.host.View().Node(parent)
	if in == nil {
		return fuse.ENOENT
	}
	op := &statepb.Make{
		Parent: parent, Name: []byte(name), Dir: dir, Perm: perm, Uid: h.Uid, Gid: h.Gid,
		Lock: !dir && !f.policy.through,
	}
	if in.Perm&syscall.S_ISGID != 0 {
		op.Gid = in.GID
		if dir {
			op.Perm |= syscall.S_ISGID
		}
	}
	res, err := f.host.Do(f.call(h, nil), &statepb.Command{Op: &statepb.Command_Make{Make: op}})
	if err != nil {
		f.expire(parent, name)
		if errors.Is(err, state.Exists) {
			return fuse.Status(syscall.ESTALE)
		}
		return status(err, forTree)
	}
	n := f.host.View().Node(res.Ino)
	if n == nil { // removed by somebody at once
		f.expire(parent, name)
		return fuse.Status(syscall.ESTALE)
	}
	f.entry(out, n.Ino, n)
	if in.Ephemeral && !dir {
		out.SetEntryTimeout(0)
	}
	return fuse.OK
}

// Unlink removes a file. In a view with orphans one that is open here lives on nameless until its last close.
func (f *FS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h, name, false)
}

// Rmdir removes an empty directory.
func (f *FS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.remove(h, name, true)
}

func (f *FS) remove(h *fuse.InHeader, name string, dir bool) fuse.Status {
	parent := h.NodeId
	if f.raises(h) {
		return permit(f.raiser.PermitsRemove(inotify.Name{Parent: parent, Name: name}, dir))
	}
	if errno := f.checkName(parent, name); errno != 0 {
		return fuse.Status(errno)
	}
	n := f.host.View().Lookup(parent, name)
	if n == nil {
		f.expire(parent, name)
		return fuse.ENOENT
	}
	if dir {
		f.awaitEphemeral(h, nil, n.Ino, "") // ends within the time for operations
	}
	op := &statepb.Remove{Parent: parent, Name: []byte(name), Dir: dir, Ino: n.Ino}
	orphan, done, errno := f.orphan(n)
	if errno != 0 {
		return fuse.Status(errno)
	}
	defer done()
	op.Posix, op.Drop = orphan.posix, orphan.drop
	if _, err := f.host.Remove(f.call(h, nil), op); err != nil {
		f.expire(parent, name)
		return status(err, forTree)
	}
	f.removed(n)
	return fuse.OK
}

// Rename moves a name. RENAME_EXCHANGE and RENAME_WHITEOUT are EINVAL.
func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if in.Flags&^unix.RENAME_NOREPLACE != 0 {
		return fuse.EINVAL
	}
	from, to := inotify.Name{Parent: in.NodeId, Name: oldName}, inotify.Name{Parent: in.Newdir, Name: newName}
	if f.raises(&in.InHeader) {
		return permit(f.raiser.PermitsMove(from, to))
	}
	for _, n := range []inotify.Name{from, to} {
		if errno := f.checkName(n.Parent, n.Name); errno != 0 {
			return fuse.Status(errno)
		}
	}
	if f.policy.flat {
		return fuse.EPERM
	}
	view := f.host.View()
	n, target := view.Lookup(from.Parent, from.Name), view.Lookup(to.Parent, to.Name)
	if n == nil {
		f.expire(from.Parent, from.Name)
		return fuse.ENOENT
	}
	op := &statepb.Rename{
		Parent: from.Parent, Name: []byte(from.Name), NewParent: to.Parent, NewName: []byte(to.Name),
		Noreplace: in.Flags&unix.RENAME_NOREPLACE != 0, Ino: n.Ino,
	}
	orphan, done, errno := f.orphan(target)
	if errno != 0 {
		return fuse.Status(errno)
	}
	defer done()
	op.Posix, op.Drop = orphan.posix, orphan.drop
	if _, err := f.host.Rename(f.call(&in.InHeader, nil), op); err != nil {
		f.expire(from.Parent, from.Name)
		f.expire(to.Parent, to.Name)
		return status(err, forTree)
	}
	f.removed(target)
	return fuse.OK
}

// checkName refuses names that cannot be made, removed or renamed: aliases (EINVAL), lock files and .lockfs (EPERM).
func (f *FS) checkName(parent uint64, name string) syscall.Errno {
	switch {
	case isSpecial(parent), name == lockName, parent == rootIno && name == specialName:
		return syscall.EPERM
	case isAliasName(name):
		return syscall.EINVAL
	case uint64(len(name)) > f.host.View().Limits().NameLen:
		return syscall.ENAMETOOLONG
	}
	return 0
}

// expire has the kernel look a name up again: what it has of it may have been passed over while a request of its own
// was under way.
func (f *FS) expire(parent uint64, name string) {
	if f.notes != nil {
		f.notes.Entry(0, parent, name, 0)
	}
}

// Link, Symlink and Readlink: there are no links.
func (f *FS) Link(<-chan struct{}, *fuse.LinkIn, string, *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

func (f *FS) Symlink(<-chan struct{}, *fuse.InHeader, string, string, *fuse.EntryOut) fuse.Status {
	return fuse.EPERM
}

func (f *FS) Readlink(<-chan struct{}, *fuse.InHeader) ([]byte, fuse.Status) {
	return nil, fuse.EINVAL
}
