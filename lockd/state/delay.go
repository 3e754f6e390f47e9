package state

import (
	"cmp"
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
)

// delay is a resource that is withheld since a holder's session ended. It runs on the leader's clock, as renewals tell it,
// from the first renewal after the end: never too short, at most the interval between renewals too long.
type delay struct {
	ino   uint64
	left  int64 // ns, the node's lockdelay
	until int64 // of the leader's clock; 0: not known yet
}

// dropLocks ends all that a session has and wants.
func (s *State) dropLocks(session uint64, reason Reason) {
	var inos []uint64
	s.cur.locks.Scan(func(ino uint64, l lock) bool {
		if l.has(session) {
			inos = append(inos, ino)
		}
		return true
	})
	for _, ino := range inos {
		s.dropLock(ino, session, reason)
	}
}

func (s *State) dropLock(ino, session uint64, reason Reason) {
	l, _ := s.cur.locks.Get(ino)
	n := s.cur.Node(ino)
	mode := l.granted(session)
	if mode.Writes() && reason != Leave {
		s.spoil(ino, session)
	}
	c := s.contention(ino)
	if d := n.LockDelay(); d > 0 && reason != Leave && mode > queue.NL {
		s.withhold(ino, session, int64(d))
		c.q.SetCeiling(withheld)
	}
	c.dropHold(session)
	c.dropWait(session)
	s.grants(ino, c, c.q.Release(session))
	s.settle(ino, c)
}

func (s *State) withhold(ino, session uint64, d int64) {
	i, there := s.cur.findDelay(ino)
	if !there {
		s.cur.delays = slices.Insert(slices.Clone(s.cur.delays), i, delay{ino: ino})
		s.emit(Change{Kind: Delayed, Ino: ino, Session: session})
	} else {
		s.cur.delays = slices.Clone(s.cur.delays)
	}
	s.cur.delays[i] = delay{ino: ino, left: d}
	s.dirty |= partRest
}

func (v *View) findDelay(ino uint64) (int, bool) {
	return slices.BinarySearchFunc(v.delays, ino, func(d delay, ino uint64) int { return cmp.Compare(d.ino, ino) })
}

// tick lets delays run out. A clock of 0 is none.
func (s *State) tick(now int64) {
	if now == 0 || len(s.cur.delays) == 0 {
		return
	}
	var over []uint64
	rest := make([]delay, 0, len(s.cur.delays))
	for _, d := range s.cur.delays {
		switch {
		case d.until == 0 || d.until-now > d.left: // the first renewal, or a leader whose clock is behind
			rest = append(rest, delay{ino: d.ino, left: d.left, until: now + d.left})
		case now < d.until:
			rest = append(rest, d)
		default:
			over = append(over, d.ino)
		}
	}
	s.cur.delays = rest
	s.dirty |= partRest
	s.unwithhold(over)
}

// unwithhold grants what waits for resources that are withheld no longer.
func (s *State) unwithhold(inos []uint64) {
	for _, ino := range inos {
		s.emit(Change{Kind: DelayOver, Ino: ino})
		c := s.contention(ino)
		s.grants(ino, c, c.q.SetCeiling(queue.EX))
		s.settle(ino, c)
	}
}

// forgetLocks ends the locks of a node that is gone.
func (s *State) forgetLocks(ino uint64) {
	s.forgetReports(ino)
	l, ok := s.cur.locks.Get(ino)
	if !ok {
		return
	}
	s.deleteLock(ino)
	if l.more == nil {
		s.count(l.holder, -1)
		return
	}
	for i := range l.more.holds {
		s.count(l.more.holds[i].session, -1)
	}
	for i := range l.more.waits {
		if l.more.hold(l.more.waits[i].session) == nil {
			s.count(l.more.waits[i].session, -1)
		}
	}
	if i, there := s.cur.findDelay(ino); there {
		s.cur.delays = slices.Delete(slices.Clone(s.cur.delays), i, i+1)
		s.dirty |= partRest
	}
}
