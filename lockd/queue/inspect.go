package queue

import (
	"iter"
	"slices"
)

// Entry is one holder's lock, request, or both.
type Entry[H comparable] struct {
	Holder    H
	Mode      Mode      // granted, or None
	Wanted    Mode      // waited for, or None
	Flags     Flags     // of the request that waits, else of the lock
	HeldFlags Flags     // of the lock: of the request that was last granted
	Place     int       // place among those that wait, from 1; 0 if it does not
	Convert   bool      // waits in the conversion queue
	Exact     bool      // the grant will replace Mode (a conversion), not join it (a raise)
	Shared    bool      // waits for an intent
	Own       []H       // as in the request that waits; not to be changed
	OwnShared [2]uint32 // as in the request that waits
}

// Blocker is one thing that holds a request up.
type Blocker[H comparable] struct {
	Holder  H      // whose lock or request it is; zero for Shared and Ceiling
	Mode    Mode   // its granted mode; if Waiting, the mode it asks for; if Ceiling, the ceiling
	Waiting bool   // it waits itself, ahead (compatible or not: the queue is first come, first served)
	Shared  bool   // granted intents of this mode
	Count   uint32 // if Shared, how many
	Ceiling bool   // the ceiling is too low
}

// InUse returns the join of all that is granted, intents included.
func (q *Queue[H]) InUse() Mode {
	m := None
	for x := NL; x <= EX; x++ {
		if q.present&x.bit() != 0 {
			m = Join(m, x)
		}
	}
	return m
}

// Granted returns the mode that the holder has, or None.
func (q *Queue[H]) Granted(h H) Mode {
	if i := q.position(h); i >= 0 {
		return q.granted[i].mode
	}
	return None
}

// Waiting returns the mode that the holder waits for, or None.
func (q *Queue[H]) Waiting(h H) Mode {
	if j := q.find(h); j >= 0 {
		return q.waiters()[j].mode
	}
	return None
}

// Shared returns the number of granted intents of mode CR or CW.
func (q *Queue[H]) Shared(m Mode) int { return int(q.shared[sharedIndex(m)]) }

// Holders returns the number of listed locks (intents are not).
func (q *Queue[H]) Holders() int { return len(q.granted) }

// Waiters returns the number of requests and conversions that wait.
func (q *Queue[H]) Waiters() int {
	if q.line == nil {
		return 0
	}
	return len(q.line.list) - int(q.line.head)
}

// Len returns the number of listed locks and of waiting requests. A holder that
// waits for a conversion counts in both.
func (q *Queue[H]) Len() int { return q.Holders() + q.Waiters() }

// Empty reports whether nothing is granted, intents included, and nothing waits.
func (q *Queue[H]) Empty() bool { return q.present == 0 && q.Waiters() == 0 }

// Head returns the first of those that wait: the one to be granted next.
func (q *Queue[H]) Head() (Entry[H], bool) {
	if q.Waiters() == 0 {
		return Entry[H]{}, false
	}
	return q.entry(0), true
}

// entry describes the waiter at place i.
func (q *Queue[H]) entry(i int) Entry[H] {
	w := &q.waiters()[i]
	e := Entry[H]{
		Holder: w.holder, Wanted: w.mode, Flags: w.flags, Place: i + 1,
		Convert: w.conv, Exact: w.exact, Shared: w.shared, Own: w.own, OwnShared: w.ownShared,
	}
	if j := q.position(w.holder); j >= 0 {
		e.Mode, e.HeldFlags = q.granted[j].mode, q.granted[j].flags
	}
	return e
}

// Line returns those that wait, in the order in which they will be granted:
// conversions, then new requests.
func (q *Queue[H]) Line() iter.Seq[Entry[H]] {
	return func(yield func(Entry[H]) bool) {
		for i := range q.waiters() {
			if !yield(q.entry(i)) {
				return
			}
		}
	}
}

