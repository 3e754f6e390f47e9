package table

import (
	"iter"

	"github.com/lockfs/lockfs/lockd/queue"
)

// Locks returns the locks of one resource: those held, then those that only
// wait, in the order in which they will be granted, and last requests that
// still wait for an intent on an ancestor. The table must not change meanwhile.
func (t *Table) Locks(ino uint64) iter.Seq[*Lock] {
	return func(yield func(*Lock) bool) {
		if r := t.res[ino]; r != nil {
			t.locksOf(r, yield)
		}
	}
}

// All returns all locks, by resource in order of its first use here, as Locks does.
func (t *Table) All() iter.Seq[*Lock] {
	return func(yield func(*Lock) bool) {
		for r := t.first; r != nil; r = r.next {
			for e := range r.q.All() {
				if e.Holder.res == r && !yield(e.Holder) {
					return
				}
			}
		}
		for l := t.waitFirst; l != nil; l = l.ask.next {
			if l.at() != l.res && l.Mode == queue.None && !yield(l) {
				return
			}
		}
	}
}

func (t *Table) locksOf(r *resource, yield func(*Lock) bool) {
	for e := range r.q.All() {
		if e.Holder.res == r && !yield(e.Holder) {
			return
		}
	}
	for l := t.waitFirst; l != nil; l = l.ask.next {
		if l.res == r && l.at() != r && l.Mode == queue.None && !yield(l) {
			return
		}
	}
}

// Place tells the order of a waiting lock among those that wait where it does: whether it is one of the conversions, which come first,
// and a rank among its like: the order in which they came to wait there, those at the head first.
func (t *Table) Place(l *Lock) (first bool, rank int64) {
	if l.at() == nil {
		return false, 0
	}
	return l.at().converting(l), l.ask.place
}

// Blocker is one thing that holds a waiting lock up.
type Blocker struct {
	Lock    *Lock      // here; nil if it is the host lock or an intent
	Mode    queue.Mode // that it has or, if it waits, asks for
	Waiting bool       // it waits itself, ahead
	Host    bool       // the host lock does not suffice: some other host holds it up
	Ino     uint64     // the resource where
}

// Blockers returns what holds a waiting lock up, at the resource where it
// waits: locks of this host (those below it too, for their intents), and the
// host lock.
func (t *Table) Blockers(l *Lock) iter.Seq[Blocker] {
	return func(yield func(Blocker) bool) {
		r := l.at()
		if r == nil {
			return
		}
		for b := range r.q.Blockers(l) {
			switch {
			case b.Shared:
				for o := range t.under(r) {
					if o.intentAt(r)[intentIndex(b.Mode)] > 0 && !yield(Blocker{Lock: o, Mode: b.Mode, Ino: r.ino}) {
						return
					}
				}
			case !yield(Blocker{Lock: b.Holder, Mode: b.Mode, Waiting: b.Waiting, Host: b.Ceiling, Ino: r.ino}):
				return
			}
		}
	}
}

// Host is what the host has of a resource.
type Host struct {
	Ino    uint64
	Mode   queue.Mode // held, less what is being given up
	Held   queue.Mode // held, as of the last change applied
	InUse  queue.Mode // the join of what is granted here
	Asked  queue.Mode // a raise under way
	Wanted queue.Mode // recalled for, or None
	Raise  uint64     // number of the last raise
	Idle   bool       // cached
}

// Resource returns what the host has of one resource; all zero but Ino if nothing.
func (t *Table) Resource(ino uint64) Host {
	if r := t.res[ino]; r != nil {
		return r.look()
	}
	return Host{Ino: ino}
}

// Cached returns how many resources the host has a lock of that nobody here uses.
func (t *Table) Cached() (n int) {
	for r := t.idleFirst; r != nil; r = r.idleNext {
		if r.has() != queue.None { // else it is only remembered as one that bounces
			n++
		}
	}
	return n
}

// Resources returns what the host has, in order of first use.
func (t *Table) Resources() iter.Seq[Host] {
	return func(yield func(Host) bool) {
		for r := t.first; r != nil; r = r.next {
			if !yield(r.look()) {
				return
			}
		}
	}
}

func (r *resource) look() Host {
	return Host{
		Ino: r.ino, Mode: r.has(), Held: r.host, InUse: r.q.InUse(), Asked: r.asked, Wanted: r.wanted, Raise: r.raise,
		Idle: r.idle && r.has() != queue.None,
	}
}
