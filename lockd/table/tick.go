package table

import (
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Renewed extends the lease: jeopardy begins at halfway, the session is lost at
// end (ns, of the clock of Tick).
func (t *Table) Renewed(halfway, end int64) {
	if t.session == 0 {
		return
	}
	t.halfway, t.end = halfway, end
	t.lease()
	t.run()
}

// Tick says what time it is (ns, of a clock that does not stop in suspend). It ends leases, cohorts,
// tries and what was idle for long, and has a second look at tries of others.
func (t *Table) Tick(now int64) {
	t.now = now
	t.lease()
	t.expireTries()
	if t.session != 0 {
		t.tickRecalls()
		t.expireIdle()
	}
	t.run()
}

// lease acts on what is left of the lease.
func (t *Table) lease() {
	if t.session == 0 || t.end == 0 {
		return
	}
	switch {
	case t.now >= t.end:
		t.Lost()
	case t.now >= t.halfway && !t.jeopardy:
		t.emit(Event{Kind: Jeopardy})
		t.freeze(true)
	case t.now < t.halfway && t.jeopardy:
		t.emit(Event{Kind: Safe})
		t.freeze(false)
	}
}

func (t *Table) freeze(on bool) {
	t.jeopardy, t.frozen = on, on
	for r := t.first; r != nil; r = r.next {
		if on {
			r.q.SetCeiling(t.ceiling(r)) // lowered: grants nothing
		}
		t.touch(r)
	}
}

func (t *Table) expireTries() {
	for l := t.waitFirst; l != nil; {
		next := l.next
		if l.try && t.now >= l.tryEnd {
			t.refuse(l, Busy)
			next = t.waitFirst // the list may have changed
			t.run()
		}
		l = next
	}
}

// tickRecalls ends cohorts and answers tries.
func (t *Table) tickRecalls() {
	for r := t.first; r != nil; r = r.next {
		if r.wanted != queue.None && !r.capped && t.now-r.recalled >= int64(t.cfg.CohortTime) {
			r.capped = true
			r.q.SetCeiling(t.ceiling(r))
			t.touch(r)
		}
		for _, try := range r.tries {
			t.propose(flight{cmd: &statepb.Command{Op: &statepb.Command_InUse{InUse: &statepb.InUse{Ino: r.ino, Waiter: try.by}}}})
		}
		r.tries = nil
	}
}

// expireIdle drops the idle locks that are too many or idle for too long.
func (t *Table) expireIdle() {
	for r := t.idleFirst; r != nil; r = t.idleFirst {
		if t.idles <= t.cfg.IdleMax && t.now-r.idleAt < int64(t.cfg.IdleFor) {
			return
		}
		t.unidle(r)
		r.bounce = 0
		if r.has() != queue.None {
			t.lower(r, queue.None)
		}
		t.touch(r)
	}
}
