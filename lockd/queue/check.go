package queue

import (
	"fmt"
	"slices"
)

// Check reports a broken invariant, nil if there is none. It is for tests and
// simulations, after every step; its cost grows with the square of the waiters.
//
//   - Counts, sets and the index say what the lists say.
//   - No two granted locks are incompatible, those of one owner aside.
//   - No holder waits twice; conversions stand before new requests.
//   - Nothing that could be granted is left waiting.
func (q *Queue[H]) Check() error {
	for _, check := range []func() error{q.checkCounts, q.checkIndex, q.checkGranted, q.checkLine, q.checkWaits} {
		if err := check(); err != nil {
			return fmt.Errorf("queue: %w", err)
		}
	}
	return nil
}

func (q *Queue[H]) checkCounts() error {
	var count [modes]uint32
	var present modeSet
	count[CR], count[CW] = q.shared[0], q.shared[1]
	for i := range q.granted {
		if m := q.granted[i].mode; !m.Valid() {
			return fmt.Errorf("%v has mode %d", q.granted[i].holder, m)
		}
		count[q.granted[i].mode]++
	}
	for m, n := range count {
		if n > 0 {
			present |= Mode(m).bit()
		}
	}
	if count != q.count || present != q.present {
		return fmt.Errorf("counts are %v (%b), should be %v (%b)", q.count, q.present, count, present)
	}
	return nil
}

func (q *Queue[H]) checkIndex() error {
	if q.index == nil && len(q.granted) > indexAbove || q.index != nil && len(q.index) != len(q.granted) {
		return fmt.Errorf("index of %d for %d locks", len(q.index), len(q.granted))
	}
	seen := make(map[H]bool)
	for i := range q.granted {
		h := q.granted[i].holder
		if seen[h] || q.position(h) != i {
			return fmt.Errorf("%v is at %d and at %d", h, i, q.position(h))
		}
		seen[h] = true
	}
	return nil
}

// checkGranted looks for incompatible locks. Who was granted a lock over one of
// its own owner is marked, since the queue does not know owners.
func (q *Queue[H]) checkGranted() error {
	var count [modes]int
	for k, n := range q.shared {
		if m := CR + Mode(k); q.loose&m.bit() == 0 {
			count[m] += int(n)
		}
	}
	for i := range q.granted {
		if g := &q.granted[i]; !g.own {
			count[g.mode]++
		}
	}
	for a := NL; a <= EX; a++ {
		for b := a; b <= EX; b++ {
			if !compatible[a][b] && count[a] > 0 && count[b] > 0 && (a != b || count[a] > 1) {
				return fmt.Errorf("%v and %v are granted together", a, b)
			}
		}
	}
	return nil
}

func (q *Queue[H]) checkLine() error {
	seen := make(map[H]bool)
	var nconv, passers uint32
	for i := range q.waiters() {
		w := &q.waiters()[i]
		switch {
		case seen[w.holder]:
			return fmt.Errorf("%v waits twice", w.holder)
		case w.conv && int(nconv) < i:
			return fmt.Errorf("the conversion of %v stands behind new requests", w.holder)
		case w.exact && !w.conv:
			return fmt.Errorf("the conversion of %v stands among new requests", w.holder)
		case w.flags&NoQueue != 0:
			return fmt.Errorf("%v waits though it asked with noqueue", w.holder)
		case hasDoubles(w.own) || slices.Contains(w.own, w.holder):
			return fmt.Errorf("%v names an own entry twice, or itself", w.holder)
		}
		seen[w.holder] = true
		passers += w.passes()
		if w.conv {
			nconv++
		}
	}
	if l := q.line; l != nil && (nconv != l.nconv || passers != l.passers || int(l.head) >= len(l.list)) {
		return fmt.Errorf("line of %d from %d: %d conversions, should be %d; %d may pass, should be %d",
			len(l.list), l.head, l.nconv, nconv, l.passers, passers)
	}
	return nil
}

func hasDoubles[H comparable](own []H) bool {
	for i := range own {
		if slices.Contains(own[:i], own[i]) {
			return true
		}
	}
	return false
}

// checkWaits looks for a waiter that nothing holds up.
func (q *Queue[H]) checkWaits() error {
	for e := range q.Line() {
		held := false
		for b := range q.Blockers(e.Holder) {
			held = held || b != Blocker[H]{}
		}
		if !held {
			return fmt.Errorf("%v waits for %v, and nothing is in its way", e.Holder, e.Wanted)
		}
	}
	return nil
}
