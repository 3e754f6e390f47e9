package sim

import (
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
	"github.com/lockfs/lockfs/lockd/table"
)

// host is one host: a simple shell around its table.
type host struct {
	s      *sim
	id     int
	name   string
	rate   float64 // of its clock
	offset int64
	state  *state.State // outlives a crash: the log is on disk
	view   *state.View
	life   int // counts restarts: what belongs to an earlier life does nothing

	up       bool
	touched  bool  // something may have changed since the last look
	cut      int64 // its network is cut until then
	catching bool
	table    *table.Table
	procs    []*proc
	orphans  []uint64

	session uint64
	former  uint64 // a session of its own that is to be ended
	nonce   uint64
	sent    int64 // local time at which the session was asked for
	seq     uint64
	unacked []*pending
	again   bool // a resend is on its way
}

// pending is a command that was sent and is not answered.
type pending struct {
	cmd  *statepb.Command
	at   int64
	done func(state.Change, bool) // false: the answer is lost
}

// local returns the time as the host's clock shows it.
func (h *host) local() int64 { return h.offset + int64(float64(h.s.now)*h.rate) }

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
	h.view = h.state.View()
	h.orphans = nil
	h.table = table.New(table.Config{Tree: h, CohortN: s.cfg.cohort, IdleMax: s.cfg.idleMax, IdleFor: 500 * time.Millisecond})
	h.table.Tick(h.local())
	h.catchUpSoon()
	h.open()
	h.alive(10*ms, h.tick)
	h.alive(100*ms, h.renew)
	h.alive(200*ms, h.resend)
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
	life := h.life
	var again func()
	again = func() {
		if h.life != life {
			return
		}
		do()
		h.s.after(d/2+h.s.rng.Int64N(d), again)
	}
	h.s.after(h.s.rng.Int64N(d), again)
}

// crash ends the daemon and all processes of the host; after a while it comes back.
func (h *host) crash() {
	h.s.Crashes++
	h.s.tracef("%s: crash", h.name)
	h.life++
	h.up = false
	if h.session != 0 {
		h.former = h.session
	}
	h.table, h.procs = nil, nil
	h.s.after(h.s.about(second), h.start)
}

// trouble lets a host crash or lose its network at times.
func (h *host) trouble() {
	s := h.s
	rate := s.cfg.crash + s.cfg.cut
	if rate == 0 {
		return
	}
	s.after(s.about(int64(float64(second)/rate)), func() {
		switch {
		case s.draining:
			return
		case !h.up:
		case s.chance(s.cfg.crash / rate):
			h.crash()
		default:
			s.Partitions++
			h.cut = s.now + s.about(ttl)
			s.tracef("%s: cut off for %v", h.name, time.Duration(h.cut-s.now))
		}
		h.trouble()
	})
}

// open asks for a session, until there is one.
func (h *host) open() {
	h.nonce++
	h.session, h.unacked = 0, nil
	h.sent = h.local()
	life, nonce := h.life, h.nonce
	var ask func()
	ask = func() {
		if h.life != life || h.nonce != nonce || h.session != 0 {
			return
		}
		if h.former != 0 {
			former := h.former
			h.s.send(h, func() {
				h.s.leader.receive(state.Encode([]*statepb.Command{{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{
					Session: former, Reason: statepb.EndReason_RESTART,
				}}}}))
			})
		}
		h.s.send(h, func() {
			h.s.leader.receive(state.Encode([]*statepb.Command{{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{
				Host: h.name, Nonce: uint64(h.id)<<32 | nonce,
			}}}}))
		})
		h.s.after(200*ms, ask)
	}
	ask()
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
	r := &statepb.Renewal{Session: h.session, Stamp: h.local()}
	h.s.send(h, func() { h.s.leader.renew(r) })
}

