package queue

import (
	"fmt"
	"slices"
)

// Outcome is the answer to a request.
type Outcome uint8

const (
	Refused Outcome = iota // cannot be had at once, and NoQueue was set; nothing has changed
	Waiting                // queued; the grant comes in the []Grant of a later call
	Granted
)

// String returns the outcome in small letters.
func (o Outcome) String() string { return [...]string{"refused", "waiting", "granted"}[o] }

// Request asks for a lock, or to convert one.
type Request[H comparable] struct {
	// Holder is who asks: one entry of the queue has one holder.
	Holder H
	// Mode asked for, NL to EX.
	Mode Mode
	// Flags of the request. Check them with [Flags.Check].
	Flags Flags
	// Shared marks an intent (mode CR or CW): once granted it is counted by
	// mode and not listed. Give it back with ReleaseShared. To strengthen one,
	// ask for the other with the old one in OwnShared, then give the old one back.
	Shared bool
	// Own are entries of the same owner, granted or waiting, that never hold
	// this one up. No entry twice, and not Holder. The queue copies it if the
	// request waits. It exempts whatever is named; to name is the caller's
	// decision: the owner's lock for an intent below it, say, but not for
	// another lock on the same resource, since two descriptors of one process
	// exclude each other like any two.
	Own []H
	// OwnShared is how many of the granted intents, CR and CW, are the same
	// owner's and do not hold this one up.
	OwnShared [2]uint32
}

// Grant says that a waiting request was granted.
type Grant[H comparable] struct {
	Holder    H
	Mode      Mode // what the holder has now: the mode asked for, an alternate, or the join of a raise
	Shared    bool // an intent: counted, not listed
	Converted bool // the holder had a lock here before, which this one replaces
}

// Queue holds one resource's locks and requests. The zero value has the
// ceiling None and grants nothing; see [New]. The methods that make room
// return what was granted thereby, in the order of the grants.
type Queue[H comparable] struct {
	granted []held[H]     // listed locks, in no order that means anything
	index   map[H]int32   // holder → position in granted; nil while they are few
	line    *line[H]      // nil: nobody waits
	count   [modes]uint32 // granted locks and intents by mode
	shared  [2]uint32     // of these, intents: CR, CW
	present modeSet       // modes with count > 0
	loose   modeSet       // intents of these modes may overlap own locks (for Check)
	ceiling Mode
}

// line is those who wait.
type line[H comparable] struct {
	list    []waiter[H] // from head on: first conversions, then new requests
	head    uint32      // what is before is free room
	nconv   uint32      // how many are conversions
	passers uint32      // how many might overtake others
	room    [1]waiter[H]
}

// held is a granted lock.
type held[H comparable] struct {
	holder H
	mode   Mode
	own    bool // granted over a lock of its owner (for Check)
	flags  Flags
}

// waiter is a waiting request.
type waiter[H comparable] struct {
	holder    H
	mode      Mode
	flags     Flags
	shared    bool
	conv      bool // in the conversion queue
	exact     bool // a grant replaces the granted mode (Convert) instead of joining it (Request)
	ownShared [2]uint32
	own       []H
}

// indexAbove is the number of granted locks above which they are indexed.
const indexAbove = 16

// New returns an empty queue with that ceiling.
func New[H comparable](ceiling Mode) Queue[H] { return Queue[H]{ceiling: ceiling} }

// Ceiling returns the strongest mode that the queue hands out.
func (q *Queue[H]) Ceiling() Mode { return q.ceiling }

// SetCeiling bounds what is granted from now on; what is granted already stays.
func (q *Queue[H]) SetCeiling(m Mode) []Grant[H] {
	q.ceiling = m
	return q.advance()
}

