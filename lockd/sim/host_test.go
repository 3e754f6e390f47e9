package sim

import (
	"time"

	"github.com/lockfs/lockfs/lockd/duty"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
	"github.com/lockfs/lockfs/lockd/table"
)

// host is one host: a simple shell around its table.
type host struct {
	s      *sim
	id     int
	name   string
	ttl    int64   // of its sessions
	rate   float64 // of its clock
	offset int64
	slept  int64        // how long its monotonic clock stood still
	state  *state.State // outlives a crash: the log is on disk
	saved  *state.View  // its last snapshot
	view   *state.View
	life   int // counts restarts: what belongs to an earlier life does nothing

	up       bool
	touched  bool  // something may have changed since the last look
	cut      int64 // its network is cut until then
	deaf     int64 // it applies nothing until then
	paused   int64 // its daemon is stopped until then
	unaware  int64 // it does not hear who leads until then
	frozen   []func()
	catching bool

	follows *host // whom it takes for the leader
	leads   int   // the term that it was elected in, 0: none
	barrier uint64
	tenure  bool
	duty    *duty.Duty
	alarm   int64 // of the duty

	table   *table.Table
	procs   []*proc
	orphans []uint64

	session  uint64
	former   uint64 // a session of its own that is to be ended
	leaseEnd int64  // local time
	nonce    uint64
	first    uint64 // nonce of this life
	sent     int64  // local time at which the session was first asked for, by this nonce
	seq      uint64
	unacked  []*pending
	again    bool // a resend is on its way

	told     []*told // in this session, by id
	lastTold uint64
	answers  map[uint64]answer // to suspicions
}

// pending is a command that was sent and is not answered.
type pending struct {
	cmd  *statepb.Command
	at   int64
	done func(state.Change, bool) // false: the answer is lost
}

// local returns the time as the host's clock shows it.
func (h *host) local() int64 { return h.offset + int64(float64(h.s.now)*h.rate) }

// mono returns the time as its monotonic clock shows it.
func (h *host) mono() int64 { return h.local() - h.slept }

// Parent and Ephemeral make the host the table's Tree.
func (h *host) Parent(ino uint64) (uint64, bool) {
	n := h.view.Node(ino)
	if n == nil {
		return 0, false
	}
	return n.Parent, true
}

func (h *host) Ephemeral(ino uint64) bool {
	n := h.view.Node(ino)
	return n != nil && n.Ephemeral
}

// start begins a life of the host's daemon.
func (h *host) start() {
	s := h.s
	h.life++
	h.up, h.session, h.seq, h.unacked = true, 0, 0, nil
	h.again = false
	h.view = h.state.View()
	h.duty, h.alarm, h.follows = duty.New(), 0, nil
	h.orphans = nil
	h.table = table.New(table.Config{Tree: h, CohortN: s.cfg.cohort, IdleMax: s.cfg.idleMax, IdleFor: 500 * time.Millisecond})
	h.table.Tick(h.local())
	h.catchUpSoon()
	h.first = h.nonce + 1
	h.open()
	h.alive(10*ms, h.tick)
	h.alive(100*ms, h.renew)
	h.alive(200*ms, h.resend)
	h.alive(h.s.cfg.report, h.report)
	h.alive(50*ms, h.examine)
	h.procs = nil
	for range s.cfg.procs {
		s.procs++
		p := &proc{h: h, owner: s.procs}
		h.procs = append(h.procs, p)
		p.stepSoon()
	}
}

// alive does something every d or so, for this life.
func (h *host) alive(d int64, do func()) {
	var again func()
	again = func() {
		do()
		h.after(d/2+h.s.rng.Int64N(d), again)
	}
	h.after(h.s.rng.Int64N(d), again)
}

// open asks for a session, until there is one. A nonce is used for as long as the lease, which counts from its first use,
// would be worth having.
func (h *host) open() {
	h.session, h.unacked = 0, nil
	h.nonce++
	h.sent = h.local()
	nonce := h.nonce
	var ask func()
	ask = func() {
		switch {
		case h.nonce != nonce || h.session != 0:
			return
		case h.local()-h.sent > h.ttl/4:
			h.open()
			return
		}
		if h.former != 0 {
			h.endSession(h.former, statepb.EndReason_RESTART)
		}
		h.control(&statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{
			Host: h.name, Nonce: uint64(h.id)<<32 | nonce, Ttl: h.ttl,
		}}})
		h.after(200*ms, ask)
	}
	ask()
}

// control sends a command that is of no session.
func (h *host) control(cmd *statepb.Command) {
	entry := state.Encode([]*statepb.Command{cmd})
	h.send(func(to *host) { to.receive(entry) })
}

func (h *host) endSession(id uint64, why statepb.EndReason) {
	h.control(&statepb.Command{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{Session: id, Reason: why}}})
}

// tick tells the table the time.
func (h *host) tick() {
	h.table.Tick(h.local())
	if h.session != 0 && !h.table.InSession() {
		h.rejoin()
	}
	h.flush()
}

// onTime tells the table the time if its lease wants to know.
func (h *host) onTime() {
	if h.local() >= h.table.Deadline() {
		h.tick()
	}
}

func (h *host) renew() {
	if h.session == 0 {
		return
	}
	h.duty.Renew(h.mono(), h.session, h.local())
	h.act()
	h.handOver()
}

// lease extends the lease that counts from a local time, as lockd does.
func (h *host) lease(from int64) {
	if end := from + h.ttl - h.ttl/40; end > h.leaseEnd {
		h.leaseEnd = end
		h.table.Renewed(from+h.ttl/2, end)
	}
}

// propose sends a command of the session.
func (h *host) propose(cmd *statepb.Command, done func(state.Change, bool)) {
	h.seq++
	cmd.Session, cmd.Seq, cmd.TimeUnixNs = h.session, h.seq, h.local()
	h.unacked = append(h.unacked, &pending{cmd, h.s.now, done})
}

// transmit sends all commands from one seq on as one entry.
func (h *host) transmit(from uint64) {
	var cmds []*statepb.Command
	for _, p := range h.unacked {
		if p.cmd.Seq >= from {
			cmds = append(cmds, p.cmd)
			p.at = h.s.now
		}
	}
	if len(cmds) > 0 {
		entry := state.Encode(cmds)
		h.send(func(to *host) { to.receive(entry) })
	}
}

// resend sends again what was not answered for long.
func (h *host) resend() {
	if len(h.unacked) > 0 && h.s.now-h.unacked[0].at > 150*ms {
		h.transmit(0)
	}
}

// flush takes what the table says until it has no more to say.
func (h *host) flush() {
	before := h.seq
	h.touched = h.touched || h.table.Pending()
	for h.table.Pending() {
		out := h.table.Take()
		for _, cmd := range out.Proposals {
			h.s.tracef("%s: proposes %v", h.name, cmd)
			h.propose(cmd, nil)
		}
		for _, e := range out.Events {
			h.event(e)
		}
	}
	if h.seq > before {
		h.transmit(before + 1)
	}
}

// event tells a process what happened.
func (h *host) event(e table.Event) {
	if e.Lock == nil {
		h.s.tracef("%s: %v", h.name, e.Kind)
		return
	}
	k := e.Lock.User.(*lock)
	if e.Kind != table.Blocking {
		h.s.tracef("%s: %v: %v %v token %d.%d %v", h.name, k, e.Kind, e.Mode, e.Token>>20, e.Token&(1<<20-1), e.Reason)
	}
	k.event(e)
}
