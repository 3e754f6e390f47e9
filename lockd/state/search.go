package state

import (
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
)

// The search for deadlocks (DESIGN 3.4) goes from wait to wait. A wait leads to those of everybody who has what holds it up:
//
//	wait ──► an incompatible lock, on the resource or (its intent) below it ──► the waits of its owner and heirs
//	     ──► a wait below it, which has passed there and keeps its intent
//	     ──► the waits ahead in the same queue; the first of a host's queue to the hosts ahead of that in the state's
//	     ──► a byte range in its way, held or asked for earlier
//
// What each of a queue is held up by is looked at once for all: a queue of a thousand costs a thousand steps. It is searched from what
// changed: a new wait, the waits of whoever has a new lock, a request that went to the end of the state's queue, and what is left
// of a suspicion that ended. Nobody can be in a cycle that nobody waits for, which most waits are spared the search by. What one
// entry leaves undone, since that would take too long, the next ones do.

// By says what holds a wait up.
type By uint8

const (
	ByLock  By = iota + 1 // a lock, of the next wait's owner
	ByWait                // the next wait, ahead of it
	ByRange               // a byte range of the next wait's process
)

// Link is one wait of a cycle and what holds it up. The next link's wait is of the owner of that.
type Link struct {
	Wait ReportKey
	By   By
	Key  ReportKey // the lock or wait; of a byte range its inode and session
	PID  uint32    // of a byte range: the process
}

// Steps measure a search: one is a report looked at, a wait gone on from is as many as stepWait, some 4 µs. No search begins once an entry
// has taken maxSteps, and none goes on after maxSearch: it has looked at more waits than there can be of one host. maxCycle bounds
// what is found.
const (
	stepWait  = 8
	maxSteps  = 1 << 16
	maxSearch = 1 << 19
	maxCycle  = 4096
)

// lookFor has a cycle through a wait looked for at the end of the command.
func (s *State) lookFor(w *Report) { s.suspects = append(s.suspects, w.ReportKey) }

func (s *State) lookForAll(waits []*Report) {
	for _, w := range waits {
		s.lookFor(w)
	}
}

// lookForAt does so for the first of a session's queue at a resource, to whom its place in the state's queue matters.
func (s *State) lookForAt(ino, session uint64) {
	s.graph.from(ino, session, func(w *Report) bool {
		if !s.graph.first(w) {
			return false
		}
		s.lookFor(w)
		return true
	})
}

// search looks for the cycles that the command may have closed, and those before it, as long as the entry's steps last.
func (s *State) search() {
	var loose map[pair]bool
	i := 0
	for ; i < len(s.suspects) && s.steps > 0; i++ {
		w := s.cur.Report(s.suspects[i])
		if w == nil || !w.Waits() || slices.Contains(s.suspects[:min(i, 64)], w.ReportKey) || !s.followed(w) {
			continue
		}
		if loose == nil {
			loose = s.looseLinks()
		}
		links := s.cycle(w, loose)
		if links == nil && len(loose) > 0 {
			links = s.cycle(w, nil)
		}
		if links != nil {
			s.suspect(links)
		}
	}
	s.suspects = append(s.suspects[:0], s.suspects[i:]...)
}

// putOff keeps for the next entry what this one's steps did not last for.
func (s *State) putOff() {
	s.cur.unsearched = nil
	seen := make(map[ReportKey]bool, len(s.suspects))
	for _, k := range s.suspects {
		if !seen[k] && s.cur.Report(k) != nil {
			seen[k] = true
			s.cur.unsearched = append(s.cur.unsearched, k)
		}
	}
	s.suspects = s.suspects[:0]
}

// followed says whether anybody may wait for a wait or for what its process has. It errs on the side of yes.
func (s *State) followed(w *Report) bool {
	if w.Kind == ReportRange || s.cur.rangeWaits > 0 || s.graph.followed(w) {
		return true
	}
	if w.At != w.Ino || s.awaitedAbove(w.At, false) { // intents that it keeps
		return true
	}
	found := false
	s.graph.heldBy(&s.cur, w, func(h *Report) bool {
		s.steps--
		found = s.awaitedAbove(h.Ino, true)
		return !found
	})
	return found
}

