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
	head, waiting := r.q.Head()
	give := t.gives(r, use, has, head, waiting)
	switch {
	case r.asked != queue.None && r.asker == nil && !waiting:
		t.cancelRaise(r)
	case r.asked != queue.None && r.asker == nil:
		if r.asked == queue.Join(use, head.Wanted) && r.askTry == head.Holder.try {
			r.asker = head.Holder
			break
		}
		t.cancelRaise(r)
	case r.asked != queue.None && waiting && r.asker == head.Holder && r.asks == 0 && r.pins == 0:
		if need := queue.Join(use, head.Wanted); need != r.asked && r.asked.Covers(need) {
			r.asked = queue.None // asked for less, it keeps its place
		}
	}
	if waiting && r.asked == queue.None && !t.pinned(r) {
		need := queue.Join(use, head.Wanted)
		if give || !has.Covers(need) || t.full(r, head.Wanted) {
			t.raise(r, use, need, head)
			give = false
		}
	}
	if give {
		t.lower(r, use)
	}
	t.answered(r)
	t.rest(r)
}

// gives reports whether the host lock is to be lowered to what is in use.
func (t *Table) gives(r *resource, use, has queue.Mode, head queue.Entry[*Lock], waiting bool) bool {
	if use == has {
		return false
	}
	stands := func(wanted queue.Mode) bool {
		return !queue.Compatible(has, wanted) && queue.Compatible(use, wanted)
	}
	for _, try := range r.tries {
		if stands(try.wanted) {
			return true
		}
	}
	if r.wanted == queue.None || !stands(r.wanted) {
		return false
	}
	// Its turn comes after that of the cohort, which waits for somebody here.
	cohort := waiting && !r.capped && !t.frozen && !t.pinned(r) && has.Covers(head.Wanted)
	return !cohort
}

// full reports whether the counter of the token is used up and mode needs it.
func (t *Table) full(r *resource, mode queue.Mode) bool {
	return r.count >= maxCount && !queue.CR.Covers(mode)
}

// answered drops the recalls that what is kept does not stand in the way of.
func (t *Table) answered(r *resource) {
	has := r.has()
	if r.wanted != queue.None && queue.Compatible(has, r.wanted) {
		t.unrecall(r)
	}
	kept := r.tries[:0]
	for _, try := range r.tries {
		if !queue.Compatible(has, try.wanted) {
			kept = append(kept, try)
		}
	}
	r.tries = kept
}

// unrecall ends the recall of a resource.
func (t *Table) unrecall(r *resource) {
	if r.wanted != queue.None {
		t.recalls--
	}
	r.wanted, r.by = queue.None, 0
	if r.capped {
		r.capped = false
		t.touch(r)
	}
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
		t.lower(r, queue.None)
		has = queue.None
	}
	if has != queue.None || r.bounce > 0 {
		t.toIdle(r)
		return
	}
	t.unidle(r)
	if r.lowers == 0 && r.host == queue.None && r.child == nil {
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
	r.asked, r.asker = queue.None, nil
	t.propose(flight{cmd: &statepb.Command{Op: &statepb.Command_Cancel{Cancel: &statepb.Cancel{Ino: r.ino}}}})
}

// raise proposes to raise the host lock of r for the head of its queue, and,
// in the same command, those further down its path.
func (t *Table) raise(r *resource, use, need queue.Mode, head queue.Entry[*Lock]) {
	l := head.Holder
	var a ask
	a.add(r, l, use, need, head.Convert)
	t.predict(l, r, &a)
	t.propose(a.flight())
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
	if l.try {
		flags |= queue.Try
	}
	r.asked, r.asker, r.askTry = want, l, l.try
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
	if l.at == nil || l.res != r && !l.res.below(r) {
		return
	}
	switch code {
	case state.Busy:
		if l.try {
			t.refuse(l, Busy)
		}
	case state.TooMany:
		t.refuse(l, NoLocks)
	case state.NotFound:
		t.refuse(l, NotFound)
	}
}
