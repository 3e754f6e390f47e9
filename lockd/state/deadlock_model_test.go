package state

import (
	"flag"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// naiveEdges returns who waits for whom, by the rules alone: every wait with every other.
func naiveEdges(s *State, loose map[pair]bool) map[ReportKey][]ReportKey {
	v := s.View()
	edges := make(map[ReportKey][]ReportKey)
	for w := range v.AllReports() {
		if !w.Waits() || w.Flags&queue.NoDlckWt != 0 {
			continue
		}
		for to := range v.AllReports() {
			if to.Waits() && to.Flags&queue.NoDlckWt == 0 && naiveEdge(v, w, to, loose) {
				edges[w.ReportKey] = append(edges[w.ReportKey], to.ReportKey)
			}
		}
	}
	return edges
}

func sameProcess(a, b *Report) bool { return a.Session == b.Session && a.Tgid != 0 && a.Tgid == b.Tgid }

func hasLock(w, h *Report) bool { return sameProcess(w, h) || slices.Contains(w.Holds, h.ReportKey) }

func naiveEdge(v *View, w, to *Report, loose map[pair]bool) bool {
	if w.Kind == ReportRange {
		return naiveRangeEdge(v, w, to, loose)
	}
	if w.needs() == queue.None {
		return false // nobody has to wait for NL
	}
	for h := range v.AllReports() {
		if h.Waits() || !hasLock(to, h) || hasLock(w, h) || h.Flags&queue.NoDlckBlk != 0 || loose[pair{h.ReportKey, to.ReportKey}] {
			continue
		}
		mode := h.Mode
		if h.Ino != w.At {
			mode = h.Mode.Intent()
		}
		if v.within(h.Ino, w.At) && mode != queue.None && !queue.Compatible(mode, w.needs()) {
			return true
		}
	}
	if loose[pair{w.ReportKey, to.ReportKey}] {
		return false
	}
	if to.Kind != ReportRange && to.At != w.At && v.within(to.At, w.At) && to.Mode.Intent() != queue.None && !sameProcess(w, to) &&
		to.Flags&queue.NoDlckBlk == 0 && !queue.Compatible(to.Mode.Intent(), w.needs()) {
		return true
	}
	if to.At != w.At || to.Kind == ReportRange || to.Flags&queue.NoDlckBlk != 0 {
		return false
	}
	if to.Session == w.Session {
		return to.compareAt(w) < 0 && !sameProcess(w, to)
	}
	for x := range v.AllReports() {
		if !x.Waits() || x.Kind == ReportRange || x.At != w.At {
			continue
		}
		ahead := x.Session == w.Session && x.compareAt(w) < 0 && !sameProcess(x, w) && x.Flags&queue.NoDlckBlk == 0
		if ahead || x.Session == to.Session && x.compareAt(to) < 0 {
			return false // not the first of their hosts
		}
	}
	var mine, theirs HostLock
	for l := range v.HostLocks(w.At) {
		switch l.Session {
		case w.Session:
			mine = l
		case to.Session:
			theirs = l
		}
	}
	if mine.Place > 0 {
		return theirs.Place > 0 && theirs.Place < mine.Place
	}
	l, _ := v.locks.Get(w.At)
	if l.more == nil || l.more.hold(w.Session) == nil || w.First {
		return false
	}
	r := l.more.hold(w.Session).recalls[recallWait]
	return r.by == to.Session && !queue.Compatible(r.wanted, w.needs())
}

func naiveRangeEdge(v *View, w, to *Report, loose map[pair]bool) bool {
	waits := slices.Collect(v.RangeWaits(w.Ino))
	i := slices.IndexFunc(waits, func(x RangeWait) bool { return x.Session == w.Session && x.ID == w.Range })
	if i < 0 || waits[i].OFD {
		return false
	}
	want := &waits[i].Range
	mine := false
	for h := range v.Ranges(w.Ino) {
		mine = mine || h.owner() == want.owner()
		if !h.OFD && h.conflicts(want) && h.Session == to.Session && h.PID == to.Tgid && h.PID != 0 &&
			!loose[pair{ReportKey{Ino: w.Ino, Session: h.Session}, to.ReportKey}] {
			return true
		}
	}
	return !mine && !loose[pair{w.ReportKey, to.ReportKey}] && slices.ContainsFunc(waits[:i], func(x RangeWait) bool {
		return !x.OFD && x.conflicts(want) && to.Kind == ReportRange && to.Ino == w.Ino && to.Session == x.Session && to.Range == x.ID
	})
}

// onCycles returns those that can reach themselves, each with all that it reaches and that reaches it.
func onCycles(edges map[ReportKey][]ReportKey) map[ReportKey]map[ReportKey]bool {
	reach := make(map[ReportKey]map[ReportKey]bool)
	for k := range edges {
		seen := make(map[ReportKey]bool)
		var visit func(ReportKey)
		visit = func(k ReportKey) {
			for _, to := range edges[k] {
				if !seen[to] {
					seen[to] = true
					visit(to)
				}
			}
		}
		visit(k)
		reach[k] = seen
	}
	parts := make(map[ReportKey]map[ReportKey]bool)
	for k := range edges {
		if !reach[k][k] {
			continue
		}
		parts[k] = make(map[ReportKey]bool)
		for to := range reach[k] {
			if reach[to][k] {
				parts[k][to] = true
			}
		}
	}
	return parts
}

// inCycle says whether a suspicion is a cycle of the naive graph.
func inCycle(x *Suspicion, edges map[ReportKey][]ReportKey) bool {
	for i, l := range x.Links {
		if !slices.Contains(edges[l.Wait], x.Links[(i+1)%len(x.Links)].Wait) {
			return false
		}
	}
	return true
}

// TestDeadlockModel compares the search with a naive one: every cycle is suspected, every suspicion that rests on locks is a cycle, and
// a verdict ends the youngest of one.
//
// It takes the same chances in every run unless -rapid.seed says otherwise, three times as many as rapid would unless -rapid.checks does.
func TestDeadlockModel(t *testing.T) {
	for name, value := range map[string]string{"rapid.seed": "1", "rapid.checks": "300"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			flag.Set(name, value)
			defer flag.Set(name, f.DefValue)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		const sessions = 3
		for i := range uint64(sessions) {
			applyTo(t, s, 0, &statepb.OpenSession{Host: "h", Nonce: i})
		}
		dir := applyTo(t, s, 1, &statepb.Make{Parent: Root, Name: []byte("d"), Dir: true})[0].Ino
		inos := []uint64{dir}
		for _, parent := range []uint64{dir, dir, Root} {
			inos = append(inos, applyTo(t, s, 1, &statepb.Make{Parent: parent, Name: []byte{byte('a' + len(inos))}})[0].Ino)
		}
		n := func(label string, most int) int { return rapid.IntRange(0, most).Draw(t, label) }
		var ids uint64
		for range 60 {
			session := uint64(n("session", sessions-1)) + 1
			ino := inos[n("ino", len(inos)-1)]
			pid := uint32(n("pid", 2)) + 1
			ids++
			p := &statepb.Reported{Ino: ino, Id: ids, Tgid: pid, Pid: pid, Mode: uint32(n("mode", int(queue.EX)-1)) + 1, Since: int64(n("since", 3))}
			var op any = &statepb.Report{Set: []*statepb.Reported{p}}
			switch n("op", 15) {
			case 0, 1, 2, 3:
				p.Kind = uint32(ReportHeld)
				if n("flag", 7) == 0 {
					p.Flags = uint32(queue.NoDlckBlk)
				}
			case 4, 5, 6, 7, 8:
				p.Kind, p.At, p.Rank = uint32(ReportWait), ino, int64(n("rank", 9))
				p.First = n("first", 3) == 0
				if node := s.cur.Node(ino); n("above", 2) == 0 && node.Parent == dir {
					p.At = dir
				}
				switch n("flag", 15) {
				case 0:
					p.Flags = uint32(queue.NoDlckWt)
				case 1:
					p.Flags = uint32(queue.NoDlckBlk)
				case 2:
					p.Tgid = 0
				}
				for h := range s.View().AllReports() {
					if h.Session == session && !h.Waits() && n("heir", 5) == 0 {
						p.Holds = append(p.Holds, &statepb.ReportKey{Ino: h.Ino, Id: h.ID})
					}
				}
			case 9:
				var all []*Report
				for r := range s.View().AllReports() {
					all = append(all, r)
				}
				if len(all) == 0 {
					continue
				}
				r := rapid.SampledFrom(all).Draw(t, "gone")
				session = r.Session
				op = &statepb.Report{Gone: []*statepb.ReportKey{{Ino: r.Ino, Id: r.ID}}}
			case 10, 11:
				if len(s.cur.suspicions) == 0 {
					continue
				}
				x := rapid.SampledFrom(s.cur.suspicions).Draw(t, "suspicion")
				session = rapid.SampledFrom(x.sessions()).Draw(t, "who")
				op = &statepb.Confirm{Suspicion: x.ID, Round: x.Round, Stuck: n("stuck", 2) > 0, Wrong: n("wrong", 2) == 0}
			case 12:
				op = &statepb.Acquire{Steps: []*statepb.Step{{Ino: ino, Want: p.Mode}}}
				if s.cur.HostLock(ino, session) != queue.None {
					op = &statepb.Release{Ino: ino}
				}
			case 13:
				op = &statepb.RangeLock{Ino: ino, Owner: uint64(pid), Pid: pid, Write: true, Start: uint64(n("start", 2)), End: 2, Id: ids, Wait: true,
					Ofd: n("ofd", 4) == 0}
			case 14:
				op = &statepb.RangeUnlock{Ino: ino, Owner: uint64(pid), All: true}
			case 15:
				waits := slices.Collect(s.View().RangeWaits(ino))
				if len(waits) == 0 {
					continue
				}
				w := rapid.SampledFrom(waits).Draw(t, "range")
				session = w.Session
				for r := range s.View().Reports(ino) { // a host tells of it once
					if r.Session == session && r.Range == w.ID {
						p.Id = r.ID
					}
				}
				p.Kind, p.Tgid, p.Pid, p.At, p.Range = uint32(ReportRange), w.PID, w.PID, ino, w.ID
			}
			before := naiveEdges(s, nil)
			victims := s.cur.suspicions
			changes := applyTo(t, s, session, op)
			for _, c := range changes {
				if c.Kind != Deadlocked {
					continue
				}
				x := victims[slices.IndexFunc(victims, func(x *Suspicion) bool { return x.ID == c.ID })]
				if !inCycle(x, before) {
					t.Fatalf("a verdict on what is no cycle: %+v", *x)
				}
				victim := s.cur.cycles[len(s.cur.cycles)-1].Parties[0].Wait
				for _, party := range s.cur.cycles[len(s.cur.cycles)-1].Parties {
					if party.Wait.Since > victim.Since || party.Wait.Since == victim.Since && party.Wait.Born > victim.Born {
						t.Fatalf("wait %+v is younger than the victim %+v", *party.Wait, *victim)
					}
				}
			}
			compareSuspicions(t, s)
		}
	})
}

