package table

import (
	"math"

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
		t.expireFresh()
	}
	t.run()
}

// At says what time it is and does nothing else: what begins now counts from now. The clock does not go back.
func (t *Table) At(now int64) { t.now = max(t.now, now) }

// Deadline returns the time at which the lease next has something to say:
// jeopardy, or its end. The table acts on the time in Tick alone, so past the
// deadline the shell calls Tick before anything else. (MaxInt64: no lease.)
func (t *Table) Deadline() int64 {
	switch {
	case t.session == 0 || t.end == 0:
		return math.MaxInt64
	case t.jeopardy:
		return t.end
	}
	return t.halfway
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
	if t.tries == 0 {
		return
	}
	var over []*Lock
	for l := t.waitFirst; l != nil; l = l.ask.next {
		if l.try() && t.now >= l.ask.tryEnd {
			over = append(over, l)
		}
	}
	for _, l := range over {
		if l.at() != nil && l.try() {
			t.refuse(l, Busy)
			t.run()
		}
	}
}

// tickRecalls ends cohorts and answers tries.
func (t *Table) tickRecalls() {
	kept := t.recalled[:0]
	for _, r := range t.recalled {
		if r.wanted != queue.None && !r.capped && t.now-r.told.since >= int64(t.cfg.CohortTime) {
			r.capped = true
			r.q.SetCeiling(t.ceiling(r)) // lowered: grants nothing
			t.touch(r)
		}
		for _, try := range r.tries() {
			if r.has() != queue.None { // else it is given up
				t.propose(flight{cmd: &statepb.Command{Op: &statepb.Command_InUse{InUse: &statepb.InUse{Ino: r.ino, Waiter: try.by}}}})
			}
		}
		r.answered()
		if r.listed = r.wanted != queue.None; r.listed {
			kept = append(kept, r)
		}
	}
	clear(t.recalled[len(kept):])
	t.recalled = kept
}

// expireFresh gives up what was granted and not used within Config.TryFor, where
// nothing is cached.
func (t *Table) expireFresh() {
	kept := t.fresh[:0]
	for _, r := range t.fresh {
		switch {
		case r.gone || !r.idle || !t.uncached(r) || r.has() == queue.None:
		case t.now-r.idleAt < int64(t.cfg.TryFor):
			kept = append(kept, r)
		default:
			t.unidle(r)
			t.lower(r, queue.None)
			t.touch(r)
		}
	}
	clear(t.fresh[len(kept):])
	t.fresh = kept
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