// awaitedAbove says whether anybody waits at a directory above a resource, or at the resource itself.
func (s *State) awaitedAbove(ino uint64, itself bool) bool {
	for ino != 0 {
		if itself && s.graph.awaited(ino) {
			return true
		}
		n := s.cur.Node(ino)
		if n == nil {
			break
		}
		ino, itself = n.Parent, true
	}
	return false
}

// cycle returns a shortest cycle through a wait, nil if there is none. Links that lead over a loose pair of lock and wait are left out.
func (s *State) cycle(w *Report, loose map[pair]bool) []Link {
	f := s.finder(w)
	f.loose = loose
	f.expand(w)
	for f.at = 0; f.at < len(f.found) && f.goesOn(); f.at++ {
		f.expand(f.found[f.at].wait)
	}
	s.steps -= maxSearch - f.steps
	if !f.over {
		return nil
	}
	var links []Link
	for i := len(f.found) - 1; i >= 0; i = f.found[i].from {
		links = append(links, f.found[i].link)
	}
	if len(links) > maxCycle {
		return nil
	}
	slices.Reverse(links)
	return links
}

// holdsUp says whether a wait is held up by another, as the link has it, by the state as it is now.
func (s *State) holdsUp(l *Link, next *Report) bool {
	w := s.cur.Report(l.Wait)
	if w == nil || next == nil {
		return false
	}
	f := s.finder(next)
	f.expand(w)
	return f.over
}

// finder is a search, breadth first, from one wait to a target.
type finder struct {
	s      *State
	target *Report
	loose  map[pair]bool
	found  []step // in the order in which they are gone on from
	seen   map[*Report]bool
	at     int  // the one that is gone on from, -1 the first
	over   bool // the target was come to
	steps  int  // left

	holders map[place][]*Report // looked at already, and who was left out as an asker's own
	below   map[place]bool
	lines   map[queueOf]*line
	waits   map[uint64]map[rangeID]*Report // for byte ranges, by file
}

func (s *State) finder(target *Report) *finder {
	return &finder{
		s: s, target: target, at: -1, steps: maxSearch, seen: make(map[*Report]bool),
		holders: make(map[place][]*Report), below: make(map[place]bool), lines: make(map[queueOf]*line), waits: make(map[uint64]map[rangeID]*Report),
	}
}

// rangeID names a wait for a byte range.
type rangeID struct{ session, id uint64 }

// step is the way to a wait: from another one, which the link is of.
type step struct {
	wait *Report
	from int // index of the step to that, -1: it is where the search began
	link Link
}

// place is a resource and what is asked for there.
type place struct {
	ino  uint64
	mode queue.Mode
}

// pair is a lock or a wait, and a wait that it leads to.
type pair struct{ from, to ReportKey }

// visit notes that w leads to a wait.
func (f *finder) visit(w, to *Report, l Link) {
	if f.over || to.Flags&queue.NoDlckWt != 0 {
		return
	}
	if f.seen[to] || l.By != ByWait && f.loose[pair{l.Key, to.ReportKey}] ||
		l.By == ByWait && f.loose[pair{w.ReportKey, to.ReportKey}] {
		return
	}
	l.Wait = w.ReportKey
	f.seen[to] = true
	f.found = append(f.found, step{wait: to, from: f.at, link: l})
	f.over = to == f.target
}

// goesOn says whether anything is left to be looked for. The search is over once it is not.
func (f *finder) goesOn() bool { return !f.over && f.steps > 0 }

// expand visits what a wait leads to.
func (f *finder) expand(w *Report) {
	f.steps -= stepWait
	switch {
	case w.Flags&queue.NoDlckWt != 0:
	case w.Kind == ReportRange:
		f.ranges(w)
	case w.needs() != queue.None:
		f.locks(w)
		f.locksBelow(w)
		f.ahead(w)
	}
}

