package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// A file below an ephemeral directory is destroyed with its last lock (DESIGN 1.1), by the log, and so a moment after the
// close(2) or LOCK_UN that let go of it. To whoever looks on this host after that call it is gone: the kernel keeps no names
// of such directories, and LOOKUP, OPEN, OPENDIR and RMDIR wait for the log to have its say. On other hosts it goes
// when they apply that, as everything does.

// ephemeral reports whether a node is a file that goes with its last lock.
func ephemeral(v *state.View, n *state.Node) bool {
	if n == nil || n.Dir {
		return false
	}
	dir := v.Node(n.Parent)
	return dir != nil && dir.Ephemeral
}

// letGo releases the handle's lock.
func (h *handle) letGo() {
	defer h.gaveWay()
	f := h.fs
	v := f.host.View()
	n := v.Node(h.ino)
	if h.lock.Mode() == queue.None || !ephemeral(v, n) {
		f.host.Release(&h.lock)
		return
	}
	file, dir := f.shared.begin(n.Ino), f.shared.begin(n.Parent)
	f.host.Release(&h.lock)
	used := false
	f.host.LocksOf(n.Ino, func(mode, wanted queue.Mode, _ uint64) { used = used || mode != queue.None || wanted != queue.None })
	if used {
		file()
		dir()
		return
	}
	f.closing.Go(func() {
		defer file()
		defer dir()
		f.host.Barrier(nil) // what Release proposed comes before it; without quorum nobody knows
	})
}

// awaitEphemeral waits until it is decided whether an ephemeral file of that name is gone, or for that of all in a
// directory that is ephemeral, with an empty name.
func (f *FS) awaitEphemeral(h *fuse.InHeader, cancel <-chan struct{}, dir uint64, name string) fuse.Status {
	if f.shared.any() == nil {
		return fuse.OK
	}
	v := f.host.View()
	n := v.Node(dir)
	if n == nil || !n.Ephemeral {
		return fuse.OK
	}
	if name != "" {
		n = v.Lookup(dir, name)
	}
	if n == nil {
		return fuse.OK
	}
	return f.await(h, cancel, f.shared.of(n.Ino))
}