// All returns every holder once: those that have a lock, with what they wait
// for, then the others that wait, in their order. The order is the same on every
// replica that went through the same calls, or was restored from their outcome.
// The queue must not be changed meanwhile.
func (q *Queue[H]) All() iter.Seq[Entry[H]] {
	return func(yield func(Entry[H]) bool) {
		places := q.places()
		for i := range q.granted {
			g := &q.granted[i]
			e := Entry[H]{Holder: g.holder, Mode: g.mode, Flags: g.flags, HeldFlags: g.flags}
			if j, ok := places[g.holder]; ok {
				e = q.entry(j)
			}
			if !yield(e) {
				return
			}
		}
		for e := range q.Line() {
			if e.Mode == None && !yield(e) {
				return
			}
		}
	}
}

// places returns the place in the line of each waiter that has a lock.
func (q *Queue[H]) places() map[H]int {
	var places map[H]int
	for j, w := range q.waiters() {
		if q.position(w.holder) < 0 {
			continue
		}
		if places == nil {
			places = make(map[H]int)
		}
		places[w.holder] = j
	}
	return places
}

// minds reports whether a granted mode is in the way of w in the mode asked for.
func (w *waiter[H]) minds(had, m Mode) bool { return !compatible[w.target(had, w.mode)][m] }

// Blockers returns what holds a waiting request up in the mode it asks for: the
// ceiling, the granted locks and intents that are incompatible with it, and all
// that wait ahead of it; its own entries aside. Nothing if the holder does not
// wait.
func (q *Queue[H]) Blockers(h H) iter.Seq[Blocker[H]] {
	return func(yield func(Blocker[H]) bool) {
		if j := q.find(h); j >= 0 {
			line := q.waiters()
			q.blockers(&line[j], line[:j], yield)
		}
	}
}

// BlockersOf returns what would hold up a request that has not been made, a
// conversion if convert is set. Nothing if it would be granted at once.
func (q *Queue[H]) BlockersOf(r Request[H], convert bool) iter.Seq[Blocker[H]] {
	return func(yield func(Blocker[H]) bool) {
		w := q.waiter(&r)
		w.exact, w.conv = convert, w.conv || convert
		if q.now(&w) == None {
			q.blockers(&w, q.waiters()[:q.place(&w)], yield)
		}
	}
}

func (q *Queue[H]) blockers(w *waiter[H], ahead []waiter[H], yield func(Blocker[H]) bool) {
	had := q.had(w)
	if m := w.target(had, w.mode); !q.ceiling.Covers(m) && !yield(Blocker[H]{Mode: q.ceiling, Ceiling: true}) {
		return
	}
	for i := range q.granted {
		g := &q.granted[i]
		if g.holder != w.holder && w.minds(had, g.mode) && !slices.Contains(w.own, g.holder) &&
			!yield(Blocker[H]{Holder: g.holder, Mode: g.mode}) {
			return
		}
	}
	for i, n := range q.shared {
		n -= min(n, w.ownShared[i])
		if m := CR + Mode(i); n > 0 && w.minds(had, m) && !yield(Blocker[H]{Mode: m, Shared: true, Count: n}) {
			return
		}
	}
	for i := range ahead {
		a := &ahead[i]
		if w.mode != NL && !slices.Contains(w.own, a.holder) &&
			!yield(Blocker[H]{Holder: a.holder, Mode: a.mode, Waiting: true}) {
			return
		}
	}
}

// Blocked returns the waiting requests that the holder's granted lock is
// incompatible with, in their order: those of whom a blocking AST tells it.
func (q *Queue[H]) Blocked(h H) (blocked []H) {
	m := q.Granted(h)
	if m == None {
		return nil
	}
	line := q.waiters()
	for i := range line {
		w := &line[i]
		if w.holder != h && w.minds(q.had(w), m) && !slices.Contains(w.own, h) {
			blocked = append(blocked, w.holder)
		}
	}
	return blocked
}

// BlockedShared returns the waiting requests that granted intents of mode CR or
// CW are incompatible with, in their order, but those that own all of them.
func (q *Queue[H]) BlockedShared(m Mode) (blocked []H) {
	i := sharedIndex(m)
	line := q.waiters()
	for j := range line {
		w := &line[j]
		if q.shared[i] > w.ownShared[i] && w.minds(q.had(w), m) {
			blocked = append(blocked, w.holder)
		}
	}
	return blocked
}
