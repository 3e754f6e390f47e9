package table

import (
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
)

// Rivals returns the locks whose owner matters to a request of l for mode (a
// conversion if l is held): at the first resource of its path where it would have to
// wait while somebody here has something, all who have or await it, and those
// below it. None if there is no such resource. The caller finds out which are of l's owner and
// hands those to Request, Convert or SetOwn.
//
// It matters even where the host lock alone is in the way. If another host waits for db@ex, and
// a process here that has db/x asks for db/y, each would wait for the other.
func (t *Table) Rivals(l *Lock, mode queue.Mode) []*Lock {
	if l.at() != nil {
		return t.rivalsAt(l, l.at())
	}
	if !mode.Valid() {
		return nil // granted or withdrawn meanwhile
	}
	r := l.res
	if r == nil {
		if r = t.lookup(l.Ino); r == nil {
			return nil
		}
		t.touch(r) // it may be new, and of no use
		defer t.run()
	}
	probe := *l
	probe.res, probe.Wanted = r, mode
	for _, s := range t.route(&probe) {
		req := queue.Request[*Lock]{Holder: l, Mode: probe.needs(s), Shared: s != r}
		for b := range s.q.BlockersOf(req, l.Mode != queue.None && s == r) {
			if !b.Ceiling || !s.q.Empty() {
				return t.rivalsAt(l, s)
			}
		}
	}
	return nil
}

func (t *Table) rivalsAt(l *Lock, r *resource) (rivals []*Lock) {
	for e := range r.q.All() {
		if e.Holder != l {
			rivals = append(rivals, e.Holder)
		}
	}
	if r.q.Shared(queue.CR)+r.q.Shared(queue.CW) == 0 {
		return rivals
	}
	for o := range t.under(r) {
		if o != l && (o.at() != r) && o.intentAt(r) != [2]uint32{} {
			rivals = append(rivals, o)
		}
	}
	return rivals
}

// SetOwn says which locks are of the same owner as l, which waits.
func (t *Table) SetOwn(l *Lock, own []*Lock) {
	if l.at() == nil {
		return
	}
	t.setOwn(l, own)
	t.mutual(l)
	t.reconsider(l)
	if l.at() != nil {
		t.deadlock(l, l.at())
	}
	t.run()
}

// setOwn replaces l's list of own locks, without a look at the queues.
func (t *Table) setOwn(l *Lock, own []*Lock) {
	if l.ask == nil {
		return
	}
	if len(l.ask.own) > 0 {
		t.owners--
	}
	for _, o := range l.own() {
		o.refs--
	}
	l.ask.own = l.ask.own[:0]
	for _, o := range own {
		if o != l && o.res != nil && !slices.Contains(l.own(), o) {
			o.refs++
			l.ask.own = append(l.ask.own, o)
		}
	}
	if len(l.own()) > 0 {
		t.owners++
	} else {
		l.ask.own = nil
	}
}

// mutual makes l one of the own locks of those of its owner that wait: what it
// gets from now on is not to hold them up.
func (t *Table) mutual(l *Lock) {
	for _, o := range l.own() {
		if o.at() == nil || slices.Contains(o.own(), l) {
			continue
		}
		if len(o.own()) == 0 {
			t.owners++
		}
		o.ask.own = append(o.ask.own, l)
		l.refs++
	}
}

// reconsider lets l pass where it waits if its own locks permit it, or puts it
// where they place it.
func (t *Table) reconsider(l *Lock) {
	r := l.at()
	t.touch(r)
	own, shared := t.exempt(l, r)
	if !l.stands(r) || r.converting(l) {
		t.follow(r, r.q.SetOwn(l, own, shared))
		return
	}
	// Its owner has something here: it counts as a conversion of that, ahead of new requests.
	grants, _ := r.q.Cancel(l)
	t.follow(r, grants)
	if t.enter(l, r) {
		t.follow(r, []queue.Grant[*Lock]{{Holder: l}})
	}
}

