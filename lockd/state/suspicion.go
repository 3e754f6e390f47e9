package state

import (
	"cmp"
	"slices"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// A cycle of waits is a suspicion until each host that has a part in it has confirmed, in one round, that what the links say of it stands
// and that nobody there could still let go:
//
//	found ──► Suspected ──┬─ all hosts: stuck ──► Deadlocked: the youngest wait is the victim
//	                      ├─ a host: not stuck ──► stands; the search goes on around its locks or, if it is wrong, queues
//	                      │    └─ later the same host: stuck ──► Suspected again, a new round
//	                      └─ one of its waits or locks is gone ──► over
//
// A wait or lock that stood before the suspicion and stands when its host confirms stood all the while in between. So there was a
// moment at which all of the cycle stood at once.

// Suspicion is a cycle that is being confirmed. It is immutable.
type Suspicion struct {
	ID      uint64
	Round   uint64
	Links   []Link // the oldest report's wait first
	Answers []Answer
}

// Answer is what a host said in this round.
type Answer struct {
	Session uint64
	Stuck   bool // all stands, and nobody here could let go
	Wrong   bool // something does not stand, such as who is ahead of whom
}

// Cycle is a deadlock that was found. It is immutable.
type Cycle struct {
	ID      uint64
	Index   uint64 // of the entry that passed the verdict
	Time    int64  // as that has it
	LeftOut int    // parties that there was no room for
	Parties []Party
}

// Party is a wait in a cycle, and what holds it up: the lock or wait of the next party, which the last one's is the first. The
// first is the victim.
type Party struct {
	Wait   *Report
	Host   string
	By     By
	Key    *Report // the lock or the wait; of a byte range only Ino, Session and Tgid are known
	ByHost string
}

const (
	maxSuspicions = 1024
	maxCycles     = 32  // kept
	maxParties    = 256 // of a cycle that is kept
)

// Suspicions returns the cycles that are being confirmed, by id.
func (v *View) Suspicions() []*Suspicion { return v.suspicions }

// Suspicion returns that of an id, nil if it is over.
func (v *View) Suspicion(id uint64) *Suspicion {
	i, ok := v.findSuspicion(id)
	if !ok {
		return nil
	}
	return v.suspicions[i]
}

func (v *View) findSuspicion(id uint64) (int, bool) {
	return slices.BinarySearchFunc(v.suspicions, id, func(x *Suspicion, id uint64) int { return cmp.Compare(x.ID, id) })
}

// Cycles returns the last deadlocks that were found, the newest last.
func (v *View) Cycles() []*Cycle { return v.cycles }

// sessions returns those that have a part in a cycle, sorted.
func (x *Suspicion) sessions() (list []uint64) {
	for i := range x.Links {
		list = append(list, x.Links[i].Wait.Session, x.Links[i].Key.Session)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// has says whether a report is part of a cycle.
func (x *Suspicion) has(k ReportKey) bool {
	return slices.ContainsFunc(x.Links, func(l Link) bool { return l.Wait == k || l.By != ByRange && l.Key == k })
}

// answer returns a session's answer of this round, and whether it has given one.
func (x *Suspicion) answer(session uint64) (a Answer, given bool) {
	i := slices.IndexFunc(x.Answers, func(a Answer) bool { return a.Session == session })
	if i < 0 {
		return Answer{}, false
	}
	return x.Answers[i], true
}

// suspect asks the hosts of a cycle, unless they are being asked.
func (s *State) suspect(links []Link) {
	first := 0
	for i := range links {
		if links[i].Wait.compare(links[first].Wait) < 0 {
			first = i
		}
	}
	links = append(links[first:len(links):len(links)], links[:first]...)
	known := slices.ContainsFunc(s.cur.suspicions, func(x *Suspicion) bool { return slices.Equal(x.Links, links) })
	if known || len(s.cur.suspicions) >= maxSuspicions {
		return
	}
	// Never used again: what answers it cannot be taken for an answer to another one.
	x := &Suspicion{ID: s.index<<suspicionBits | s.suspected, Round: 1, Links: links}
	s.suspected++
	s.setSuspicions(append(slices.Clone(s.cur.suspicions), x))
	s.emit(Change{Kind: Suspected, ID: x.ID})
}

// suspicionBits leave room for as many suspicions of one entry.
const suspicionBits = 16

func (s *State) setSuspicions(list []*Suspicion) {
	s.cur.suspicions = list
	s.dirty |= partRest
}

func (s *State) replaceSuspicion(x *Suspicion) {
	i, _ := s.cur.findSuspicion(x.ID)
	list := slices.Clone(s.cur.suspicions)
	list[i] = x
	s.setSuspicions(list)
}

// endSuspicions ends those that a report, which is gone, was part of. What is left of them may be part of other cycles.
func (s *State) endSuspicions(k ReportKey) {
	if len(s.cur.suspicions) == 0 || !slices.ContainsFunc(s.cur.suspicions, func(x *Suspicion) bool { return x.has(k) }) {
		return
	}
	var rest []*Suspicion
	for _, x := range s.cur.suspicions {
		if !x.has(k) {
			rest = append(rest, x)
			continue
		}
		s.lookAround(x)
	}
	s.setSuspicions(rest)
}

// lookAround has other cycles through the waits of one looked for.
func (s *State) lookAround(x *Suspicion) {
	for i := range x.Links {
		if w := s.cur.Report(x.Links[i].Wait); w != nil {
			s.lookFor(w)
		}
	}
}

// looseLinks returns the links that a host did not confirm: of locks and byte ranges that could still be let go, with the waits
// that they lead to, and of waits with those that are wrongly said to be ahead of them; nil if there are none.
func (s *State) looseLinks() (loose map[pair]bool) {
	for _, x := range s.cur.suspicions {
		for _, a := range x.Answers {
			if a.Stuck {
				continue
			}
			if loose == nil {
				loose = make(map[pair]bool)
			}
			for _, i := range x.denied(a) {
				loose[x.pair(i)] = true
			}
		}
	}
	return loose
}

// pair returns what the search knows a link by.
func (x *Suspicion) pair(i int) pair {
	l := &x.Links[i]
	if l.By == ByWait {
		return pair{l.Wait, l.Key}
	}
	return pair{l.Key, x.Links[(i+1)%len(x.Links)].Wait}
}

// denied returns the links that a host did not confirm, at least one: those whose order it knows better; else what is there of its
// own locks and byte ranges; else its waits, of which it will soon tell.
func (x *Suspicion) denied(a Answer) (links []int) {
	for _, denies := range []func(l *Link) bool{
		func(l *Link) bool { return a.Wrong && l.By == ByWait && l.Wait.Session == a.Session },
		func(l *Link) bool { return l.By != ByWait && l.Key.Session == a.Session },
		func(l *Link) bool { return l.Wait.Session == a.Session || l.Key.Session == a.Session },
	} {
		for i := range x.Links {
			if denies(&x.Links[i]) {
				links = append(links, i)
			}
		}
		if len(links) > 0 {
			break
		}
	}
	return links
}

// confirm takes a host's answer to a suspicion.
func (s *State) confirm(op *statepb.Confirm, done *Change) {
	done.ID = op.Suspicion
	old := s.cur.Suspicion(op.Suspicion)
	switch {
	case old == nil:
		done.Code = NotFound
		return
	case !slices.Contains(old.sessions(), done.Session):
		done.Code = Invalid
		return
	case op.Round != old.Round:
		done.Code = Stale // it was asked again
		return
	}
	was, given := old.answer(done.Session)
	if given && (was.Stuck || !op.Stuck) {
		return
	}
	x := *old
	answer := Answer{Session: done.Session, Stuck: op.Stuck, Wrong: op.Wrong && !op.Stuck}
	if given {
		x.Round++
		x.Answers = []Answer{answer}
	} else {
		x.Answers = append(slices.Clone(old.Answers), answer)
	}
	s.replaceSuspicion(&x)
	switch {
	case !op.Stuck:
		s.lookAround(&x)
	case x.confirmed():
		s.verdict(&x)
	case given:
		s.emit(Change{Kind: Suspected, ID: x.ID})
	}
}

// confirmed says whether all hosts said in this round that they are stuck.
func (x *Suspicion) confirmed() bool {
	return !slices.ContainsFunc(x.sessions(), func(session uint64) bool {
		a, _ := x.answer(session)
		return !a.Stuck
	})
}

// verdict ends the youngest wait of a cycle, unless the queues have moved meanwhile.
func (s *State) verdict(x *Suspicion) {
	victim := 0
	for i := range x.Links {
		if !s.holdsUp(&x.Links[i], s.cur.Report(x.Links[(i+1)%len(x.Links)].Wait)) {
			i, _ := s.cur.findSuspicion(x.ID)
			s.setSuspicions(slices.Delete(slices.Clone(s.cur.suspicions), i, i+1))
			s.lookAround(x)
			return
		}
		if younger(s.cur.Report(x.Links[i].Wait), s.cur.Report(x.Links[victim].Wait)) {
			victim = i
		}
	}
	c := s.cur.cycleOf(x, victim)
	c.Index, c.Time = s.index, s.now
	keep := s.cur.cycles
	if len(keep) >= maxCycles {
		keep = keep[1:]
	}
	s.cur.cycles = append(slices.Clone(keep), c)
	s.dirty |= partRest
	k := x.Links[victim].Wait
	s.emit(Change{Kind: Deadlocked, ID: x.ID, Session: k.Session, Ino: k.Ino, Owner: k.ID, Wanted: c.Parties[0].Wait.Mode})
	s.dropReport(k)
}

// younger says whether a began to wait after b, as far as their hosts' clocks tell.
func younger(a, b *Report) bool {
	return cmp.Or(cmp.Compare(a.Since, b.Since), cmp.Compare(a.Born, b.Born), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Session, b.Session)) > 0
}

// cycleOf describes a cycle in full, the victim first.
func (v *View) cycleOf(x *Suspicion, victim int) *Cycle {
	c := &Cycle{ID: x.ID, LeftOut: max(0, len(x.Links)-maxParties)}
	host := func(session uint64) string {
		s, _ := v.Session(session)
		return s.Host
	}
	for i := range min(len(x.Links), maxParties) {
		l := &x.Links[(victim+i)%len(x.Links)]
		p := Party{Wait: v.Report(l.Wait), Host: host(l.Wait.Session), By: l.By, Key: v.Report(l.Key), ByHost: host(l.Key.Session)}
		if l.By == ByRange {
			p.Key = &Report{ReportKey: l.Key, Kind: ReportHeld, Tgid: l.PID, PID: l.PID}
		}
		c.Parties = append(c.Parties, p)
	}
	return c
}
