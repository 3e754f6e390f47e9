package table

import (
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// Session begins a session: its id, and the state's token base. What queued
// meanwhile is asked for. Until the first [Table.Renewed] the lease has no end.
func (t *Table) Session(id, tokenBase uint64) {
	t.Lost()
	t.session, t.base = id, tokenBase
	t.jeopardy, t.frozen = false, false
	t.halfway, t.end = 0, 0
	for r := t.first; r != nil; r = r.next {
		t.touch(r)
	}
	t.run()
}

// InSession reports whether there is a session: none before [Table.Session], and
// none after the end of the lease.
func (t *Table) InSession() bool { return t.session != 0 }

// Lost ends the session: every lock is lost, the table is empty but for requests that
// wait (new ones; conversions are lost with their locks), which go on waiting
// for the next session. Tries are refused.
func (t *Table) Lost() {
	if t.session == 0 {
		return
	}
	t.session, t.frozen, t.jeopardy = 0, true, false
	var lost, waiting []*Lock
	for r := t.first; r != nil; r = r.next {
		for e := range r.q.All() {
			if e.Holder.res == r && e.Holder.Mode != queue.None {
				lost = append(lost, e.Holder)
			}
		}
	}
	for l := t.waitFirst; l != nil; l = l.ask.next {
		if l.Mode == queue.None {
			waiting = append(waiting, l)
		}
	}
	t.waitFirst, t.waitLast, t.waits, t.locks = nil, nil, 0, 0
	for r := t.first; r != nil; r = r.next {
		r.gone = true
	}
	clear(t.res)
	t.first, t.last, t.idleFirst, t.idleLast, t.idles = nil, nil, nil, nil, 0
	t.inflight, t.work, t.dirty, t.recalled = nil, nil, nil, nil
	t.fresh = nil
	t.recalls, t.pins, t.tries, t.owners = 0, 0, 0, 0
	t.out.Proposals = nil
	for _, l := range lost {
		clearLock(l)
		t.emit(Event{Kind: Lost, Lock: l})
	}
	for _, l := range waiting {
		mode, flags, since := l.Wanted, l.Flags, l.Since
		try := l.try()
		clearLock(l)
		if try {
			t.emit(Event{Kind: Refused, Lock: l, Reason: Busy})
			continue
		}
		t.Request(l, mode, flags, nil)
		l.Since = since
	}
}

// clearLock makes l as if it had never been in the table.
func clearLock(l *Lock) {
	*l = Lock{Ino: l.Ino, PID: l.PID, UID: l.UID, User: l.User}
}

// Applied takes one change of the state, in order. All changes of an entry are
// to be given before the shell looks at the output; changes of other sessions
// too.
func (t *Table) Applied(c state.Change) {
	switch c.Kind {
	case state.Removed:
		t.removed(c)
	case state.Moved:
		t.moved(c)
	case state.Xattr:
		if c.Name == state.XattrEphemeral {
			t.setEphemeral(c.Ino)
		}
	}
	if t.session == 0 {
		return
	}
	if c.Session != t.session {
		if c.Kind == state.HostGranted {
			if r := t.res[c.Ino]; r != nil {
				r.foreign = true
			}
		}
		if c.Kind == state.Awaited {
			if r := t.res[c.Ino]; r != nil {
				t.tellElsewhere(r, c.Wanted, askerOf(&c))
			}
		}
		return
	}
	switch c.Kind {
	case state.Done:
		t.done(c)
	case state.HostGranted:
		t.hostGranted(c)
	case state.HostLowered:
		if r := t.res[c.Ino]; r != nil {
			if r.host = c.Mode; r.host == queue.None {
				t.unrecall(r)
				r.answered()
			}
			t.touch(r)
		}
	case state.HostRefused:
		t.hostRefused(c)
	case state.Recall:
		t.recall(c)
	case state.RecallCancelled:
		t.recallCancelled(c)
	case state.SessionEnded:
		t.Lost()
	}
	t.run()
}

func (t *Table) hostGranted(c state.Change) {
	r := t.lookup(c.Ino)
	if r == nil {
		return
	}
	r.host = c.Mode
	r.raise, r.count, r.grants = c.Raise, 0, 0
	if r.asks == 0 && c.Mode.Covers(r.asked) {
		r.asked, r.asker = queue.None, nil
	}
	if !r.foreign && r.bounce > 0 {
		r.bounce--
	}
	r.foreign = false
	if r.wanted != queue.None {
		t.cohort(r)
	}
	t.touch(r)
}

// hostRefused: a try that waited in the state for an answer to its recall.
func (t *Table) hostRefused(c state.Change) {
	r := t.res[c.Ino]
	if r == nil || r.asks > 0 || !r.askTry || r.asked == queue.None {
		return
	}
	l := r.asker
	r.asked, r.asker = queue.None, nil
	if l != nil {
		t.turnedDown(l, r, state.Busy)
	}
	t.touch(r)
}

// recall: the host lock stands in the way of another host. It does so until
// the state cancels or replaces the recall, or the host lock is gone altogether:
// a raise past the one who waits brings no new recall.
func (t *Table) recall(c state.Change) {
	r := t.res[c.Ino]
	if r == nil || r.host == queue.None {
		return
	}
	if r.grants > 1 {
		r.bounce = 0
	} else if r.bounce <= bouncing {
		r.bounce++
	}
	if c.Try {
		told := r.recalls()
		told.tries = append(told.tries, tryRecall{by: c.By, wanted: c.Wanted})
	} else {
		if r.wanted == queue.None {
			t.recalls++
			t.cohort(r)
		}
		r.wanted, r.recalls().by = c.Wanted, askerOf(&c)
	}
	if !r.listed {
		r.listed = true
		t.recalled = append(t.recalled, r)
	}
	if !c.Try { // nobody waits longer than for the answer
		t.tellElsewhere(r, c.Wanted, askerOf(&c))
	}
	t.touch(r)
}

// unrecall ends the recall of a resource.
func (t *Table) unrecall(r *resource) {
	if r.wanted != queue.None {
		t.recalls--
		r.wanted, r.capped = queue.None, false
		if len(r.tries()) == 0 {
			r.told = nil
		}
	}
}

// cohort begins the time in which requests here may still be granted.
func (t *Table) cohort(r *resource) {
	told := r.recalls()
	told.since, told.budget = t.now, int32(t.cfg.CohortN)
	r.capped = t.cfg.CohortN == 0 && r.grants > 0
}

// spent counts a grant past a recall.
func (t *Table) spent(r *resource, mode queue.Mode) {
	r.grants++
	if r.wanted == queue.None || r.capped || queue.Compatible(mode, r.wanted) {
		return
	}
	if r.told.budget--; r.told.budget <= 0 {
		r.capped = true
		t.follow(r, r.q.SetCeiling(t.ceiling(r))) // lowered, unless an answer raised it that is not followed up yet
	}
}

func (t *Table) recallCancelled(c state.Change) {
	r := t.res[c.Ino]
	if r == nil {
		return
	}
	if c.Try {
		r.answered()
	} else {
		t.unrecall(r)
	}
	t.touch(r)
}

// setEphemeral: the attribute of a directory changed.
func (t *Table) setEphemeral(ino uint64) {
	r := t.res[ino]
	if r == nil {
		return
	}
	r.ephemeral = t.cfg.Tree.Ephemeral(ino)
	for c := r.child; c != nil; c = c.sibNext {
		t.touch(c)
	}
	t.run()
}
