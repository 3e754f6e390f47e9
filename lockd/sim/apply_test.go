package sim

import (
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// catchUpSoon applies what is new in the log, a little later, or when the network is back.
func (h *host) catchUpSoon() {
	if h.catching || !h.up {
		return
	}
	h.catching = true
	h.after(max(h.cut-h.s.now, h.deaf-h.s.now, 0)+20_000+h.s.about(200_000), func() {
		h.catching = false
		if max(h.cut, h.deaf) > h.s.now {
			h.catchUpSoon()
			return
		}
		h.catchUp()
	})
}

func (h *host) catchUp() {
	s := h.s
	applied := int(h.view.Index())
	behind := len(s.raft.log) - applied
	if behind > 50 && s.raft.leader != h && s.chance(s.cfg.snapshot) {
		h.restore()
		return
	}
	n := behind
	if behind > 1 && s.chance(0.2) {
		n = 1 + s.rng.IntN(behind) // not all at once
	}
	h.applyNext(n)
	if n < behind {
		h.catchUpSoon()
	}
}

// applyNext applies the next n entries.
func (h *host) applyNext(n int) {
	s := h.s
	applied := int(h.view.Index())
	for i := applied; i < applied+n; i++ {
		changes, err := h.state.Apply(uint64(i+1), s.raft.log[i])
		if err != nil {
			s.failf("%s: apply: %v", h.name, err)
		}
		h.view = h.state.View()
		s.raft.same(h, uint64(i+1), changes)
		h.onTime()
		h.duty.Applied(h.mono(), changes)
		h.applied(changes)
		if s.chance(0.01) {
			h.saved = h.view
		}
	}
	h.takeOver()
	h.act()
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
				h.after(h.s.about(5*ms), func() {
					h.again = false
					h.transmit(0)
				})
			}
		case state.SessionOpened:
			if n := c.Nonce - uint64(h.id)<<32; n == h.nonce && h.session == 0 {
				h.opened(c.Session)
				continue
			} else if n >= h.first && n < h.nonce {
				h.endSession(c.Session, statepb.EndReason_LEAVE) // asked for by a nonce that was given up
			}
		case state.SessionRenewed:
			if c.Session == h.session {
				h.lease(c.Stamp)
			}
		case state.SessionEnded:
			if c.Session == h.former {
				h.former = 0
			}
		case state.Deadlocked:
			h.condemned(&c)
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
	h.session, h.seq, h.leaseEnd = id, 0, 0
	h.told, h.answers = nil, nil
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
	h.state = h.s.snapshot(h.s.raft.view)
	h.view = h.state.View()
	h.saved = h.view
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
	for _, x := range h.view.Cycles() {
		k := x.Parties[0].Wait.ReportKey
		h.condemned(&state.Change{Session: k.Session, Owner: k.ID})
	}
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
