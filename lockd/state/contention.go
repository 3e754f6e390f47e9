package state

import (
	"cmp"
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
)

// lock is what sessions have and want of one resource. Most have one holder and nobody who waits, which takes no
// memory but the entry of the tree; else there is a contention. In either form the same lock has one representation only.
type lock struct {
	more   *contention // nil: holder has mode, alone
	holder uint64
	raise  uint64
	mode   queue.Mode
}

// contention is a resource with several holders, with waiting requests, or that is withheld.
type contention struct {
	epoch uint64 // may be written to in this one
	q     queue.Queue[uint64]
	holds []hold // by session
	waits []wait // by session
}

// hold is what the state knows of a granted lock beside its mode.
type hold struct {
	session uint64
	raise   uint64
	recalls [2]recall // the first request held up, and the first try held up
}

// recall is what a holder was told last; zero: nothing stands.
type recall struct {
	by     uint64
	wanted queue.Mode
}

// Indexes of hold.recalls.
const (
	recallWait = iota
	recallTry
)

// wait is what the state knows of a waiting request beside the queue.
type wait struct {
	session uint64
	since   uint64 // index of the entry that asked
	try     bool
	convert bool
	pid     uint32 // the thread that it is for, 0: not known
	comm    string // its name
}

// withheld is the ceiling of a resource during its lockdelay: NL excludes nobody, so it may be had.
const withheld = queue.NL

func newContention(epoch uint64) *contention {
	return &contention{epoch: epoch, q: queue.New[uint64](queue.EX)}
}

func (c *contention) hold(session uint64) *hold {
	i, ok := slices.BinarySearchFunc(c.holds, session, func(h hold, s uint64) int { return cmp.Compare(h.session, s) })
	if !ok {
		return nil
	}
	return &c.holds[i]
}

func (c *contention) wait(session uint64) *wait {
	i, ok := slices.BinarySearchFunc(c.waits, session, func(w wait, s uint64) int { return cmp.Compare(w.session, s) })
	if !ok {
		return nil
	}
	return &c.waits[i]
}

func (c *contention) dropHold(session uint64) {
	c.holds = slices.DeleteFunc(c.holds, func(h hold) bool { return h.session == session })
}

func (c *contention) dropWait(session uint64) {
	c.waits = slices.DeleteFunc(c.waits, func(w wait) bool { return w.session == session })
}

func (c *contention) has(session uint64) bool {
	return c.hold(session) != nil || c.wait(session) != nil
}

func (c *contention) addHold(h hold) {
	i, _ := slices.BinarySearchFunc(c.holds, h.session, func(x hold, s uint64) int { return cmp.Compare(x.session, s) })
	c.holds = slices.Insert(c.holds, i, h)
}

func (c *contention) addWait(w wait) {
	i, _ := slices.BinarySearchFunc(c.waits, w.session, func(x wait, s uint64) int { return cmp.Compare(x.session, s) })
	c.waits = slices.Insert(c.waits, i, w)
}

// granted returns what the session has.
func (l *lock) granted(session uint64) queue.Mode {
	switch {
	case l.more != nil:
		return l.more.q.Granted(session)
	case l.holder == session:
		return l.mode
	}
	return queue.None
}

// has says whether the session has a lock or waits for one.
func (l *lock) has(session uint64) bool {
	if l.more != nil {
		return l.more.has(session)
	}
	return l.mode != queue.None && l.holder == session
}

// contention returns the lock of a resource in its long form, to be written to; settle it afterwards.
func (s *State) contention(ino uint64) *contention {
	l, ok := s.cur.locks.Get(ino)
	switch {
	case !ok:
		return newContention(s.epoch)
	case l.more == nil:
		c := newContention(s.epoch)
		c.q.TryGrant(queue.Request[uint64]{Holder: l.holder, Mode: l.mode})
		c.holds = []hold{{session: l.holder, raise: l.raise}}
		return c
	case l.more.epoch == s.epoch:
		return l.more
	}
	return &contention{
		epoch: s.epoch, q: l.more.q.Clone(), holds: slices.Clone(l.more.holds), waits: slices.Clone(l.more.waits),
	}
}

// settle stores a contention that was written to, tells holders what recalls that leaves them with, and ends an
// ephemeral node that has lost its last lock.
func (s *State) settle(ino uint64, c *contention) {
	s.recallAll(ino, c)
	switch {
	case len(c.waits) == 0 && len(c.holds) == 0 && c.q.Ceiling() == queue.EX:
		s.deleteLock(ino)
		s.lastLockGone(ino)
	case len(c.waits) == 0 && len(c.holds) == 1 && c.q.Ceiling() == queue.EX:
		h := &c.holds[0]
		s.setLock(ino, lock{holder: h.session, raise: h.raise, mode: c.q.Granted(h.session)})
	default:
		s.setLock(ino, lock{more: c})
	}
}
