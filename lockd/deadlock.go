package lockd

import (
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// The state finds cycles of waits in what the hosts tell it, and asks each host of a cycle to confirm its part: that the waits
// and locks are the very same, and that nobody who has one of these locks could still let go of it, since every thread of every
// such process waits here, or in wait(2) for one that does. Where somebody could, the cycle has to stand for
// Config.DeadlockWait. Once all confirm, the state names the victim.
//
// A request that only waits for another descriptor of its own owner is this host's own affair (self.go).

// suspectEvery is how often the processes of a cycle that stands are looked at again.
const suspectEvery = 250 * time.Millisecond

// askedOf starts a goroutine that looks after a suspicion, or has the one that does look now. Called with the mutex held.
func (h *Host) askedOf(id uint64) {
	if again := h.examined[id]; again != nil {
		wake(again)
		return
	}
	x := h.View().Suspicion(id)
	if x == nil || h.phase == closed || !slices.ContainsFunc(x.Links, h.concerns) {
		return
	}
	again := make(chan struct{}, 1)
	h.examined[id] = again
	h.work.Add(1)
	go h.examine(id, again)
}

// concerns reports whether a link of a cycle says something of this host.
func (h *Host) concerns(l state.Link) bool {
	return h.lease.session != 0 && (l.Wait.Session == h.lease.session || l.Key.Session == h.lease.session)
}

// examine confirms a suspicion, round by round, until it is over.
func (h *Host) examine(id uint64, again chan struct{}) {
	defer h.work.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	begin := h.cfg.Now()
	var denied, confirmed uint64 // the last round that was
	for {
		h.mu.Lock()
		x := h.View().Suspicion(id)
		if x == nil || h.phase == closed || !slices.ContainsFunc(x.Links, h.concerns) {
			delete(h.examined, id)
			h.mu.Unlock()
			return
		}
		session := h.lease.session
		part, stands := h.partIn(x)
		h.mu.Unlock()

		if confirmed < x.Round {
			old := h.cfg.DeadlockWait >= 0 && h.cfg.Now()-begin >= int64(h.cfg.DeadlockWait)
			stuck := stands && h.same(part) && (old || !h.cfg.Processes.CanLetGo(part.descs, h.isWaiting))
			h.mu.Lock()
			if stuck {
				_, stuck = h.partIn(x) // still
			}
			switch {
			case h.lease.session != session:
			case stuck:
				confirmed = x.Round
				h.confirm(x, true, false)
			case denied < x.Round:
				denied = x.Round
				h.confirm(x, false, !stands)
			}
			h.unlock()
		}
		timer.Reset(suspectEvery)
		select {
		case <-timer.C:
		case <-again:
		case <-h.stopped:
			return
		}
	}
}

// confirm answers a suspicion. Called with the mutex held.
func (h *Host) confirm(x *state.Suspicion, stuck, wrong bool) {
	h.command(&statepb.Command{Op: &statepb.Command_Confirm{Confirm: &statepb.Confirm{
		Suspicion: x.ID, Round: x.Round, Stuck: stuck, Wrong: wrong,
	}}})
}

// part is this host's part in a cycle: what somebody here would have to let go of.
type part struct {
	descs  []process.Descriptor
	owners []*state.Report // of the locks
}

// partIn returns this host's part in a cycle, and whether all of it still stands. Called with the mutex held.
func (h *Host) partIn(x *state.Suspicion) (p part, stands bool) {
	v := h.View()
	for i := range x.Links {
		l := &x.Links[i]
		if l.Wait.Session == h.lease.session && !h.stillWaits(v, l) {
			return p, false
		}
		if l.Key.Session != h.lease.session {
			continue
		}
		switch l.By {
		case state.ByLock:
			held, _ := h.reported(l.Key)
			r := v.Report(l.Key)
			if held == nil || r == nil || held.t.Mode != r.Mode {
				return p, false
			}
			p.descs = append(p.descs, descriptor(&held.t))
			p.owners = append(p.owners, r)
		case state.ByRange:
			p.descs = append(p.descs, process.Descriptor{Opener: l.PID})
		}
	}
	return p, true
}

// stillWaits reports whether a wait of this host is the one that a link of a cycle tells of, held up as it says.
func (h *Host) stillWaits(v *state.View, l *state.Link) bool {
	_, waits := h.reported(l.Wait)
	r := v.Report(l.Wait)
	switch {
	case waits == nil || r == nil:
		return false
	case waits.lock == nil:
		return !waits.wait.finished // the state has the queues of byte ranges
	}
	w := &waits.lock.t
	if !w.Waits() || w.At() != r.At || w.Wanted != r.Mode {
		return false
	}
	if l.By != state.ByWait {
		return true // two locks that exclude each other do so wherever they are
	}
	if l.Key.Session != h.lease.session {
		_, hosts := h.blockedBy(waits.lock, nil)
		return hosts
	}
	_, other := h.reported(l.Key)
	if other == nil || other.lock == nil {
		return false
	}
	ahead, _ := h.blockedBy(waits.lock, &other.lock.t)
	return ahead
}

// same reports whether the processes that locks were told to be of are still those: numbers of processes are used again.
func (h *Host) same(p part) bool {
	return !slices.ContainsFunc(p.owners, func(r *state.Report) bool {
		info, err := h.cfg.Processes.Look(r.Tgid)
		return r.Tgid != 0 && err == nil && uint64(info.Started) != r.Started
	})
}

// isWaiting reports whether a thread waits in a request to this host.
func (h *Host) isWaiting(tid uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiters[tid] > 0
}

// deadlocked is told of a verdict: the parties here are told, and the victim's wait ends. Called with the mutex held.
func (h *Host) deadlocked(c *state.Change, v *state.View) {
	cycles := v.Cycles()
	i := slices.IndexFunc(cycles, func(x *state.Cycle) bool { return x.ID == c.ID })
	victim := state.ReportKey{Ino: c.Ino, Session: c.Session, ID: c.Owner}
	if i >= 0 {
		h.tellParties(cycles[i], c.Index, v)
	}
	if c.Session == h.lease.session {
		h.condemn(victim)
	}
}

// tellParties tells the locks and waits of this host in a cycle, and the subscribers, of its victim.
func (h *Host) tellParties(x *state.Cycle, index uint64, v *state.View) {
	victim := x.Parties[0]
	n := Notice{
		Kind: NoticeDeadlock, Time: h.wall(), Ino: victim.Wait.Ino, Path: v.Path(victim.Wait.Ino), Index: index,
		By:     Party{Host: victim.Host, PID: victim.Wait.PID, Comm: victim.Wait.Comm},
		Wanted: victim.Wait.Mode, Reason: "victim",
	}
	if victim.Wait.Kind == state.ReportConversion && len(victim.Wait.Holds) > 0 {
		if held := v.Report(victim.Wait.Holds[0]); held != nil {
			n.Mode, n.Token = held.Mode, held.Token
		}
	}
	var told []*Lock
	tell := func(l *Lock, reason string) {
		if l == nil || slices.Contains(told, l) {
			return
		}
		told = append(told, l)
		mine := h.lockNotice(NoticeDeadlock, l)
		mine.By, mine.Wanted, mine.Reason, mine.Index = n.By, n.Wanted, reason, index
		h.tellListener(l, mine)
	}
	for _, p := range x.Parties {
		for _, k := range []state.ReportKey{p.Wait.ReportKey, p.Key.ReportKey} {
			if k.Session != h.lease.session || k.ID == 0 {
				continue
			}
			l, waits := h.reported(k)
			if waits != nil {
				l = waits.lock
			}
			reason := "party"
			if k == victim.Wait.ReportKey {
				reason = n.Reason
			}
			tell(l, reason)
		}
	}
	h.publish(n)
}

// condemn ends a wait of this host, the victim of a deadlock.
func (h *Host) condemn(k state.ReportKey) {
	_, waits := h.reported(k)
	switch {
	case waits == nil:
		return
	case waits.lock != nil:
		h.withdrawLock(waits.lock, waits.lock.wait, ErrDeadlock)
	default:
		waits.wait.finish(ErrDeadlock)
	}
	h.deadlocks++
}

// restoredDeadlocks looks for verdicts and suspicions that a snapshot tells of.
func (h *Host) restoredDeadlocks(v *state.View) {
	for _, x := range v.Cycles() {
		if k := x.Parties[0].Wait.ReportKey; k.Session == h.lease.session && h.lease.session != 0 {
			h.condemn(k)
		}
	}
	for _, x := range v.Suspicions() {
		h.askedOf(x.ID)
	}
}
