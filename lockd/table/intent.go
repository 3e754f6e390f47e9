package table

import (
	"iter"

	"github.com/lockfs/lockfs/lockd/queue"
)

// This file finds the intents of locks on the ancestors of their resources. A
// queue only counts them.

// under returns every lock of the resources strictly below r, and those
// requests for one that wait strictly below r.
func (t *Table) under(r *resource) iter.Seq[*Lock] {
	return func(yield func(*Lock) bool) { walkUnder(r, yield) }
}

func walkUnder(r *resource, yield func(*Lock) bool) bool {
	for c := r.child; c != nil; c = c.sibNext {
		for e := range c.q.All() {
			l := e.Holder
			if (l.res == c || l.Mode == queue.None) && !yield(l) { // a conversion that waits here is found at its resource
				return false
			}
		}
		if !walkUnder(c, yield) {
			return false
		}
	}
	return true
}

// intentAt returns the intents, CR and CW, that o has at r, an ancestor of its
// resource.
func (o *Lock) intentAt(r *resource) (n [2]uint32) {
	if o.res == nil || !o.res.below(r) {
		return n
	}
	if m := o.Mode.Intent(); m != queue.None {
		n[intentIndex(m)]++
	}
	if m := o.Wanted.Intent(); m != queue.None && o.at() != nil && o.at() != r && o.at().below(r) && !o.Mode.Intent().Covers(m) {
		n[intentIndex(m)]++ // passed r already
	}
	return n
}