// through visits the waits of who has a lock.
func (f *finder) through(w, h *Report) {
	for _, to := range f.s.graph.waitsOf(h) {
		f.steps--
		f.visit(w, to, Link{By: ByLock, Key: h.ReportKey})
	}
}

// own says whether a lock is the asker's own, or inherited by it: it does not hold it up here. (A wait for one's own lock on
// the same resource is for package table to find.)
func own(w, h *Report) bool {
	return w.Session == h.Session && (w.Tgid != 0 && w.Tgid == h.Tgid || slices.Contains(w.Holds, h.ReportKey))
}

// sameOwner says whether two waits are of one process.
func sameOwner(a, b *Report) bool { return a.Session == b.Session && a.Tgid == b.Tgid }

// passed says whether a wait has passed a directory and keeps an intent there that is in the way of what is asked for.
func (r *Report) passed(v *View, p place) bool {
	intent := r.Mode.Intent()
	return r.Kind != ReportRange && r.At != p.ino && intent != queue.None && r.Flags&queue.NoDlckBlk == 0 &&
		!queue.Compatible(intent, p.mode) && v.within(r.At, p.ino)
}

// locks goes through the locks of the resource that are in the way.
func (f *finder) locks(w *Report) {
	p := place{w.At, w.needs()}
	if left, seen := f.holders[p]; seen {
		f.steps -= len(left)
		f.holders[p] = slices.DeleteFunc(left, func(h *Report) bool {
			if own(w, h) {
				return false
			}
			f.through(w, h)
			return true
		})
		return
	}
	var left []*Report
	for h := range f.s.cur.Reports(p.ino) {
		if f.steps--; !f.goesOn() {
			return
		}
		switch {
		case h.Waits() || h.Flags&queue.NoDlckBlk != 0 || queue.Compatible(h.Mode, p.mode):
		case own(w, h):
			left = append(left, h)
		default:
			f.through(w, h)
		}
	}
	f.holders[p] = left
}

// locksBelow goes through the locks below a directory whose intents are in the way, and through waits there: these keep the
// intents of the directories that they have passed. Only locks of processes that wait matter, and there are fewer waits than locks.
func (f *finder) locksBelow(w *Report) {
	p := place{w.At, w.needs()}
	n := f.s.cur.Node(p.ino)
	if f.below[p] || n == nil || !n.Dir || queue.Compatible(queue.CR, p.mode) && queue.Compatible(queue.CW, p.mode) {
		return
	}
	all := true
	visit := func(to *Report) bool {
		f.steps--
		if to.passed(&f.s.cur, p) {
			if w.Tgid != 0 && sameOwner(w, to) || f.loose[pair{w.ReportKey, to.ReportKey}] {
				all = false
			} else {
				f.visit(w, to, Link{By: ByWait, Key: to.ReportKey})
			}
		}
		f.s.graph.heldBy(&f.s.cur, to, func(h *Report) bool {
			f.steps--
			intent := h.Mode.Intent()
			switch {
			case h.Ino == p.ino || intent == queue.None || h.Flags&queue.NoDlckBlk != 0 || queue.Compatible(intent, p.mode):
			case !f.s.cur.within(h.Ino, p.ino):
			case own(w, h):
				all = false
			default:
				f.visit(w, to, Link{By: ByLock, Key: h.ReportKey})
			}
			return f.goesOn()
		})
		return f.goesOn()
	}
	f.s.graph.at.Scan(visit)
	for ino := range f.s.cur.RangeFiles() {
		f.rangeWaits(ino, visit)
	}
	f.below[p] = all
}

// ahead goes to the waits ahead in the queue of the host or, if there are none, to those of other hosts that are ahead in
// the state's queue, or whose request the host was told to make way for.
func (f *finder) ahead(w *Report) {
	k := queueOf{w.At, w.Session}
	ln := f.lines[k]
	if ln == nil {
		ln = new(line)
		f.lines[k] = ln
	}
	visit := func(a *Report) bool {
		f.steps--
		if w.Tgid != 0 && a.Tgid == w.Tgid || f.loose[pair{w.ReportKey, a.ReportKey}] {
			return false
		}
		if a.Flags&queue.NoDlckBlk == 0 {
			f.visit(w, a, Link{By: ByWait, Key: a.ReportKey})
		}
		return true
	}
	ln.left = slices.DeleteFunc(ln.left, func(a *Report) bool { return a.compareAt(w) < 0 && visit(a) })
	if ln.from == nil || ln.from.compareAt(w) < 0 {
		f.s.graph.ahead(w, func(a *Report) bool {
			if !visit(a) {
				ln.left = append(ln.left, a)
			}
			return a != ln.from
		})
		ln.from = w
	}
	if f.s.graph.first(w) {
		f.hostsAhead(w)
	}
}