// converting reports whether l waits among the conversions of r.
func (r *resource) converting(l *Lock) bool {
	for e := range r.q.Line() {
		if e.Holder == l || !e.Convert {
			return e.Convert
		}
	}
	return false
}

// stands reports whether l's owner, l aside, holds something that means CR or
// more at r, as far as that does not hold l up. What only waits does not count:
// it would retreat itself.
func (l *Lock) stands(r *resource) bool {
	return slices.ContainsFunc(l.own(), func(o *Lock) bool {
		return o.res == r && l.res != r && o.Mode >= queue.CR || o.Mode.Intent() != queue.None && o.res.below(r)
	})
}

// exempt returns what does not hold l up at r: of its owner, the locks on an
// ancestor, and the intents of locks below r. (Its owner's other locks of
// the same resource do hold it up.)
func (t *Table) exempt(l *Lock, r *resource) (own []*Lock, shared [2]uint32) {
	if l.conv() {
		shared = l.intentAt(r)
	}
	for _, o := range l.own() {
		if o.res == nil || o.res == l.res && r == l.res {
			continue
		}
		if o.res == r || o.at() == r {
			own = append(own, o)
		}
		n := o.intentAt(r)
		shared[0] += n[0]
		shared[1] += n[1]
	}
	return own, shared
}

// reuses reports whether l's owner has an intent or a lock at r that covers the
// intent mode.
func (t *Table) reuses(l *Lock, r *resource, mode queue.Mode) bool {
	for _, o := range l.own() {
		if o.res == r && o.Mode.Covers(mode) {
			return true
		}
		n := o.intentAt(r)
		if n[intentIndex(queue.CW)] > 0 || mode == queue.CR && n[intentIndex(queue.CR)] > 0 {
			return true
		}
	}
	return false
}

// ownChanged looks again at those who wait and count o among their own.
func (t *Table) ownChanged(o *Lock) {
	for l := t.waitFirst; l != nil; l = l.ask.next {
		if slices.Contains(l.own(), o) && l.at().q.Waiting(l) != queue.None {
			t.reconsider(l)
		}
	}
}

// disown takes o, which is gone, from all lists.
func (t *Table) disown(o *Lock) {
	for l := t.waitFirst; l != nil && o.refs > 0; l = l.ask.next {
		if i := slices.Index(l.own(), o); i >= 0 {
			if l.ask.own = slices.Delete(l.ask.own, i, i+1); len(l.ask.own) == 0 {
				t.owners--
			}
			o.refs--
			if l.at().q.Waiting(l) != queue.None {
				own, shared := t.exempt(l, l.at())
				t.follow(l.at(), l.at().q.SetOwn(l, own, shared))
			}
		}
	}
}

// deadlock tells if what l waits for at r can never come.
func (t *Table) deadlock(l *Lock, r *resource) {
	if cycle := t.Cycle(l); cycle != nil {
		t.emit(Event{Kind: Deadlock, Lock: l, Ino: r.ino, Cycle: cycle})
	}
}

// Cycle returns the cycle of waits that l is part of at the resource where it waits, as in a Deadlock event; nil
// if there is none (any more).
func (t *Table) Cycle(l *Lock) []*Lock {
	if l.at() == nil || l.Flags&queue.NoDlckWt != 0 {
		return nil
	}
	if own := t.Self(l); own != nil {
		return []*Lock{l, own}
	}
	return l.at().q.Cycle(l)
}

// Self returns a lock of l's own owner that l waits for, nil if there is none: the one cycle that only one host knows of.
func (t *Table) Self(l *Lock) *Lock {
	if l.at() == nil || l.Flags&queue.NoDlckWt != 0 || len(l.own()) == 0 {
		return nil
	}
	for b := range l.at().q.Blockers(l) {
		if !b.Ceiling && !b.Shared && !b.Waiting && b.Holder.Flags&queue.NoDlckBlk == 0 && slices.Contains(l.own(), b.Holder) {
			return b.Holder
		}
	}
	return nil
}
