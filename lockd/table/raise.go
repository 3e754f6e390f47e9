package table

import (
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// flight is a command that was proposed and is not answered yet. From its
// proposal on, what it lowers counts as lowered.
type flight struct {
	cmd   *statepb.Command
	steps []step
}

type step struct {
	r   *resource
	l   *Lock // for whom it is raised, nil: it is only lowered
	ask bool
}

// settle brings a resource in line: what may be granted, what is asked of the
// state and what is given up.
func (t *Table) settle(r *resource) {
	n := len(t.work)
	t.follow(r, r.q.SetCeiling(t.ceiling(r)))
	if len(t.work) > n {
		t.touch(r) // after these have gone on
		return
	}
	if t.session == 0 {
		return
	}
	use, has := r.q.InUse(), r.has()
	next, waiting := t.next(r, has)
	if t.yields(r, next, waiting) ||
		r.capped && !queue.Compatible(has, r.wanted) && !queue.Compatible(use, r.wanted) && t.yieldsTo(r, r.wanted) {
		t.touch(r)
		return
	}
	give := t.gives(r, use, has, next, waiting)
	stale := t.reask(r, use, next, waiting)
	if waiting && r.asked == queue.None && !t.pinned(r) {
		need := queue.Join(use, next.Wanted)
		if give || !has.Covers(need) || t.full(r, next.Wanted) {
			t.raise(r, use, need, next)
			give, stale = false, false
		}
	}
	if stale {
		t.cancelRaise(r)
	}
	if give {
		t.lower(r, use)
	}
	t.rest(r)
}

// next returns the request that a raise is to be asked for: the head of the
// queue, or one that may pass it, being of the same owner as those who hold the
// head up.
func (t *Table) next(r *resource, has queue.Mode) (queue.Entry[*Lock], bool) {
	head, waiting := r.q.Head()
	if t.owners == 0 || !waiting || r.q.Waiters() < 2 || !t.hardBlocked(head.Holder, r) {
		return head, waiting
	}
	for e := range r.q.Line() {
		if !has.Covers(e.Wanted) && len(e.Own) > 0 && !t.hardBlocked(e.Holder, r) {
			return e, true
		}
	}
	return head, true
}

// reask forgets a raise that is not, or no longer, what is needed, and reports
// that: it is to be replaced or withdrawn. One that is not yet answered is left alone.
func (t *Table) reask(r *resource, use queue.Mode, next queue.Entry[*Lock], waiting bool) (stale bool) {
	switch {
	case r.asked == queue.None:
		return false
	case !waiting:
		// One that was asked for ahead and has to wait, while its request is held up further up, would keep others
		// waiting for who does not wait here.
		stale = r.asker == nil || r.asks == 0
	case r.asks > 0 || t.pinned(r):
		return false
	case r.asked == queue.Join(use, next.Wanted) && r.askTry == next.Holder.try() && r.askConv == next.Convert:
		r.asker = next.Holder
	default:
		stale = true
	}
	if stale {
		r.asked, r.asker = queue.None, nil
	}
	return stale
}

// gives reports whether the host lock is to be lowered to what is in use.
func (t *Table) gives(r *resource, use, has queue.Mode, next queue.Entry[*Lock], waiting bool) bool {
	if use == has {
		return false
	}
	stands := func(wanted queue.Mode) bool {
		return !queue.Compatible(has, wanted) && queue.Compatible(use, wanted)
	}
	// What a conversion here waits for is not given up for a try: it would be asked for again in the same command, and had, since
	// conversions go first, for ever if the try is behind another request. At the next tick the try is told that it is in use.
	converts := waiting && next.Convert && has.Covers(next.Wanted)
	for _, try := range r.tries() {
		if use == queue.None || stands(try.wanted) && !converts { // even NL stands in the way of a removal
			return true
		}
	}
	if r.wanted == queue.None || !stands(r.wanted) {
		return false
	}
	// Its turn comes after that of the cohort, which waits for somebody here.
	cohort := waiting && !r.capped && !t.frozen && !t.pinned(r) && has.Covers(next.Wanted)
	return !cohort
}

// full reports whether the counter of the token is used up and mode needs it.
func (t *Table) full(r *resource, mode queue.Mode) bool {
	return r.count >= maxCount && !queue.CR.Covers(mode)
}

// rest puts a resource that nobody uses where it belongs: in the cache, back to
// the state, or out of the table.
func (t *Table) rest(r *resource) {
	if !r.q.Empty() || r.asked != queue.None || r.pins > 0 {
		t.unidle(r)
		return
	}
	has := r.has()
	if has != queue.None && t.uncached(r) {
		if r.grants > 0 {
			t.lower(r, queue.None)
			has = queue.None
		} else if !r.idle { // its user is on the way
			t.fresh = append(t.fresh, r)
		}
	}
	if has != queue.None || r.bounce > 0 {
		t.toIdle(r)
		return
	}
	t.unidle(r)
	if r.lowers == 0 && r.host == queue.None && r.child == nil && r.locks == 0 {
		p := r.parent
		t.forget(r)
		if p != nil {
			t.touch(p)
		}
	}
}

// uncached reports whether the host lock is given up as soon as nobody uses it.
func (t *Table) uncached(r *resource) bool {
	return r.bounce >= bouncing || r.parent != nil && r.parent.ephemeral
}

// lower proposes to give up all of the host lock but keep.
func (t *Table) lower(r *resource, keep queue.Mode) {
	r.keep = keep
	r.lowers++
	cmd := &statepb.Command{Op: &statepb.Command_Release{Release: &statepb.Release{Ino: r.ino, Keep: uint32(keep)}}}
	t.propose(flight{cmd, []step{{r: r}}})
	r.q.SetCeiling(t.ceiling(r)) // lowered: grants nothing
}

// cancelRaise withdraws a raise that nobody needs any more.
func (t *Table) cancelRaise(r *resource) {
	t.propose(flight{cmd: &statepb.Command{Op: &statepb.Command_Cancel{Cancel: &statepb.Cancel{Ino: r.ino}}}})
}

// raise proposes to raise the host lock of r for the head of its queue, and,
// in the same command, those further down its path.
func (t *Table) raise(r *resource, use, need queue.Mode, head queue.Entry[*Lock]) {
	l := head.Holder
	var a ask
	a.add(r, l, use, need, head.Convert)
	t.predict(l, r, &a)
	f := a.flight()
	f.cmd.GetAcquire().Pid = l.PID
	t.propose(f)
	for _, s := range a.steps {
		s.r.q.SetCeiling(t.ceiling(s.r)) // lowered: grants nothing
	}
}

// predict adds what l will need below r, as far as nobody here is in its way.
func (t *Table) predict(l *Lock, r *resource, a *ask) {
	below := false
	for _, s := range t.route(l) {
		if s == r {
			below = true
			continue
		}
		mode := l.needs(s)
		if !below || s.has().Covers(mode) || s.asked.Covers(mode) {
			continue
		}
		use := s.q.InUse()
		if s.asked != queue.None || s.q.Waiters() > 0 || s.pins > 0 || !queue.Compatible(use, mode) {
			return
		}
		t.unidle(s)
		a.add(s, l, use, queue.Join(use, mode), false)
	}
}

// ask gathers the steps of an Acquire.
type ask struct {
	pb    []*statepb.Step
	steps []step
}

func (a *ask) add(r *resource, l *Lock, use, want queue.Mode, convert bool) {
	flags := l.Flags & (queue.NoDlckWt | queue.NoDlckBlk)
	if r == l.res {
		flags |= l.Flags & (queue.QueCvt | queue.HeadQue)
	}
	if l.try() {
		flags |= queue.Try
	}
	r.asked, r.asker, r.askTry, r.askConv = want, l, l.try(), convert
	r.keep = use
	r.lowers++
	r.asks++
	a.pb = append(a.pb, &statepb.Step{Ino: r.ino, Keep: uint32(use), Want: uint32(want), Flags: uint32(flags), Convert: convert})
	a.steps = append(a.steps, step{r: r, l: l, ask: true})
}

func (a *ask) flight() flight {
	return flight{&statepb.Command{Op: &statepb.Command_Acquire{Acquire: &statepb.Acquire{Steps: a.pb}}}, a.steps}
}

func (t *Table) propose(f flight) {
	t.inflight = append(t.inflight, f)
	t.out.Proposals = append(t.out.Proposals, f.cmd)
}

// done takes the answer to one of the table's own commands.
func (t *Table) done(c state.Change) {
	if len(t.inflight) == 0 || t.inflight[0].cmd.Seq == 0 || t.inflight[0].cmd.Seq != c.Seq {
		return
	}
	f := t.inflight[0]
	t.inflight[0] = flight{}
	t.inflight = t.inflight[1:]
	stopped := false
	for _, s := range f.steps {
		r := s.r
		r.lowers--
		t.touch(r)
		if !s.ask {
			continue
		}
		r.asks--
		here := !stopped && c.Code != state.OK && c.Ino == r.ino
		stopped = stopped || here
		if here && c.Code == state.Waiting {
			continue
		}
		if r.asks == 0 {
			r.asked, r.asker = queue.None, nil
		}
		if here {
			t.turnedDown(s.l, r, c.Code)
		}
	}
	t.run()
}

// turnedDown ends a request that the state refused at r.
func (t *Table) turnedDown(l *Lock, r *resource, code state.Code) {
	if l.at() == nil || l.res != r && !l.res.below(r) {
		return
	}
	switch code {
	case state.Busy:
		if l.try() {
			t.refuse(l, Busy)
		}
	case state.TooMany:
		t.refuse(l, NoLocks)
	case state.NotFound:
		t.refuse(l, NotFound)
	}
}
