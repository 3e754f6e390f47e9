// Package duty is what the leader does for the sessions of all hosts (DESIGN 3.2): it gathers their renewals into one
// entry, and ends a session that was not renewed in its time.
//
//	renewals of all hosts ── Renew ──►┌──────┐──► Due    commands to propose: one Renew, some EndSession
//	what was applied ────── Applied ──►│ Duty │──► Next   when Due has something to say
//	tenures ──────── Lead, Follow ────►└──────┘──► HandOver   renewals, for the host that leads
//
// It is pure: time is what the caller says it is. Package cluster gives it a clock and timers, lockd/sim a simulated one.
//
// # Whose time
//
// A session is timed from applying its opening or renewal on the leader, so after the host sent it, and a new leader
// times every session afresh from its barrier. The host's lease counts from when it sent the renewal that it has itself
// applied, and is shorter than the session by more than two clocks may differ. So whoever leads, or thinks so, a lease is
// over before its session is. An end names the last renewal that the leader knew of, and does nothing if a later one was
// applied: one that a former leader proposed, and that comes late, is harmless.
//
// All times are ns of one clock of the leader's own that is never set; it may stand still while the machine sleeps: then
// sessions end late, never early.
package duty

import (
	"maps"
	"math"
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Parts of a session's time to live.
const (
	tenth     = 10  // between two entries of renewals, and until an end that was proposed and not applied is proposed again
	hundredth = 100 // the first renewal waits so long for others
)

// Duty is one host's. It is not safe for use by several goroutines.
type Duty struct {
	leading  bool
	sessions map[uint64]session // while leading
	pending  map[uint64]int64   // session to stamp: renewals not proposed yet
	first    int64              // when the first of them came
	gathered int64              // when the last renewals were proposed
}

// session is when a session ends unless it is renewed, and the entry that last renewed it.
type session struct {
	ends    int64
	renewed uint64
	ttl     time.Duration
	host    string
}

// Expiry is a session that Due ends.
type Expiry struct {
	Session uint64
	Host    string
	TTL     time.Duration
}

// New returns the duty of a host that does not lead.
func New() *Duty {
	return &Duty{sessions: map[uint64]session{}, pending: map[uint64]int64{}, gathered: math.MinInt64 / 2}
}

// Lead begins a tenure, at its barrier: view has all that former leaders' entries did. Every session has all its time again.
// On a host that leads already it does just that, for a state that was replaced.
func (d *Duty) Lead(now int64, view *state.View) {
	d.leading = true
	clear(d.sessions)
	for s := range view.Sessions() {
		d.sessions[s.ID] = session{ends: now + int64(s.TTL), renewed: s.Renewed, ttl: s.TTL, host: s.Host}
	}
}

// Follow ends a tenure. Renewals are kept, to be handed over.
func (d *Duty) Follow() {
	d.leading = false
	clear(d.sessions)
}

// Leading reports whether this is a tenure.
func (d *Duty) Leading() bool { return d.leading }

// Applied sees what was applied, in order.
func (d *Duty) Applied(now int64, changes []state.Change) {
	if !d.leading {
		return
	}
	for i := range changes {
		switch c := &changes[i]; c.Kind {
		case state.SessionOpened:
			if c.Code == state.OK {
				d.sessions[c.Session] = session{ends: now + int64(c.TTL), renewed: c.Index, ttl: c.TTL, host: c.Host}
			}
		case state.SessionRenewed:
			if s, ok := d.sessions[c.Session]; ok {
				s.ends, s.renewed = now+int64(s.ttl), c.Index
				d.sessions[c.Session] = s
			}
		case state.SessionEnded:
			delete(d.sessions, c.Session)
		}
	}
}

// Renew takes a host's renewal, sent when its own clock showed stamp; of one session's the newest counts.
func (d *Duty) Renew(now int64, session uint64, stamp int64) {
	if len(d.pending) == 0 {
		d.first = now
	}
	if old, there := d.pending[session]; !there || stamp > old {
		d.pending[session] = stamp
	}
}

// HandOver returns the renewals that are for another host to gather, stamps by session: this one does not lead.
func (d *Duty) HandOver() map[uint64]int64 {
	if d.leading || len(d.pending) == 0 {
		return nil
	}
	all := d.pending
	d.pending = map[uint64]int64{}
	return all
}

// Next returns when Due will have something to say, unless something happens before. False: never.
func (d *Duty) Next() (at int64, ok bool) {
	if !d.leading {
		return 0, false
	}
	at = math.MaxInt64
	for _, s := range d.sessions {
		at = min(at, s.ends)
	}
	if len(d.pending) > 0 {
		at = min(at, d.gather())
	}
	return at, at != math.MaxInt64
}

// gather returns when the renewals that are there are to be proposed: a hundredth of the shortest time to live among them after
// the first of them came, and a tenth after the last that were proposed.
func (d *Duty) gather() int64 {
	most := state.MaxTTL
	for id := range d.pending {
		if s, ok := d.sessions[id]; ok {
			most = min(most, s.ttl)
		}
	}
	return max(d.first+int64(most)/hundredth, d.gathered+int64(most)/tenth)
}

// Due returns what is to be proposed now, in one entry, and which sessions that ends. wall is the time of day in ns, for
// the commands.
func (d *Duty) Due(now, wall int64) (cmds []*statepb.Command, ended []Expiry) {
	if !d.leading {
		return nil, nil
	}
	if len(d.pending) > 0 && now >= d.gather() {
		cmds = append(cmds, d.renew(wall))
		d.gathered = now
	}
	for _, id := range slices.Sorted(maps.Keys(d.sessions)) {
		s := d.sessions[id]
		if now < s.ends {
			continue
		}
		cmds = append(cmds, &statepb.Command{TimeUnixNs: wall, Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{
			Session: id, RenewedIndex: s.renewed, Reason: statepb.EndReason_EXPIRED,
		}}})
		ended = append(ended, Expiry{Session: id, Host: s.host, TTL: s.ttl})
		s.ends = now + int64(s.ttl)/tenth // and again, if that comes to nothing
		d.sessions[id] = s
	}
	return cmds, ended
}

// renew returns the command that renews all that is there.
func (d *Duty) renew(wall int64) *statepb.Command {
	list := make([]*statepb.Renewal, 0, len(d.pending))
	for _, id := range slices.Sorted(maps.Keys(d.pending)) {
		list = append(list, &statepb.Renewal{Session: id, Stamp: d.pending[id]})
	}
	clear(d.pending)
	return &statepb.Command{TimeUnixNs: wall, Op: &statepb.Command_Renew{Renew: &statepb.Renew{Renewals: list}}}
}