// line is how far a queue was gone through.
type line struct {
	from *Report   // all ahead of it were visited
	left []*Report // but these, an asker's own, or not held up by as its host says
}

// queueOf is a host's queue at a resource.
type queueOf struct{ at, session uint64 }

// hostsAhead goes from the first wait of a host to those of other hosts.
func (f *finder) hostsAhead(w *Report) {
	l, _ := f.s.cur.locks.Get(w.At)
	if l.more == nil {
		return
	}
	c := l.more
	if c.wait(w.Session) != nil {
		for b := range c.q.Blockers(w.Session) {
			if b.Waiting {
				f.host(w, b.Holder)
			}
		}
		return
	}
	if h := c.hold(w.Session); h != nil && !w.First && h.recalls[recallWait].by != 0 && !queue.Compatible(h.recalls[recallWait].wanted, w.needs()) {
		f.host(w, h.recalls[recallWait].by)
	}
}

// host goes to the first wait of another host at the same place.
func (f *finder) host(w *Report, session uint64) {
	if to := f.s.graph.head(w.At, session); to != nil && to.Flags&queue.NoDlckBlk == 0 {
		f.visit(w, to, Link{By: ByWait, Key: to.ReportKey})
	}
}

// ranges goes through the byte ranges in the way of a wait for one. Those of open file descriptions do not count: any process
// that has the description may unlock.
func (f *finder) ranges(w *Report) {
	files, _ := f.s.cur.ranges.Get(w.Ino)
	if files == nil {
		return
	}
	i := slices.IndexFunc(files.waits, func(x RangeWait) bool { return x.Session == w.Session && x.ID == w.Range })
	if i < 0 || files.waits[i].OFD {
		return
	}
	f.steps -= (len(files.held) + i) / 4
	want := &files.waits[i].Range
	for j := range files.held {
		h := &files.held[j]
		if h.OFD || !h.conflicts(want) {
			continue
		}
		for _, to := range f.s.graph.waitsBy(h.Session, h.PID) {
			f.visit(w, to, Link{By: ByRange, Key: ReportKey{Ino: w.Ino, Session: h.Session}, PID: h.PID})
		}
	}
	if files.holds(want.owner()) {
		return
	}
	for j := range files.waits[:i] {
		x := &files.waits[j]
		if x.OFD || !x.conflicts(want) {
			continue
		}
		if to := f.rangeReports(w.Ino)[rangeID{x.Session, x.ID}]; to != nil {
			f.visit(w, to, Link{By: ByWait, Key: to.ReportKey})
		}
	}
}

// rangeReports returns the reports of the waits for byte ranges of a file.
func (f *finder) rangeReports(ino uint64) map[rangeID]*Report {
	waits, ok := f.waits[ino]
	if !ok {
		waits = make(map[rangeID]*Report)
		for r := range f.s.cur.Reports(ino) {
			f.steps--
			if r.Kind == ReportRange {
				waits[rangeID{r.Session, r.Range}] = r
			}
		}
		f.waits[ino] = waits
	}
	return waits
}

// rangeWaits calls visit with the reports of the waits for byte ranges of a file, in their order, until it returns false.
func (f *finder) rangeWaits(ino uint64, visit func(*Report) bool) {
	files, _ := f.s.cur.ranges.Get(ino)
	for i := range files.waits {
		w := &files.waits[i]
		if r := f.rangeReports(ino)[rangeID{w.Session, w.ID}]; r != nil && !visit(r) {
			return
		}
	}
}
