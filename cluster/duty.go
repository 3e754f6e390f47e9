package cluster

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// duty is what the leader does for the sessions of all hosts (DESIGN 3.2): it gathers their renewals into one entry, at
// most every TTL/10, and ends a session that was not renewed for a TTL. It times a session from applying its
// renewal, so after the host sent it; a new leader starts every session afresh at its barrier. The times are
// kept on every host, as they come by in the log, but only the leader acts on them.
//
// Times are of CLOCK_MONOTONIC, which stands still while the machine sleeps: a leader that slept ends sessions late,
// never early.
type duty struct {
	ttl     time.Duration
	log     *slog.Logger
	propose func(cmds []*statepb.Command)
	kick    func() // nil, or told that there is something to hand over

	mu       sync.Mutex
	leading  bool
	sessions map[uint64]sessionTime
	expiry   *time.Timer      // while leading and there are sessions
	pending  map[uint64]int64 // session to stamp: renewals not proposed yet
	flushed  time.Time        // when the last renewals were proposed
	flush    *time.Timer      // armed while something is pending
	stopped  bool
}

// sessionTime is when a session ends unless it is renewed, and the entry that last renewed it.
type sessionTime struct {
	ends    time.Time
	renewed uint64
	host    string
}

// retryAfter is a part of the TTL: an end that was proposed and not applied is proposed again after it.
const retryAfter = 10

func newDuty(ttl time.Duration, log *slog.Logger, propose func([]*statepb.Command)) *duty {
	return &duty{
		ttl: ttl, log: log, propose: propose,
		sessions: map[uint64]sessionTime{}, pending: map[uint64]int64{},
	}
}

// watch sees what was applied. Called by the applying goroutine.
func (d *duty) watch(changes []state.Change) {
	for _, c := range changes {
		switch c.Kind {
		case state.SessionOpened, state.SessionRenewed:
			d.renewed(c)
		case state.SessionEnded:
			d.mu.Lock()
			delete(d.sessions, c.Session)
			d.mu.Unlock()
		}
	}
}

func (d *duty) renewed(c state.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.sessions[c.Session]
	t.ends, t.renewed = time.Now().Add(d.ttl), c.Index
	if c.Kind == state.SessionOpened {
		t.host = c.Host
	}
	d.sessions[c.Session] = t
	if d.expiry == nil {
		d.arm()
	}
}

// lead makes this host the leader or not. At the leader's barrier all sessions start afresh.
func (d *duty) lead(leading bool, view *state.View) {
	d.mu.Lock()
	d.leading = leading
	d.mu.Unlock()
	d.restart(view)
	if leading {
		d.gather()
	}
}

// restart gives every session a whole TTL from now.
func (d *duty) restart(view *state.View) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.sessions)
	ends := time.Now().Add(d.ttl)
	for s := range view.Sessions() {
		d.sessions[s.ID] = sessionTime{ends: ends, renewed: s.Renewed, host: s.Host}
	}
	d.arm()
}

// arm sets the timer to the first session's end. d.mu is held.
func (d *duty) arm() {
	if d.expiry != nil {
		d.expiry.Stop()
		d.expiry = nil
	}
	if !d.leading || d.stopped || len(d.sessions) == 0 {
		return
	}
	var first time.Time
	for _, t := range d.sessions {
		if first.IsZero() || t.ends.Before(first) {
			first = t.ends
		}
	}
	d.expiry = time.AfterFunc(time.Until(first), d.expire)
}

// expire ends the sessions whose time is over.
func (d *duty) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.leading || d.stopped {
		return
	}
	now := time.Now()
	var cmds []*statepb.Command
	for _, id := range slices.Sorted(maps.Keys(d.sessions)) {
		t := d.sessions[id]
		if t.ends.After(now) {
			continue
		}
		d.log.Warn("a host did not renew its session in time: its session ends, and its locks with it",
			"host", t.host, "session", id, "ttl", d.ttl)
		cmds = append(cmds, endSession(id, t.renewed, statepb.EndReason_EXPIRED))
		t.ends = now.Add(d.ttl / retryAfter)
		d.sessions[id] = t
	}
	d.arm()
	if len(cmds) > 0 {
		d.propose(cmds)
	}
}

func endSession(id, renewed uint64, reason statepb.EndReason) *statepb.Command {
	return &statepb.Command{
		TimeUnixNs: time.Now().UnixNano(),
		Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{
			Session: id, RenewedIndex: renewed, Reason: reason,
		}},
	}
}

// renew takes a host's renewal into the next entry; the newest stamp of a session counts.
func (d *duty) renew(session uint64, stamp int64) {
	d.mu.Lock()
	d.pending[session] = stamp
	idle := d.flush == nil && d.leading && !d.stopped
	if idle {
		if wait := d.ttl/10 - time.Since(d.flushed); wait > 0 {
			d.flush = time.AfterFunc(wait, d.gather)
			idle = false
		}
	}
	elsewhere := !d.leading
	d.mu.Unlock()
	switch {
	case idle:
		d.gather()
	case elsewhere && d.kick != nil:
		d.kick()
	}
}

// handOver returns the renewals that are for another host to gather, stamps by session: this one does not lead.
func (d *duty) handOver() map[uint64]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leading || len(d.pending) == 0 {
		return nil
	}
	all := d.pending
	d.pending = map[uint64]int64{}
	return all
}

// gather proposes the renewals that are there.
func (d *duty) gather() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flush = nil
	if len(d.pending) == 0 || !d.leading || d.stopped {
		return
	}
	renewals := make([]*statepb.Renewal, 0, len(d.pending))
	for _, session := range slices.Sorted(maps.Keys(d.pending)) {
		renewals = append(renewals, &statepb.Renewal{Session: session, Stamp: d.pending[session]})
	}
	clear(d.pending)
	d.flushed = time.Now()
	d.propose([]*statepb.Command{{
		TimeUnixNs: d.flushed.UnixNano(),
		Op:         &statepb.Command_Renew{Renew: &statepb.Renew{Renewals: renewals}},
	}})
}

// stop ends the timers.
func (d *duty) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	if d.flush != nil {
		d.flush.Stop()
	}
	d.arm()
}
