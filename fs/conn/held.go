package conn

import "sync"

// heldDirs are the directories that the kernel holds for a request whose handler waits, or for a call of the daemon's own. InvalEntry
// waits for them here, and not in the kernel: a thread that does so there cannot be killed, and keeps the device open. If the
// daemon is killed, the request that holds the directory would never end, and so neither would the daemon. (What is left is a request
// that the kernel has just sent.)
type heldDirs struct {
	mu   sync.Mutex
	dirs map[uint64]*heldDir
}

type heldDir struct {
	n     int
	freed chan struct{} // closed when n is 0
}

// hold notes that directories are held; release must be called when they are not.
func (h *heldDirs) hold(dirs ...uint64) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dirs == nil {
		h.dirs = make(map[uint64]*heldDir)
	}
	for _, dir := range dirs {
		d := h.dirs[dir]
		if d == nil {
			d = &heldDir{freed: make(chan struct{})}
			h.dirs[dir] = d
		}
		d.n++
	}
	return func() { h.release(dirs) }
}

func (h *heldDirs) release(dirs []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, dir := range dirs {
		d := h.dirs[dir]
		if d.n--; d.n == 0 {
			close(d.freed)
			delete(h.dirs, dir)
		}
	}
}

// await waits until a directory is not held, or stop is closed.
func (h *heldDirs) await(dir uint64, stop <-chan struct{}) {
	for {
		h.mu.Lock()
		d := h.dirs[dir]
		h.mu.Unlock()
		if d == nil {
			return
		}
		select {
		case <-d.freed:
		case <-stop:
			return
		}
	}
}

// holds returns the directories that the kernel may hold for a request.
func (f *frame) holds() []uint64 {
	switch f.op {
	case opLookup, opSetattr, opMknod, opMkdir, opUnlink, opRmdir, opSetxattr, opRemovexattr:
		return []uint64{f.node}
	case opRename, opRename2:
		if len(f.in[0]) >= inHeaderSize+8 {
			return []uint64{f.node, native.Uint64(f.in[0][inHeaderSize:])} // the new directory comes first
		}
	}
	return nil
}

// HoldDirs tells that a call of the daemon's own in the mount, which the caller is about to make, holds directories; release
// must be called when it has returned.
func (l *Loop) HoldDirs(dirs ...uint64) (release func()) { return l.held.hold(dirs...) }
