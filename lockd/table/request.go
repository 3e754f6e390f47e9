package table

import (
	"fmt"
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
)

// deadlockFlags are those that the queue's search for cycles minds.
const deadlockFlags = queue.NoDlckWt | queue.NoDlckBlk

// passed is a lock that a queue let pass at r: it goes on down its path.
type passed struct {
	l *Lock
	r *resource
}

// Request asks for a new lock, which may have to wait. own are locks of the same
// owner (see [Table.Rivals]). The answer is an event, Granted or Refused, in the
// next Take or a later one. With NoQueue or Try in flags it waits only
// for what other hosts merely cache, at most Config.TryFor.
func (t *Table) Request(l *Lock, mode queue.Mode, flags queue.Flags, own []*Lock) {
	if l.res != nil {
		panic(fmt.Sprintf("table: request of inode %d: the lock is in use", l.Ino))
	}
	var r *resource
	if t.locks >= t.cfg.MaxLocks || t.waits >= t.cfg.MaxWaiters {
		t.emit(Event{Kind: Refused, Lock: l, Reason: NoLocks})
		return
	}
	if r = t.lookup(l.Ino); r == nil {
		t.emit(Event{Kind: Refused, Lock: l, Reason: NotFound})
		return
	}
	t.enterLock(l, r)
	l.Since = t.now
	t.begin(l, mode, flags, own, false)
	t.run()
}

// Cancel withdraws what waits: a request is gone, a conversion keeps what it
// had. It reports whether the lock has something granted; so a request that was
// granted at that very moment shows as true, and nothing is withdrawn.
func (t *Table) Cancel(l *Lock) (granted bool) {
	if l.at() != nil {
		t.withdraw(l)
		if l.Mode == queue.None {
			t.quit(l)
		}
		t.run()
	}
	return l.Mode != queue.None
}

// quit takes a lock that has nothing out of the table.
func (t *Table) quit(l *Lock) {
	r := l.res
	t.leave(l)
	if l.refs > 0 {
		t.disown(l)
	}
	t.touch(r)
}

// begin starts a request or conversion.
func (t *Table) begin(l *Lock, mode queue.Mode, flags queue.Flags, own []*Lock, conv bool) {
	t.rank++
	l.Flags = flags
	alts := flags & (queue.AltPR | queue.AltCW)
	if alts != 0 && flags&(queue.NoQueue|queue.Try) == 0 {
		alts |= altWait
	}
	l.ask = &asking{rank: t.rank, conv: conv, main: mode, alts: alts}
	t.setOwn(l, own)
	t.mutual(l)
	t.start(l, mode, alts != 0 || flags&(queue.NoQueue|queue.Try) != 0)
}

// start sends a request on its way.
func (t *Table) start(l *Lock, mode queue.Mode, try bool) {
	l.Wanted, l.ask.try = mode, try
	if try {
		l.ask.tryEnd = t.now + int64(t.cfg.TryFor)
	}
	t.advance(l, nil)
}

// route returns the resources at which a request has to pass, in order: the
// ancestors, if it needs an intent there that the lock has not yet, then its own.
// The slice is scratch.
func (t *Table) route(l *Lock) []*resource {
	path := t.path[:0]
	intent := l.Wanted.Intent()
	if intent != queue.None && !l.Mode.Intent().Covers(intent) {
		for a := l.res.parent; a != nil; a = a.parent {
			path = append(path, a)
		}
		slices.Reverse(path)
	}
	path = append(path, l.res)
	t.path = path
	return path
}

// needs returns the mode that l asks for at r.
func (l *Lock) needs(r *resource) queue.Mode {
	if r == l.res {
		return l.Wanted
	}
	return l.Wanted.Intent()
}

// advance takes a request on from the resource that let it pass (nil: from the
// start) to where it has to wait, or to its grant.
func (t *Table) advance(l *Lock, from *resource) {
	path := t.route(l)
	i := 0
	if from != nil {
		i = slices.Index(path, from) + 1
		t.spent(from, l.needs(from))
	}
	for ; i < len(path); i++ {
		if !t.enter(l, path[i]) {
			t.wait(l, path[i], from != nil)
			return
		}
		t.spent(path[i], l.needs(path[i]))
	}
	t.grant(l)
}

// enter asks the queue of one resource on l's path and reports whether l may
// go on.
func (t *Table) enter(l *Lock, r *resource) bool {
	t.unidle(r)
	if r.capped {
		t.touch(r) // the ceiling may be another with another head
	}
	mode := l.needs(r)
	req := queue.Request[*Lock]{Holder: l, Mode: mode, Flags: l.Flags & (queue.QueCvt | queue.HeadQue | deadlockFlags)}
	req.Own, req.OwnShared = t.exempt(l, r)
	if r != l.res {
		req.Shared, req.Flags = true, l.Flags&deadlockFlags
		if !t.frozen && r.pins == 0 && t.reuses(l, r, mode) {
			r.q.AddShared(mode)
			return true
		}
	} else if l.conv() {
		out, _, grants := r.q.Convert(req)
		t.follow(r, grants)
		return out == queue.Granted
	}
	out, _ := r.q.Request(req)
	return out == queue.Granted
}

