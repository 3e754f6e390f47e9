package table

import (
	"fmt"
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
)

// A request that waits has its intents on the ancestors it passed already. They
// keep others out who come later, which is fair; but they are not worth a
// deadlock. An example:
//
//	P holds db/x, Q waits for db/x and so has CW on db, P asks for db@ex
//
// Q waits for P and P for Q's intent. P's request counts as a conversion of its
// own intents, ahead of whoever waits; so Q retreats: it gives up what it has
// below, and waits at db, first in the wait queue. The same where P is on
// another host, and the intents stand in the way of its recall; there only when the
// cohort's time is up.

// soft reports whether o, which waits, would retreat to r for l (nil: for
// another host): not if it or its owner holds something at r or below that means an intent:
// then its own request counts as a conversion, too.
func (t *Table) soft(o *Lock, r *resource, l *Lock) bool {
	if o.Mode.Intent() != queue.None || o == l || l != nil && slices.Contains(l.own(), o) {
		return false
	}
	return !o.stands(r)
}

// waitingIntents returns how many of the intents CR and CW at r are those of
// requests that would retreat.
func (t *Table) waitingIntents(r *resource, l *Lock) (n [2]uint32) {
	for o := t.waitFirst; o != nil; o = o.ask.next {
		if t.soft(o, r, l) {
			m := o.intentAt(r)
			n[0] += m[0]
			n[1] += m[1]
		}
	}
	return n
}

// yields lets those retreat who alone hold up the conversion that is first at
// r, and reports whether there were any.
func (t *Table) yields(r *resource, head queue.Entry[*Lock], waiting bool) bool {
	if !waiting || !head.Convert {
		return false
	}
	l := head.Holder
	var soft [2]uint32
	var bad [2]bool
	for b := range r.q.Blockers(l) {
		switch {
		case b.Ceiling:
		case !b.Shared:
			return false
		default:
			if soft == [2]uint32{} {
				soft = t.waitingIntents(r, l)
			}
			i := intentIndex(b.Mode)
			if bad[i] = b.Count == soft[i]; !bad[i] {
				return false
			}
		}
	}
	return t.retreatAll(r, l, bad)
}

// yieldsTo does so for a request of another host for wanted.
func (t *Table) yieldsTo(r *resource, wanted queue.Mode) bool {
	for e := range r.q.All() {
		if e.Mode != queue.None && !queue.Compatible(e.Mode, wanted) {
			return false
		}
	}
	var bad [2]bool
	soft := t.waitingIntents(r, nil)
	for i := range bad {
		m := queue.CR + queue.Mode(i)
		if n := r.q.Shared(m); n > 0 && !queue.Compatible(m, wanted) {
			if bad[i] = int(soft[i]) == n; !bad[i] {
				return false
			}
		}
	}
	return t.retreatAll(r, nil, bad)
}

// retreatAll lets the requests that wait below r retreat to r, if their
// intents are of the bad kinds and they are not l's own.
func (t *Table) retreatAll(r *resource, l *Lock, bad [2]bool) bool {
	var back []*Lock
	for o := t.waitFirst; o != nil; o = o.ask.next {
		if n := o.intentAt(r); t.soft(o, r, l) && (bad[0] && n[0] > 0 || bad[1] && n[1] > 0) {
			back = append(back, o)
		}
	}
	for _, o := range back { // nobody below passes another who retreats as well; settle opens again
		for a := o.at(); a != r; a = a.parent {
			a.q.SetCeiling(queue.None)
			t.touch(a)
		}
	}
	for _, o := range back {
		t.retreat(o, r)
	}
	slices.SortFunc(back, func(a, b *Lock) int { return int(b.ask.rank - a.ask.rank) })
	for _, o := range back { // each at the head: the oldest comes first
		t.again(o, r)
	}
	return len(back) > 0
}

// retreat takes back a request from where it waits up to r, where it is in no
// queue for the moment.
func (t *Table) retreat(o *Lock, r *resource) {
	path := slices.Clone(t.route(o))
	i, j := slices.Index(path, r), slices.Index(path, o.at())
	if i < 0 || j <= i {
		panic(fmt.Sprintf("table: inode %d: a request that waits at %d retreats to %d", o.Ino, o.at().ino, r.ino))
	}
	at := o.at()
	grants, was := at.q.Cancel(o)
	if !was {
		panic(fmt.Sprintf("table: inode %d: a request that retreats does not wait at %d", o.Ino, at.ino))
	}
	t.follow(at, grants)
	o.ask.at = r
	if o.refs > 0 {
		t.ownChanged(o) // before its intents go: see become
	}
	for _, s := range path[j:] {
		if s.asker == o {
			s.asker = nil
		}
		t.touch(s)
	}
	for _, a := range path[i:j] {
		t.follow(a, a.q.ReleaseShared(o.Wanted.Intent()))
		t.touch(a)
	}
}

// again lets a request that retreated to r wait there: as a new request,
// behind the conversions, whatever its owner has. The caller may not have looked for that yet, see Waiting.
func (t *Table) again(o *Lock, r *resource) {
	t.places++
	o.ask.place = -t.places
	req := queue.Request[*Lock]{Holder: o, Mode: o.needs(r), Shared: true, Flags: queue.HeadQue}
	if out, _ := r.q.Request(req); out == queue.Granted {
		t.work = append(t.work, passed{o, r})
		return
	}
	if o.try() && t.hardBlocked(o, r) {
		t.refuse(o, Busy)
		return
	}
	t.emit(Event{Kind: Waiting, Lock: o, Ino: r.ino})
}