// Request asks for a lock. It returns Granted and the mode (an alternate one
// if AltPR or AltCW was needed), Waiting, or Refused if NoQueue is set.
//
// A Holder that has a lock here already asks for a raise: it waits in the wait
// queue like a new request while it keeps what it has, and the grant makes it
// the join of both. (So a host that always holds an intent does not overtake a
// waiting EX for ever; DESIGN 3.1.)
//
// A request whose owner has a lock of CR or more here already, by Own or
// OwnShared, counts as a conversion of it (DESIGN 1.3) and goes by the rules of
// Convert: whoever waits ahead may well wait for that very lock.
//
// A Holder must not ask while it waits here: Cancel first, or use Amend.
func (q *Queue[H]) Request(r Request[H]) (Outcome, Mode) {
	w := q.waiter(&r)
	return q.enter(&w)
}

// TryGrant grants a request at once or changes nothing. It reports the mode
// and whether it was granted. It does not allocate but to make room for one
// lock more than the queue ever had.
func (q *Queue[H]) TryGrant(r Request[H]) (Mode, bool) {
	w := q.waiter(&r)
	m := q.now(&w)
	if m == None {
		return None, false
	}
	q.grant(&w, m)
	return m, true
}

// Fits returns what TryGrant would, and changes nothing.
func (q *Queue[H]) Fits(r Request[H]) (Mode, bool) {
	w := q.waiter(&r)
	m := q.now(&w)
	return m, m != None
}

// Convert changes the mode of a granted lock to r.Mode. A mode that the
// present one covers is given at once. Any other is given at once if it is
// compatible with all other granted locks, even while conversions wait, unless
// QueCvt is set (fs/dlm/lock.c, 6-5 to 6-7). Else it waits in the conversion
// queue, ahead of new requests, and keeps what it has. An alternate mode is
// tried only if it covers the present one.
//
// Holder must have a lock here and must not wait: Convert panics otherwise.
func (q *Queue[H]) Convert(r Request[H]) (Outcome, Mode, []Grant[H]) {
	had := q.Granted(r.Holder)
	if had == None || r.Shared {
		panic(fmt.Sprintf("queue: convert %v to %v: no lock to convert", r.Holder, r.Mode))
	}
	w := q.waiter(&r)
	w.exact, w.conv = true, true
	out, m := q.enter(&w)
	if out != Granted || m.Covers(had) {
		return out, m, nil
	}
	return out, m, q.advance()
}

// waiter turns a request into what would wait for it.
func (q *Queue[H]) waiter(r *Request[H]) waiter[H] {
	w := waiter[H]{
		holder: r.Holder, mode: r.Mode, flags: r.Flags, shared: r.Shared,
		own: r.Own, ownShared: r.OwnShared, conv: q.hasOwn(r),
	}
	q.mustAsk(&w)
	return w
}

// mustAsk panics if w asks for a mode that nobody can ask for.
func (q *Queue[H]) mustAsk(w *waiter[H]) {
	if !w.mode.Valid() || w.shared && w.mode != CR && w.mode != CW {
		panic(fmt.Sprintf("queue: %v asks for mode %v (an intent: %v)", w.holder, w.mode, w.shared))
	}
}

// hasOwn reports whether the owner of r has a lock of CR or more here.
func (q *Queue[H]) hasOwn(r *Request[H]) bool {
	if r.OwnShared != [2]uint32{} {
		return true
	}
	for _, h := range r.Own {
		if q.Granted(h) >= CR {
			return true
		}
	}
	return false
}

// enter grants w, queues it or refuses it.
func (q *Queue[H]) enter(w *waiter[H]) (Outcome, Mode) {
	if q.find(w.holder) >= 0 {
		panic(fmt.Sprintf("queue: %v asks for %v while it waits", w.holder, w.mode))
	}
	if m := q.now(w); m != None {
		q.grant(w, m)
		return Granted, m
	}
	if w.flags&NoQueue != 0 {
		return Refused, None
	}
	w.own = slices.Clone(w.own)
	q.insert(q.place(w), *w)
	return Waiting, None
}

// Lower gives up part of a granted lock: its mode becomes m, which the present
// mode must cover (else Lower panics); None gives up all of it. A request or
// conversion of the holder that waits goes on waiting. Lower does nothing if
// the holder has no lock here.
func (q *Queue[H]) Lower(h H, m Mode) []Grant[H] {
	i := q.position(h)
	if i < 0 {
		return nil
	}
	had := q.granted[i].mode
	if !had.Covers(m) {
		panic(fmt.Sprintf("queue: lower %v from %v to %v", h, had, m))
	}
	if had == m {
		return nil
	}
	if m == None {
		q.drop(i)
	} else {
		q.setMode(i, m)
	}
	return q.advance()
}

// Release takes the holder out of the queue: its lock, and its waiting request
// or conversion if there is one. It does nothing if it has neither.
func (q *Queue[H]) Release(h H) []Grant[H] {
	i, j := q.position(h), -1
	if q.Waiters() > 0 {
		j = q.find(h)
	}
	if i >= 0 {
		q.drop(i)
	}
	if j >= 0 {
		q.remove(j)
	}
	if q.Waiters() == 0 || i < 0 && j < 0 {
		return nil
	}
	return q.advance()
}

// AddShared counts one more intent (CR or CW) without a look at anything: its
// owner has an intent that covers it already, and reuses it (DESIGN 1.3).
func (q *Queue[H]) AddShared(m Mode) {
	if q.present&conflicts[m] != 0 {
		q.loose |= m.bit()
	}
	q.shared[sharedIndex(m)]++
	q.add(m)
}

// ReleaseShared gives back one intent. It panics if there is none. Where the
// owner of the intent waits here itself, lower its OwnShared with SetOwn first.
func (q *Queue[H]) ReleaseShared(m Mode) []Grant[H] {
	i := sharedIndex(m)
	if q.shared[i] == 0 {
		panic(fmt.Sprintf("queue: release of an intent %v that nobody has", m))
	}
	q.shared[i]--
	if q.shared[i] == 0 {
		q.loose &^= m.bit()
	}
	q.sub(m)
	return q.advance()
}

// sharedIndex returns the position of an intent's mode in a pair of counts.
func sharedIndex(m Mode) int {
	if m != CR && m != CW {
		panic("queue: no intent has mode " + m.String())
	}
	return int(m - CR)
}

// Cancel withdraws the holder's waiting request, conversion or raise, and
// reports whether there was one. What is granted stays.
func (q *Queue[H]) Cancel(h H) ([]Grant[H], bool) {
	j := q.find(h)
	if j < 0 {
		return nil, false
	}
	q.remove(j)
	return q.advance(), true
}

// SetOwn replaces what a waiting request need not mind; it keeps its place. It
// does nothing if the holder does not wait.
func (q *Queue[H]) SetOwn(h H, own []H, shared [2]uint32) []Grant[H] {
	j := q.find(h)
	if j < 0 {
		return nil
	}
	w := &q.waiters()[j]
	q.line.passers -= w.passes()
	w.own, w.ownShared = slices.Clone(own), shared
	q.line.passers += w.passes()
	return q.advance()
}

// Amend changes the mode that a waiting holder asks for. It keeps its place if
// the mode it asked for covers the new one, else it goes to the end of its
// queue. Amend reports whether the holder waited; a grant, to the holder or to
// others, is in the grants.
func (q *Queue[H]) Amend(h H, m Mode) ([]Grant[H], bool) {
	j := q.find(h)
	if j < 0 {
		return nil, false
	}
	w := q.waiters()[j]
	keep := w.mode.Covers(m)
	q.remove(j)
	w.mode = m
	q.mustAsk(&w)
	if !keep {
		j = q.place(&w)
	}
	q.insert(j, w)
	if had := q.had(&w); had.Covers(w.target(had, m)) {
		g := q.grantWaiter(j, had, w.target(had, m))
		return append([]Grant[H]{g}, q.advance()...), true
	}
	return q.advance(), true
}