// lease extends the lease that counts from a local time.
func (h *host) lease(from int64) {
	h.table.Renewed(from+ttl/2, from+ttl*98/100)
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
		h.s.send(h, func() { h.s.leader.receive(entry) })
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

// catchUpSoon applies what is new in the log, a little later, or when the network is back.
func (h *host) catchUpSoon() {
	if h.catching {
		return
	}
	h.catching = true
	h.s.after(max(h.cut-h.s.now, 0)+20_000+h.s.about(200_000), func() {
		h.catching = false
		if h.cut > h.s.now {
			h.catchUpSoon()
			return
		}
		h.catchUp()
	})
}

func (h *host) catchUp() {
	s := h.s
	applied := int(h.state.View().Index())
	behind := len(s.log) - applied
	if behind > 50 && s.chance(s.cfg.snapshot) {
		h.restore()
		return
	}
	n := behind
	if behind > 1 && s.chance(0.2) {
		n = 1 + s.rng.IntN(behind) // not all at once
	}
	for i := applied; i < applied+n; i++ {
		changes, err := h.state.Apply(uint64(i+1), s.log[i])
		if err != nil {
			s.failf("%s: apply: %v", h.name, err)
		}
		h.view = h.state.View()
		if h.up {
			h.onTime()
			h.applied(changes)
		}
	}
	if n < behind {
		h.catchUpSoon()
	}
}

// applied hands the changes of an entry on.
func (h *host) applied(changes []state.Change) {
	h.touched = true
	h.s.applied++
	for _, c := range changes {
		switch c.Kind {
		case state.Done:
			if c.Session == h.session {
				h.answered(c)
			}
		case state.Gap:
			if c.Session == h.session && !h.again {
				h.again = true
				life := h.life
				h.s.after(h.s.about(5*ms), func() {
					if h.again = false; h.life == life {
						h.transmit(0)
					}
				})
			}
		case state.SessionOpened:
			if c.Nonce == uint64(h.id)<<32|h.nonce && h.session == 0 {
				h.opened(c.Session)
				continue
			}
		case state.SessionRenewed:
			if c.Session == h.session {
				h.lease(c.Stamp)
			}
		case state.SessionEnded:
			if c.Session == h.former {
				h.former = 0
			}
		case state.Moved:
			h.s.tracef("%s: inode %d moved to %d", h.name, c.Ino, c.NewParent)
		case state.Removed:
			h.s.tracef("%s: inode %d removed, orphan %v", h.name, c.Ino, c.Orphan)
			if c.Orphan && c.Session == h.session {
				h.orphans = append(h.orphans, c.Ino)
			}
		}
		h.table.Applied(c)
		if h.session != 0 && !h.table.InSession() {
			h.rejoin()
		}
	}
	h.flush()
	h.forgetOrphans()
}

// opened begins a session.
func (h *host) opened(id uint64) {
	if _, lives := h.view.Session(id); !lives {
		return
	}
	h.s.tracef("%s: session %d", h.name, id)
	h.session, h.seq = id, 0
	h.table.Session(id, h.view.TokenBase())
	h.lease(h.sent)
}

// rejoin asks for a new session: the old one was lost.
func (h *host) rejoin() {
	h.s.tracef("%s: lost session %d", h.name, h.session)
	h.former = h.session
	for _, p := range h.unacked {
		if p.done != nil {
			p.done(state.Change{}, false)
		}
	}
	h.open()
}

// answered drops a command that was answered.
func (h *host) answered(c state.Change) {
	for len(h.unacked) > 0 && h.unacked[0].cmd.Seq <= c.Seq {
		p := h.unacked[0]
		h.unacked = h.unacked[1:]
		if p.done != nil {
			p.done(c, p.cmd.Seq == c.Seq)
		}
	}
}

// restore catches up by a snapshot.
func (h *host) restore() {
	h.s.Snapshots++
	h.s.tracef("%s: a snapshot", h.name)
	h.state = h.s.leader.snapshot()
	h.view = h.state.View()
	if !h.up {
		return
	}
	h.onTime()
	if h.session == 0 {
		h.table.Restored(h.view)
		for x := range h.view.Sessions() {
			if x.Nonce == uint64(h.id)<<32|h.nonce {
				h.opened(x.ID)
			}
		}
		h.flush()
		return
	}
	x, lives := h.view.Session(h.session)
	if lives {
		for len(h.unacked) > 0 && h.unacked[0].cmd.Seq <= x.Seq {
			p := h.unacked[0]
			h.unacked = h.unacked[1:]
			if p.done != nil {
				p.done(state.Change{}, false)
			}
		}
	}
	h.table.Restored(h.view)
	if !lives {
		h.rejoin()
	} else {
		for ino, session := range h.view.Orphans() {
			if session == h.session {
				h.orphans = append(h.orphans, ino)
			}
		}
	}
	h.flush()
}

// forgetOrphans ends nameless files that nobody here has any more.
func (h *host) forgetOrphans() {
	kept := h.orphans[:0]
	for _, ino := range h.orphans {
		if n := h.view.Node(ino); n == nil || h.session == 0 || n.Orphan != h.session {
			continue
		}
		used := false
		for range h.table.Locks(ino) {
			used = true
		}
		if used {
			kept = append(kept, ino)
			continue
		}
		h.propose(&statepb.Command{Op: &statepb.Command_Forget{Forget: &statepb.Forget{Ino: ino}}}, nil)
		h.transmit(h.seq)
	}
	h.orphans = kept
}
