package state

import (
	"github.com/tidwall/btree"

	"github.com/lockfs/lockfs/lockd/queue"
)

// lockTree has the locks by inode number. Most have one holder and nobody who waits: these take 16 bytes in the tree. A
// contention has a marker there, which keeps the order, and stands in a tree of its own.
type lockTree struct {
	all       *btree.Map[uint64, single]
	contended *btree.Map[uint64, *contention]
	copied    *btree.Map[uint64, *contention] // of contended as it is, if there is a copy
}

// single is a lock of one holder; of no mode it is the marker.
type single struct {
	holder uint64
	grant  uint64 // raise << 3 | mode: no counter comes to 1 << 60
}

func (x single) mode() queue.Mode { return queue.Mode(x.grant & 7) }

func newLockTree() *lockTree {
	return &lockTree{all: btree.NewMap[uint64, single](degree), contended: btree.NewMap[uint64, *contention](degree)}
}

// Get returns the lock of a node, if there is one.
func (t *lockTree) Get(ino uint64) (lock, bool) {
	x, ok := t.all.Get(ino)
	if !ok {
		return lock{}, false
	}
	return t.lock(ino, x), true
}

func (t *lockTree) lock(ino uint64, x single) lock {
	if x.mode() == queue.None {
		c, _ := t.contended.Get(ino)
		return lock{more: c}
	}
	return lock{holder: x.holder, raise: x.grant >> 3, mode: x.mode()}
}

// Set stores a lock that somebody has or wants.
func (t *lockTree) Set(ino uint64, l lock) {
	var x single
	if l.more == nil {
		x = single{holder: l.holder, grant: l.raise<<3 | uint64(l.mode)}
	}
	old, there := t.all.Set(ino, x)
	switch {
	case l.more != nil:
		t.contended.Set(ino, l.more)
		t.copied = nil
	case there && old.mode() == queue.None:
		t.contended.Delete(ino)
		t.copied = nil
	}
}

// Delete takes a lock out.
func (t *lockTree) Delete(ino uint64) {
	if old, there := t.all.Delete(ino); there && old.mode() == queue.None {
		t.contended.Delete(ino)
		t.copied = nil
	}
}

// Scan yields the locks by inode number, until told to stop.
func (t *lockTree) Scan(yield func(uint64, lock) bool) {
	t.all.Scan(func(ino uint64, x single) bool { return yield(ino, t.lock(ino, x)) })
}

// Copy returns a copy, in O(1).
func (t *lockTree) Copy() *lockTree {
	if t.copied == nil {
		t.copied = t.contended.Copy()
	}
	return &lockTree{all: t.all.Copy(), contended: t.copied}
}