func compareSuspicions(t *rapid.T, s *State) {
	edges := naiveEdges(s, nil)
	stale := make(map[ReportKey]bool) // in a suspicion that the queues or byte ranges have overtaken
	for _, x := range s.cur.suspicions {
		if inCycle(x, edges) {
			continue
		}
		locks := true
		for _, l := range x.Links {
			locks = locks && l.By == ByLock
			stale[l.Wait] = true
		}
		if locks {
			t.Fatalf("suspicion %+v is no cycle of\n%v", *x, edges)
		}
	}
	for _, loose := range []map[pair]bool{nil, s.looseLinks()} {
		edges := naiveEdges(s, loose)
		for w, part := range onCycles(edges) {
			if !slices.ContainsFunc(s.cur.suspicions, func(x *Suspicion) bool {
				denied := slices.ContainsFunc(x.Answers, func(a Answer) bool { return !a.Stuck })
				for i := range x.Links { // one that leads over what is loose is none here, unless its hosts will still answer
					if denied && loose[x.pair(i)] {
						return false
					}
				}
				return slices.ContainsFunc(x.Links, func(l Link) bool { return part[l.Wait] || stale[l.Wait] })
			}) {
				t.Fatalf("no suspicion of the cycle through %v in\n%v", w, edges)
			}
		}
	}
}
