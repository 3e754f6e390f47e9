package fs

import (
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd/state"
)

// dirHandle is an open directory. A listing from its beginning to its end shows one moment, that of its beginning.
type dirHandle struct {
	ino uint64

	mu    sync.Mutex
	view  *state.View
	next  uint64 // the offset that follows after
	after string // the last name listed
}

// The offsets of a listing: 0 ".", 1 "..", then the entries in the order of their names.
const firstEntry = 2

// OpenDir opens a directory. Its listing is cached by the kernel until something in it changes.
func (f *FS) OpenDir(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if isSpecial(in.NodeId) {
		return f.specialOpenDir(cancel, in, out)
	}
	n := f.node(in.NodeId)
	switch {
	case n == nil:
		return fuse.Status(syscall.ESTALE)
	case !n.Dir:
		return fuse.ENOTDIR
	}
	if st := f.awaitEphemeral(&in.InHeader, cancel, n.Ino, ""); st != fuse.OK {
		return st
	}
	f.settle(&in.InHeader, cancel)
	out.Fh = f.handles.add(&dirHandle{ino: n.Ino})
	if f.validFor() > 0 {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

// ReadDir lists a directory. Neither .lock nor .lockfs nor aliases are ever listed.
func (f *FS) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	switch d := f.handles.get(in.Fh).(type) {
	case *dirHandle:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.list(f, in.Offset, out)
		return fuse.OK
	case specialDir:
		return d.readDir(in, out)
	}
	return fuse.EBADF
}

func (d *dirHandle) list(f *FS, offset uint64, out *fuse.DirEntryList) {
	if offset == 0 || d.view == nil {
		d.view = f.host.View()
		d.next, d.after = firstEntry, ""
	}
	dir := d.view.Node(d.ino)
	if dir == nil {
		return // removed: nothing is in it
	}
	if offset == 0 && !out.AddDirEntry(fuse.DirEntry{Name: ".", Ino: d.ino, Mode: syscall.S_IFDIR, Off: 1}) {
		return
	}
	if offset <= 1 && !out.AddDirEntry(fuse.DirEntry{Name: "..", Ino: max(dir.Parent, rootIno), Mode: syscall.S_IFDIR, Off: firstEntry}) {
		return
	}
	d.seek(max(offset, firstEntry))
	for n := range d.view.ReadDir(d.ino, d.after) {
		mode := uint32(syscall.S_IFREG)
		if n.Dir {
			mode = syscall.S_IFDIR
		}
		if !out.AddDirEntry(fuse.DirEntry{Name: n.Name, Ino: n.Ino, Mode: mode, Off: d.next + 1}) {
			return
		}
		d.next++
		d.after = n.Name
	}
}

// seek moves to the entry at an offset; where the listing goes on in order it is there already.
func (d *dirHandle) seek(offset uint64) {
	if offset == d.next {
		return
	}
	d.next, d.after = firstEntry, ""
	for n := range d.view.ReadDir(d.ino, "") {
		if d.next == offset {
			return
		}
		d.next++
		d.after = n.Name
	}
}

// ReleaseDir closes a directory.
func (f *FS) ReleaseDir(in *fuse.ReleaseIn) { f.closeFile(f.handles.remove(in.Fh)) }

// FsyncDir has nothing to do: names are durable when their operation was answered.
func (f *FS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }
