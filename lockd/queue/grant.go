package queue

import "slices"

// This file holds the rules: what is grantable, and in which order.

// now returns the mode in which w, a request that is being made, can be
// granted at once, or None.
func (q *Queue[H]) now(w *waiter[H]) Mode {
	had := q.had(w)
	if had != None && had.Covers(w.target(had, w.mode)) {
		return w.target(had, w.mode) // gives up, or asks for nothing new
	}
	if q.Waiters() > 0 && !q.mayPass(w, q.ahead(w)) {
		return None
	}
	return q.fit(w, had)
}

// ahead returns those that a request must not overtake when it is made.
func (q *Queue[H]) ahead(w *waiter[H]) []waiter[H] {
	line := q.waiters()
	switch {
	case w.mode == NL:
		return nil
	case !w.conv && w.flags&HeadQue == 0:
		return line
	case !w.conv || w.flags&(QueCvt|HeadQue) == QueCvt:
		return line[:q.conversions()]
	}
	return nil // conversions are granted in place (fs/dlm/lock.c, "DCT")
}

// mayPass reports whether all of those ahead are of w's own owner.
func (q *Queue[H]) mayPass(w *waiter[H], ahead []waiter[H]) bool {
	if len(ahead) > len(w.own) {
		return false
	}
	for i := range ahead {
		if !slices.Contains(w.own, ahead[i].holder) {
			return false
		}
	}
	return true
}

// had returns what the holder of w has granted; an intent counts as nothing.
func (q *Queue[H]) had(w *waiter[H]) Mode {
	if w.shared {
		return None
	}
	return q.Granted(w.holder)
}

// target returns what the holder has if w is granted in mode m.
func (w *waiter[H]) target(had, m Mode) Mode {
	if w.exact {
		return m
	}
	return Join(had, m)
}

// fit returns the first mode, of that asked for and its alternates, that the
// ceiling and the granted locks of others permit, or None.
func (q *Queue[H]) fit(w *waiter[H], had Mode) Mode {
	if m := w.target(had, w.mode); q.permits(w, had, m) {
		return m
	}
	if w.flags&(AltPR|AltCW) == 0 {
		return None
	}
	for _, alt := range w.alternates(had) {
		if alt != None && q.permits(w, had, alt) {
			return alt
		}
	}
	return None
}

// alternates returns the modes to try when the one asked for cannot be had
// (fs/dlm/lock.c, can_be_granted). Unlike Linux it tries both flags in turn,
// and never a mode that gives up part of what the holder has.
func (w *waiter[H]) alternates(had Mode) (alt [2]Mode) {
	if w.flags&AltPR != 0 && w.mode != PR && !w.shared {
		alt[0] = w.target(had, PR)
	}
	if w.flags&AltCW != 0 && w.mode != CW && !w.shared {
		alt[1] = w.target(had, CW)
	}
	for i, m := range alt {
		if !m.Covers(had) {
			alt[i] = None
		}
	}
	return alt
}

// permits reports whether the ceiling covers m, and m is compatible with all
// that is granted, w's own entries aside. It looks at counts: its cost does not
// depend on the number of holders.
func (q *Queue[H]) permits(w *waiter[H], had, m Mode) bool {
	if !q.ceiling.Covers(m) {
		return false
	}
	bad := q.present & conflicts[m]
	if bad == 0 {
		return true
	}
	var n uint32
	for x := CR; x <= EX; x++ {
		if bad&x.bit() != 0 {
			n += q.count[x]
		}
	}
	return n == q.exempt(w, had, bad)
}

// exempt returns how many of the granted locks and intents in these modes are
// no obstacle to w: its own lock, and its owner's.
func (q *Queue[H]) exempt(w *waiter[H], had Mode, bad modeSet) (n uint32) {
	if had.bit()&bad != 0 && had != None {
		n++
	}
	for i, c := range w.ownShared {
		if bad&(CR+Mode(i)).bit() != 0 {
			n += min(c, q.shared[i])
		}
	}
	for _, h := range w.own {
		if m := q.Granted(h); m != None && bad&m.bit() != 0 {
			n++
		}
	}
	return n
}

// grant makes w hold m.
func (q *Queue[H]) grant(w *waiter[H], m Mode) {
	if w.shared {
		q.AddShared(m)
		return
	}
	i := q.position(w.holder)
	if i < 0 {
		i = len(q.granted)
		own := q.present&conflicts[m] != 0
		q.granted = append(q.granted, held[H]{holder: w.holder, mode: m, own: own, flags: w.flags})
		q.indexed(i)
		q.add(m)
		return
	}
	q.setMode(i, m)
	q.granted[i].flags = w.flags
	if bad := conflicts[m]; q.present&bad&^m.bit() != 0 || bad&m.bit() != 0 && q.count[m] > 1 {
		q.granted[i].own = true
	}
}

// advance grants what can be granted, in order: the conversions, and the new
// requests when no conversion waits. Those that wait are passed only by their
// own owner's requests, and by NL once the ceiling admits it.
func (q *Queue[H]) advance() (grants []Grant[H]) {
	if q.Waiters() == 0 || q.ceiling == None {
		return nil
	}
	for i := 0; i < q.Waiters(); {
		w := &q.waiters()[i]
		had, m := q.had(w), None
		if i == 0 || w.mode == NL || q.mayPass(w, q.waiters()[:i]) {
			m = q.fit(w, had)
		}
		if m == None {
			if q.line.passers == 0 {
				break
			}
			i++
			continue
		}
		grants = append(grants, q.grantWaiter(i, had, m))
		if !m.Covers(had) {
			i = 0 // PR to CW or back makes room, too: the first may fit now
		}
	}
	return grants
}

// grantWaiter makes the waiter at place i, who had a lock or None, hold m.
func (q *Queue[H]) grantWaiter(i int, had, m Mode) Grant[H] {
	w := q.waiters()[i]
	q.remove(i)
	q.grant(&w, m)
	return Grant[H]{Holder: w.holder, Mode: m, Shared: w.shared, Converted: had != None}
}
