package queue

import "slices"

// Cycle returns a cycle of waits through h inside this queue, beginning with
// h, each waiting for the next and the last for h; nil if there is none. The
// usual one is the conversion deadlock: two hold PR and both ask for EX.
//
// A waiter waits for another that is ahead of it, or that keeps a lock or an
// intent in its way while it waits itself: as a conversion does, and a request
// whose owner has the lock (Own) or the intents (OwnShared). A raise does not
// count as keeping: its holder may lower what it keeps at any time.
//
// NoDlckWt and NoDlckBlk are honoured as $ENQ has it: a request with the first
// waits for nobody, a lock or request with the second holds up nobody.
//
// Every cycle is a deadlock as far as this queue knows; whether some thread of
// an owner could still let go, the caller must look.
func (q *Queue[H]) Cycle(h H) []H {
	start := q.find(h)
	n := q.cyclic()
	if start < 0 || start >= n {
		return nil
	}
	s := search[H]{q: q, target: start, seen: make([]bool, n)}
	if !s.visit(start) {
		return nil
	}
	slices.Reverse(s.path)
	cycle := make([]H, len(s.path))
	for i, j := range s.path {
		cycle[i] = q.waiters()[j].holder
	}
	return cycle
}

// cyclic returns how many of the line, from its start, can be part of a cycle.
// Unless somebody in the wait queue keeps something (its owner's), that queue
// cannot: nobody in the conversion queue waits for it.
func (q *Queue[H]) cyclic() int {
	line := q.waiters()
	for i := q.conversions(); i < len(line); i++ {
		if len(line[i].own) > 0 || line[i].ownShared != [2]uint32{} {
			return len(line)
		}
	}
	return q.conversions()
}

// search is a depth-first search from target back to it.
type search[H comparable] struct {
	q      *Queue[H]
	target int
	seen   []bool
	path   []int // from the end of the cycle to target
}

func (s *search[H]) visit(i int) bool {
	s.seen[i] = true
	for j := range s.seen {
		if j != s.target && s.seen[j] || !s.q.waitsFor(i, j) {
			continue
		}
		if j == s.target || s.visit(j) {
			s.path = append(s.path, i)
			return true
		}
	}
	return false
}

// waitsFor reports whether the waiter at place i cannot go on before that at j
// does.
func (q *Queue[H]) waitsFor(i, j int) bool {
	line := q.waiters()
	w, x := &line[i], &line[j]
	if i == j || w.flags&NoDlckWt != 0 || x.flags&NoDlckBlk != 0 || slices.Contains(w.own, x.holder) {
		return false
	}
	if j < i && w.mode != NL {
		return true
	}
	had := q.had(w)
	if x.exact && q.keeps(w, had, x.holder) {
		return true
	}
	for k, n := range x.ownShared {
		if n > 0 && q.shared[k] > w.ownShared[k] && w.conflicts(had, CR+Mode(k)) {
			return true
		}
	}
	for _, o := range x.own {
		if o != w.holder && q.keeps(w, had, o) && !slices.Contains(w.own, o) {
			return true
		}
	}
	return false
}

// keeps reports whether o has a lock that is in the way of w.
func (q *Queue[H]) keeps(w *waiter[H], had Mode, o H) bool {
	i := q.position(o)
	return i >= 0 && q.granted[i].flags&NoDlckBlk == 0 && w.conflicts(had, q.granted[i].mode)
}

// conflicts reports whether a granted mode is in the way of w in the mode asked
// for and in each alternate: whether w cannot go on while it is held.
func (w *waiter[H]) conflicts(had, m Mode) bool {
	if !w.minds(had, m) {
		return false
	}
	for _, alt := range w.alternates(had) {
		if alt != None && compatible[alt][m] {
			return false
		}
	}
	return true
}
