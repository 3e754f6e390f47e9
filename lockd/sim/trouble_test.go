package sim

import "time"

// trouble lets something happen to a host at times, until everybody is to let go.
func (h *host) trouble() {
	s, c := h.s, &h.s.cfg
	rate := c.crash + c.cut + c.pause + c.deaf
	if rate == 0 {
		return
	}
	s.after(s.about(int64(float64(second)/rate)), func() {
		if s.draining {
			return
		}
		if h.up && s.now >= h.paused {
			h.harm(s.rng.Float64() * rate)
		}
		h.trouble()
	})
}

func (h *host) harm(x float64) {
	c := &h.s.cfg
	for _, t := range []struct {
		rate float64
		do   func()
	}{{c.crash, h.crash}, {c.cut, h.partition}, {c.pause, h.pause}, {c.deaf, h.deafen}} {
		if x -= t.rate; x < 0 {
			t.do()
			return
		}
	}
}

// partition cuts the host's network off for a while.
func (h *host) partition() {
	s := h.s
	s.Partitions++
	h.cut = max(h.cut, s.now+s.about(h.ttl*3/2))
	s.tracef("%s: cut off for %v", h.name, time.Duration(h.cut-s.now))
}

// deafen lets the host apply nothing for a while, though it can still send. Its lease cannot go on.
func (h *host) deafen() {
	s := h.s
	s.Deafened++
	h.deaf = max(h.deaf, s.now+s.about(h.ttl*3/2))
	s.tracef("%s: hears nothing of the log for %v", h.name, time.Duration(h.deaf-s.now))
	session, until := h.session, h.deaf
	if session == 0 || until-s.now < h.ttl*102/100 {
		return
	}
	h.after(h.ttl*102/100, func() {
		if h.deaf < until {
			return // the end of all trouble came first
		}
		if h.onTime(); h.session == session {
			s.failf("%s: session %d goes on, and the host has applied no renewal for %v", h.name, session, time.Duration(h.ttl))
		}
		s.Silent++
	})
}

// pause stops the daemon as SIGSTOP does, or the machine, whose monotonic clock stands still as well. All that comes
// meanwhile happens after it, in any order.
func (h *host) pause() {
	s := h.s
	d := s.about(h.ttl * 3 / 2)
	s.Pauses++
	if s.raft.leader == h {
		s.LeaderPauses++
	}
	suspended := s.chance(0.3)
	from := h.local()
	h.paused = s.now + d
	h.unaware = h.paused + s.about(30*ms) // until it hears whether it still leads
	s.tracef("%s: stopped for %v", h.name, time.Duration(d))
	life := h.life
	s.after(d, func() {
		if h.life != life {
			return
		}
		if suspended {
			h.slept += h.local() - from
		}
		s.tracef("%s: goes on", h.name)
		h.goOn()
	})
}

// goOn does what has waited.
func (h *host) goOn() {
	s := h.s
	h.paused = min(h.paused, s.now)
	list := h.frozen
	h.frozen = nil
	if s.chance(0.5) {
		s.rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	for i, do := range list {
		s.after(int64(i+1)*2_000, do)
	}
}

// heal ends all trouble.
func (h *host) heal() {
	s := h.s
	h.cut, h.deaf, h.unaware = min(h.cut, s.now), min(h.deaf, s.now), min(h.unaware, s.now)
	if h.paused > s.now {
		h.goOn()
	}
	h.catching = false // it may wait for the end of what is over now
	h.catchUpSoon()
}

// crash ends the daemon and all processes of the host; after a while it comes back, with what is on its disk.
func (h *host) crash() {
	s := h.s
	s.Crashes++
	s.tracef("%s: crash", h.name)
	if s.raft.leader == h {
		s.raft.depose()
	}
	h.stepDown()
	h.life++
	h.up, h.catching = false, false
	h.frozen = nil
	h.paused, h.unaware = min(h.paused, s.now), min(h.unaware, s.now)
	if h.session != 0 {
		h.former = h.session
	}
	h.table, h.procs = nil, nil
	if s.chance(s.cfg.memory) { // its log was in memory: it begins from its last snapshot
		s.Forgotten++
		h.state = s.snapshot(h.saved)
	}
	s.after(min(s.about(2*second), 5*second), h.start)
}

// depositions deposes the leader at times, for no reason that can be seen.
func (s *sim) depositions() {
	if s.cfg.depose == 0 {
		return
	}
	s.after(s.about(int64(float64(second)/s.cfg.depose)), func() {
		if s.draining {
			return
		}
		s.raft.depose()
		s.depositions()
	})
}

// after has the host do something after a time, in this life, and not while it is stopped.
func (h *host) after(d int64, do func()) {
	life := h.life
	h.s.after(d, func() { h.run(life, do) })
}

func (h *host) run(life int, do func()) {
	switch {
	case h.life != life:
	case h.s.now < h.paused:
		h.frozen = append(h.frozen, func() { h.run(life, do) })
	default:
		do()
	}
}

// send carries a message to who is taken for the leader: it may be lost, late or come twice.
func (h *host) send(deliver func(to *host)) {
	s, to := h.s, h.follows
	if to == nil || h.cut > s.now {
		return
	}
	if to == h {
		h.after(20_000, func() { deliver(h) })
		return
	}
	if !s.draining && s.chance(s.cfg.drop) {
		return
	}
	life := to.life
	arrive := func() {
		if to.cut <= s.now {
			to.run(life, func() { deliver(to) })
		}
	}
	d := 50_000 + s.about(300_000)
	if !s.draining && s.chance(s.cfg.late) {
		d += s.about(300 * ms)
	}
	s.after(d, arrive)
	if !s.draining && s.chance(s.cfg.twice) {
		s.after(d+s.about(20*ms), arrive)
	}
}
