package fs

import (
	"sync"
	"syscall"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// opens counts the descriptors of each inode, in a view whose files can be unlinked while they are open.
type opens struct {
	mu sync.Mutex
	n  map[uint64]int // by inode
}

func (o *opens) add(ino uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == nil {
		o.n = make(map[uint64]int)
	}
	o.n[ino]++
}

// remove reports whether it was the last.
func (o *opens) remove(ino uint64) (last bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.n[ino]--
	if o.n[ino] > 0 {
		return false
	}
	delete(o.n, ino)
	return true
}

func (o *opens) any(ino uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n[ino] > 0
}

// removal is how a file is removed that may be open.
type removal struct {
	posix bool // it lives on as an orphan
	drop  bool // not so: nobody has it open
}

// orphan decides what becomes of a file that a name operation removes, nil if it removes none. While the operation is
// under way OPEN of the file waits (Shared.begin), so that nobody opens what was thought closed; done ends that.
func (f *FS) orphan(n *state.Node) (r removal, done func(), errno syscall.Errno) {
	if !f.policy.orphans {
		return removal{}, func() {}, 0
	}
	if n == nil || n.Dir {
		return removal{posix: true, drop: true}, func() {}, 0
	}
	done = f.shared.begin(n.Ino)
	if f.heldElsewhere(n.Ino) {
		done()
		return removal{}, nil, syscall.EBUSY
	}
	return removal{posix: true, drop: !f.opens.any(n.Ino)}, done, 0
}

// heldElsewhere reports whether a lock of the file is held or awaited through another view.
func (f *FS) heldElsewhere(ino uint64) bool {
	for _, l := range f.host.Locks(ino) {
		if l.Range != nil || l.Mode == queue.None && l.Wanted == queue.None {
			continue
		}
		if h, ok := l.Listener.(*handle); !ok || h.fs != f {
			return true
		}
	}
	return false
}

// closed ends a descriptor's count. The last one of an orphan ends the orphan.
func (f *FS) closed(ino uint64) {
	if f.policy.orphans && f.opens.remove(ino) {
		f.endOrphan(ino)
	}
}

// removed is told that a name operation has removed a file. Its last descriptor may have been closed before it was an
// orphan.
func (f *FS) removed(n *state.Node) {
	if f.policy.orphans && n != nil && !f.opens.any(n.Ino) {
		f.endOrphan(n.Ino)
	}
}

// endOrphan ends an orphan that nobody has open, if it is one.
func (f *FS) endOrphan(ino uint64) {
	n := f.host.View().Node(ino)
	if n == nil || n.Orphan == 0 {
		return
	}
	done := f.shared.begin(ino)
	f.closing.Go(func() {
		defer done()
		_, err := f.host.Do(nil, &statepb.Command{Op: &statepb.Command_Forget{Forget: &statepb.Forget{Ino: ino}}})
		if err != nil && f.host.View().Node(ino) != nil {
			f.log.Warn("forgetting a removed file", "ino", ino, "error", err)
		}
	})
}
