package table

import (
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// Pin keeps a resource and all below it as it is while a removal or renaming is
// under way. It fails if anything there is held or awaited here. While it is
// pinned requests queue.
func (t *Table) Pin(ino uint64) bool {
	r := t.lookup(ino)
	if r == nil {
		return true // gone: the state will say so
	}
	if t.inUse(r) || t.awaited(r) {
		t.touch(r)
		t.run()
		return false
	}
	r.pins++
	t.pins++
	t.shut(r)
	t.run()
	return true
}

// Unpin ends a Pin. What queued goes on.
func (t *Table) Unpin(ino uint64) {
	r := t.res[ino]
	if r == nil || r.pins == 0 {
		return
	}
	r.pins--
	t.pins--
	t.touchTree(r)
	t.run()
}

// inUse reports whether anything at r or below is held or awaited here.
func (t *Table) inUse(r *resource) bool {
	if r.locks > 0 || !r.q.Empty() {
		return true
	}
	for c := r.child; c != nil; c = c.sibNext {
		if t.inUse(c) {
			return true
		}
	}
	return false
}

// awaited reports whether a request for r or something below still waits for
// its intent above r.
func (t *Table) awaited(r *resource) bool {
	for l := t.waitFirst; l != nil; l = l.ask.next {
		if l.res == r || l.res.below(r) {
			return true
		}
	}
	return false
}

// shut lets nothing be granted at r and below, from now on.
func (t *Table) shut(r *resource) {
	r.q.SetCeiling(queue.None) // grants nothing
	t.touch(r)
	for c := r.child; c != nil; c = c.sibNext {
		t.shut(c)
	}
}

func (t *Table) touchTree(r *resource) {
	t.touch(r)
	for c := r.child; c != nil; c = c.sibNext {
		t.touchTree(c)
	}
}

// removed: a node is gone from the tree, or lives on without a name.
func (t *Table) removed(c state.Change) {
	r := t.res[c.Ino]
	if r == nil {
		return
	}
	if c.Orphan {
		t.orphan(r)
		t.run()
		return
	}
	var here []*Lock
	for e := range r.q.All() {
		if e.Holder.res == r {
			here = append(here, e.Holder)
		}
	}
	for l := t.waitFirst; l != nil; l = l.ask.next {
		if l.res == r && l.at() != r {
			here = append(here, l)
		}
	}
	r.q.SetCeiling(queue.None) // grants nothing
	for _, l := range here {
		if l.Mode == queue.None {
			t.refuse(l, NotFound)
		} else {
			t.drop(l)
			t.emit(Event{Kind: Lost, Lock: l})
		}
		t.pass()
	}
	t.run()
	if r.gone {
		return
	}
	t.pins -= int(r.pins)
	p := r.parent
	t.forget(r)
	if p != nil {
		t.touch(p)
		t.run()
	}
}

// orphan takes a file out of the hierarchy: its locks give up their intents.
func (t *Table) orphan(r *resource) {
	up := r.parent
	if up == nil {
		return
	}
	var waiting []*Lock
	for l := t.waitFirst; l != nil; l = l.ask.next {
		if l.res == r {
			waiting = append(waiting, l)
		}
	}
	t.detach(r, waiting, nil)
	t.touch(up)
}

// moved: a node has a new name, perhaps in another directory. (In the same
// directory nothing changes for its locks.)
func (t *Table) moved(c state.Change) {
	r := t.res[c.Ino]
	if r == nil || c.Parent == c.NewParent {
		return
	}
	up := r.parent
	var p *resource
	if ino, ok := t.cfg.Tree.Parent(r.ino); ok { // the tree is that of the end of the entry, the change may not be the last
		p = t.lookup(ino)
	}
	if p == up {
		return
	}
	var waiting []*Lock
	for l := t.waitFirst; l != nil; l = l.ask.next {
		if l.res == r || l.res.below(r) {
			waiting = append(waiting, l)
		}
	}
	t.detach(r, waiting, p)
	if up != nil {
		t.touch(up)
	}
	t.run()
}

// detach moves r with all below to another parent (nil: none). What waits starts
// anew on its new path; what is held takes its intents along.
func (t *Table) detach(r *resource, waiting []*Lock, to *resource) {
	type request struct {
		mode  queue.Mode
		flags queue.Flags
		conv  bool
		own   []*Lock
	}
	again := make(map[*Lock]request)
	for _, l := range waiting {
		if l.at() != nil { // not granted meanwhile
			again[l] = request{l.Wanted, l.Flags, l.conv(), slices.Clone(l.own())}
			t.withdraw(l)
			t.pass()
		}
	}
	var held []*Lock
	for e := range r.q.All() {
		held = append(held, e.Holder)
	}
	for l := range t.under(r) {
		held = append(held, l)
	}
	old := r.parent
	r.unlink()
	t.reexempt(held) // first: see become
	for _, l := range held {
		intent := l.Mode.Intent()
		if intent == queue.None {
			continue
		}
		for a := to; a != nil; a = a.parent {
			a.q.AddShared(intent)
			t.unidle(a)
		}
		for a := old; a != nil; a = a.parent {
			t.follow(a, a.q.ReleaseShared(intent))
			t.let(a)
		}
	}
	if to != nil {
		r.link(to)
		t.reexempt(held)
	}
	if t.pins > 0 {
		t.touchTree(r) // it may have come from below a pin, or under one
	}
	for _, l := range waiting {
		if a, ok := again[l]; ok {
			t.begin(l, a.mode, a.flags, a.own, a.conv)
		}
	}
}

// reexempt looks again at those who wait and count some of these among their own.
func (t *Table) reexempt(held []*Lock) {
	for _, l := range held {
		if l.refs > 0 {
			t.ownChanged(l)
		}
	}
}

// drop takes a granted lock out of the table without a word.
func (t *Table) drop(l *Lock) {
	if l.at() != nil {
		t.withdraw(l)
	}
	t.release(l)
}