// wait notes that l has to wait at r. later says that it had waited before.
func (t *Table) wait(l *Lock, r *resource, later bool) {
	if l.at() == nil {
		t.enlist(l)
	}
	l.ask.at = r
	t.places++
	if l.ask.place = t.places; l.Flags&queue.HeadQue != 0 && r == l.res {
		l.ask.place = -t.places
	}
	if l.refs > 0 {
		t.ownChanged(l)
	}
	t.touch(r)
	hard := t.hardBlocked(l, r)
	if hard && l.try() {
		t.refuse(l, Busy)
		return
	}
	if later && (hard || r.q.InUse() != queue.None || r.q.Waiters() > 1) { // as Rivals
		t.emit(Event{Kind: Waiting, Lock: l, Ino: r.ino})
	}
	if !hard {
		return
	}
	t.tell(l, r)
	t.deadlock(l, r)
}

// hardBlocked reports whether more than the host lock holds l up at r: somebody
// who has it here, or one who waits ahead and is not about to pass as well.
func (t *Table) hardBlocked(l *Lock, r *resource) bool {
	mode := l.needs(r)
	for b := range r.q.Blockers(l) {
		switch {
		case b.Ceiling:
		case !b.Waiting, !queue.Compatible(b.Mode, mode), t.heldUp(b.Holder, r):
			return true
		}
	}
	return false
}

// heldUp reports whether a waiter is held up by somebody who has the resource.
func (t *Table) heldUp(l *Lock, r *resource) bool {
	for b := range r.q.Blockers(l) {
		if !b.Ceiling && !b.Waiting {
			return true
		}
	}
	return false
}

// grant ends a request: it passed everywhere.
func (t *Table) grant(l *Lock) {
	mode, conv := l.Wanted, l.conv()
	if l.at() != nil {
		t.delist(l)
		l.ask.at = nil
	}
	l.Wanted, l.ask.conv, l.ask.try = queue.None, false, false
	t.become(l, mode, !l.Mode.Intent().Covers(mode.Intent()))
	t.setOwn(l, nil)
	l.ask = nil
	t.emit(Event{Kind: Granted, Lock: l, Mode: mode, Token: l.Token, Converted: conv})
	t.blocks(l)
}

// withdraw takes back what waits: its place and the intents it passed already.
func (t *Table) withdraw(l *Lock) {
	at := l.at()
	t.delist(l)
	l.ask.at = nil
	path := slices.Clone(t.route(l))
	i := slices.Index(path, at)
	if i < 0 {
		panic(fmt.Sprintf("table: inode %d: a request %v to %v waits at %d (gone %v), which is not on its path", l.Ino, l.Mode, l.Wanted, at.ino, at.gone))
	}
	intent := l.Wanted.Intent()
	grants, was := at.q.Cancel(l)
	if !was {
		panic(fmt.Sprintf("table: inode %d: a request to withdraw does not wait at %d", l.Ino, at.ino))
	}
	t.follow(at, grants)
	l.Wanted = queue.None
	t.setOwn(l, nil)
	l.ask = nil
	if l.refs > 0 {
		t.ownChanged(l) // before its intents go: see become
	}
	for _, r := range path[i:] {
		if r.asker == l {
			r.asker = nil
		}
		t.touch(r)
	}
	for _, a := range path[:i] {
		t.follow(a, a.q.ReleaseShared(intent))
		t.touch(a)
	}
}

// refuse withdraws what waits and says why. A try with alternates left goes on
// with the next one.
func (t *Table) refuse(l *Lock, why Reason) {
	if why == Busy && t.alternate(l) {
		return
	}
	t.withdraw(l)
	if l.Mode == queue.None {
		t.quit(l)
	}
	t.emit(Event{Kind: Refused, Lock: l, Mode: l.Mode, Reason: why})
}

// enlist puts l at the end of the list of waiting locks.
func (t *Table) enlist(l *Lock) {
	l.ask.prev, l.ask.next = t.waitLast, nil
	if t.waitLast != nil {
		t.waitLast.ask.next = l
	} else {
		t.waitFirst = l
	}
	t.waitLast = l
	t.waits++
	if l.try() {
		t.tries++
	}
}

func (t *Table) delist(l *Lock) {
	if l.ask.prev != nil {
		l.ask.prev.ask.next = l.ask.next
	} else {
		t.waitFirst = l.ask.next
	}
	if l.ask.next != nil {
		l.ask.next.ask.prev = l.ask.prev
	} else {
		t.waitLast = l.ask.prev
	}
	l.ask.prev, l.ask.next = nil, nil
	t.waits--
	if l.try() {
		t.tries--
	}
}

// follow notes those whom a queue let pass.
func (t *Table) follow(r *resource, grants []queue.Grant[*Lock]) {
	for _, g := range grants {
		t.work = append(t.work, passed{g.Holder, r})
	}
}

// touch notes that a resource is to be looked after.
func (t *Table) touch(r *resource) {
	if !r.dirty {
		r.dirty = true
		t.dirty = append(t.dirty, r)
	}
}

// run follows up all that the last input led to: first the grants, in order,
// then the resources.
func (t *Table) run() {
	for d := 0; ; d++ {
		t.pass()
		if d == len(t.dirty) {
			break
		}
		r := t.dirty[d]
		r.dirty = false
		if !r.gone {
			t.settle(r)
		}
	}
	clear(t.dirty)
	t.dirty = t.dirty[:0]
}

// pass lets those go on whom a queue let pass, until all wait or have their lock.
func (t *Table) pass() {
	if len(t.work) == 0 {
		return
	}
	for w := 0; w < len(t.work); w++ {
		t.advance(t.work[w].l, t.work[w].r)
	}
	clear(t.work)
	t.work = t.work[:0]
}

func (t *Table) emit(e Event) { t.out.Events = append(t.out.Events, e) }
