package queue

import "slices"

// Cycle returns a cycle of waits through h inside this queue, beginning with
// h, each waiting for the next and the last for h; nil if there is none. The
// usual one is the conversion deadlock: two hold PR and both ask for EX.
//
// A waiter waits for another if that one is ahead of it, or keeps a lock or
// intent that is incompatible while it waits itself: as a conversion does, and
// a request whose owner has the lock (Own) or intents (OwnShared). A raise does
// not count as keeping: the holder may lower what it keeps at any time.
//
// Every cycle is a deadlock as far as this queue knows; whether some thread of
// an owner could still let go, the caller must look.
func (q *Queue[H]) Cycle(h H) []H {
	start := q.find(h)
	if start < 0 {
		return nil
	}
	s := search[H]{q: q, target: start, seen: make([]bool, q.Waiters())}
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

// search is a depth-first search from target back to it.
type search[H comparable] struct {
	q      *Queue[H]
	target int
	seen   []bool
	path   []int // from the end of the cycle to target
}

func (s *search[H]) visit(i int) bool {
	s.seen[i] = true
	for j := range s.q.waiters() {
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
	if i == j || slices.Contains(w.own, x.holder) {
		return false
	}
	if j < i && w.mode != NL {
		return true
	}
	had := q.had(w)
	if m := q.had(x); m != None && x.exact && w.conflicts(had, m) {
		return true
	}
	for k, n := range x.ownShared {
		if n > 0 && q.shared[k] > w.ownShared[k] && w.conflicts(had, CR+Mode(k)) {
			return true
		}
	}
	for _, o := range x.own {
		m := q.Granted(o)
		if m != None && o != w.holder && w.conflicts(had, m) && !slices.Contains(w.own, o) {
			return true
		}
	}
	return false
}
