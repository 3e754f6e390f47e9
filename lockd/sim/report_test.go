package sim

import (
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// The hosts' part in the search for deadlocks: what is held and awaited is told now and then, suspicions are answered, and the victim of
// a verdict gives up. Each process has one thread: it can let go of nothing while it waits.

// told is a lock or a wait that the cluster was told of in this session.
type told struct {
	id   uint64
	k    *lock
	turn int        // of a wait; 0: a lock
	mode queue.Mode // of a lock
	at   uint64     // of a wait: where it was held up, and its place there
	rank int64
}

// stands reports whether it is still the same.
func (x *told) stands() bool {
	if x.turn > 0 {
		return x.k.p.waits == x.k && x.k.turn == x.turn && x.k.Waits()
	}
	return !x.k.dead && x.k.Mode == x.mode
}

// toldAs returns what was told under a number, nil if it is over.
func (h *host) toldAs(id uint64) *told {
	i, ok := slices.BinarySearchFunc(h.told, id, func(x *told, id uint64) int { return int(x.id) - int(id) })
	if !ok || !h.told[i].stands() {
		return nil
	}
	return h.told[i]
}

// report tells what is new.
func (h *host) report() {
	if h.session == 0 {
		return
	}
	op := new(statepb.Report)
	h.told = slices.DeleteFunc(h.told, func(x *told) bool {
		if x.stands() {
			return false
		}
		op.Gone = append(op.Gone, &statepb.ReportKey{Ino: x.k.Ino, Id: x.id})
		return true
	})
	for l := range h.table.All() {
		k := l.User.(*lock)
		if k.Mode != queue.None && !k.dead && !slices.ContainsFunc(h.told, func(x *told) bool { return x.k == k && x.turn == 0 }) {
			op.Set = append(op.Set, h.tell(&told{k: k, mode: k.Mode}))
		}
	}
	for _, p := range h.procs {
		if k := p.waits; k != nil && k.Waits() {
			i := slices.IndexFunc(h.told, func(x *told) bool { return x.k == k && x.turn == k.turn })
			switch {
			case i < 0:
				op.Set = append(op.Set, h.tell(&told{k: k, turn: k.turn}))
			case h.moved(h.told[i]):
				op.Set = append(op.Set, h.reportOf(h.told[i]))
			}
		}
	}
	if len(op.Gone)+len(op.Set) > 0 {
		h.propose(&statepb.Command{Op: &statepb.Command_Report{Report: op}}, nil)
		h.transmit(h.seq)
	}
}

func (h *host) moved(x *told) bool {
	_, rank := h.table.Place(&x.k.Lock)
	return x.k.At() != x.at || rank != x.rank
}

// tell gives it a number.
func (h *host) tell(x *told) *statepb.Reported {
	h.lastTold++
	x.id = h.lastTold
	h.told = append(h.told, x)
	return h.reportOf(x)
}

func (h *host) reportOf(x *told) *statepb.Reported {
	k := x.k
	r := &state.Report{
		ReportKey: state.ReportKey{Ino: k.Ino, ID: x.id}, Kind: state.ReportHeld, Mode: k.Mode, Flags: k.Flags,
		PID: uint32(k.p.owner), Tgid: uint32(k.p.owner), Since: h.s.now, Token: k.Token,
	}
	if x.turn == 0 {
		return r.Told()
	}
	r.Kind, r.Mode, r.Since, x.at = state.ReportWait, k.Wanted, k.since, k.At()
	r.At = x.at
	r.First, r.Rank = h.table.Place(&k.Lock)
	x.rank = r.Rank
	if k.Converts() {
		r.Kind = state.ReportConversion
		if i := slices.IndexFunc(h.told, func(y *told) bool { return y.k == k && y.turn == 0 }); i >= 0 {
			r.Holds = []state.ReportKey{{Ino: k.Ino, ID: h.told[i].id}}
		}
	}
	return r.Told()
}

// examine answers the suspicions that concern the host, and gives up what waits for the process's own lock.
func (h *host) examine() {
	if h.session == 0 {
		return
	}
	for _, p := range h.procs {
		if p.waits != nil && h.table.Self(&p.waits.Lock) != nil {
			h.s.Selfs++
			h.onTime()
			p.waits.cancel()
			h.flush()
		}
	}
	answered := make(map[uint64]answer)
	for _, x := range h.view.Suspicions() {
		if !slices.ContainsFunc(x.Links, func(l state.Link) bool { return l.Wait.Session == h.session || l.Key.Session == h.session }) {
			continue
		}
		a := h.answers[x.ID]
		stands, stuck := h.part(x)
		stuck = stuck && stands
		if a.stuck < x.Round && (stuck || a.denied < x.Round) {
			if a.denied = x.Round; stuck {
				a.stuck = x.Round
			}
			h.propose(&statepb.Command{Op: &statepb.Command_Confirm{Confirm: &statepb.Confirm{
				Suspicion: x.ID, Round: x.Round, Stuck: stuck, Wrong: !stands,
			}}}, nil)
			h.transmit(h.seq)
		}
		answered[x.ID] = a
	}
	h.answers = answered
}

// answer is in which rounds a suspicion was answered.
type answer struct{ stuck, denied uint64 }

// part reports whether the host's part in a cycle stands, and whether those who have its locks all wait.
func (h *host) part(x *state.Suspicion) (stands, stuck bool) {
	stuck = true
	for _, l := range x.Links {
		if l.Wait.Session == h.session && !h.waitStands(l) {
			return false, false
		}
		if l.Key.Session != h.session || l.By != state.ByLock {
			continue
		}
		held, r := h.toldAs(l.Key.ID), h.view.Report(l.Key)
		if held == nil || r == nil || held.mode != r.Mode {
			return false, false
		}
		stuck = stuck && held.k.p.waits != nil
	}
	return true, stuck
}

func (h *host) waitStands(l state.Link) bool {
	w, r := h.toldAs(l.Wait.ID), h.view.Report(l.Wait)
	if w == nil || r == nil || w.k.At() != r.At || w.k.Wanted != r.Mode {
		return false
	}
	if l.By != state.ByWait {
		return true
	}
	var other *told
	if l.Key.Session == h.session {
		if other = h.toldAs(l.Key.ID); other == nil {
			return false
		}
	}
	for b := range h.table.Blockers(&w.k.Lock) {
		if other != nil && b.Lock == &other.k.Lock || other == nil && b.Host {
			return true
		}
	}
	return false
}

// condemned is told of a verdict.
func (h *host) condemned(c *state.Change) {
	if x := h.toldAs(c.Owner); x != nil && c.Session == h.session {
		h.s.tracef("%s: %v is the victim of a deadlock", h.name, x.k)
		x.k.cancel()
	}
}

// cycle is what is known of a suspicion.
type cycle struct {
	links []state.Link
	stood bool // all of it stood when it was suspected last
}

// suspected looks at a suspicion at the moment at which it goes into the log.
func (s *sim) suspected(id uint64) {
	x := s.raft.view.Suspicion(id)
	if x == nil {
		return
	}
	s.Suspicions++
	s.cycles[id] = cycle{x.Links, s.standing(x.Links)}
}

// toldOf finds what was told under a key, nil if it is over.
func (s *sim) toldOf(k state.ReportKey) *told {
	for _, h := range s.hosts {
		if h.up && h.session == k.Session {
			return h.toldAs(k.ID)
		}
	}
	return nil
}

// standing reports whether the links are true: each process waits, and is held up by the next.
func (s *sim) standing(links []state.Link) bool {
	for i, l := range links {
		w, by, next := s.toldOf(l.Wait), s.toldOf(l.Key), s.toldOf(links[(i+1)%len(links)].Wait)
		if w == nil || by == nil || next == nil || by.k.p != next.k.p {
			return false
		}
		if l.By == state.ByLock && !w.k.excludedBy(by.k) {
			return false
		}
	}
	return true
}

// verdict: the cycle stood, its victim is the youngest, and no other one of it was a victim before.
func (s *sim) verdict(c *state.Change) {
	s.Verdicts++
	x := s.cycles[c.ID]
	if !x.stood {
		s.failf("a verdict on what was no cycle: %+v", x.links)
	}
	all := s.raft.view.Cycles()
	parties := all[slices.IndexFunc(all, func(y *state.Cycle) bool { return y.ID == c.ID })].Parties
	for _, p := range parties {
		if p.Wait.Since > parties[0].Wait.Since {
			s.failf("a verdict on %+v, and %+v is younger", *parties[0].Wait, *p.Wait)
		}
	}
	for _, l := range x.links {
		if s.victims[l.Wait] {
			s.failf("a second victim in the cycle %+v", x.links)
		}
	}
	s.victims[state.ReportKey{Ino: c.Ino, Session: c.Session, ID: c.Owner}] = true
}
