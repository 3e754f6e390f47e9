package state

import (
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

func (s *State) setLock(ino uint64, l lock) {
	s.cur.locks.Set(ino, l)
	s.dirty |= partLocks
}

func (s *State) deleteLock(ino uint64) {
	s.cur.locks.Delete(ino)
	s.dirty |= partLocks
}

// lastLockGone ends a file that has no lock any more where files do not outlive their locks.
func (s *State) lastLockGone(ino uint64) {
	n := s.cur.Node(ino)
	if n == nil || n.Dir || n.Parent == 0 || !s.cur.Node(n.Parent).Ephemeral {
		return
	}
	if _, ok := s.cur.ranges.Get(ino); ok {
		return
	}
	if _, ok := s.cur.locks.Get(ino); ok {
		return
	}
	s.destroy(n)
}

// nextRaise returns the number of a grant: greater than all before, and never less than the entry's index.
func (s *State) nextRaise() uint64 {
	s.cur.raises = max(s.cur.raises+1, s.index)
	return s.cur.raises
}

// count changes the number of a session's locks.
func (s *State) count(id uint64, by int) {
	if x := s.session(id); x != nil {
		x.Locks += uint64(by)
	}
}

// granted notes a grant to a session, and tells of it.
func (s *State) granted(ino uint64, c *contention, session uint64, mode queue.Mode, converted bool) {
	raise := s.nextRaise()
	if h := c.hold(session); h != nil {
		h.raise = raise
	} else {
		c.addHold(hold{session: session, raise: raise})
	}
	c.dropWait(session)
	s.emit(Change{Kind: HostGranted, Session: session, Ino: ino, Mode: mode, Raise: raise, Converted: converted})
}

// grants notes what the queue granted to those that waited.
func (s *State) grants(ino uint64, c *contention, gs []queue.Grant[uint64]) {
	for _, g := range gs {
		w := c.wait(g.Holder)
		s.granted(ino, c, g.Holder, g.Mode, w != nil && w.convert)
	}
}

func (s *State) acquire(op *statepb.Acquire, done *Change) {
	if len(op.Comm) > maxComm {
		done.Code = Invalid
		return
	}
	for _, step := range op.Steps {
		done.Ino = step.GetIno()
		done.Wanted = queue.Mode(min(step.GetWant(), 255))
		if done.Code = s.step(step, op, done.Session); done.Code != OK {
			return
		}
	}
}

// step raises one host lock, or lets it wait.
func (s *State) step(op *statepb.Step, of *statepb.Acquire, session uint64) Code {
	if op.GetWant() > uint32(queue.EX) || op.GetKeep() > uint32(queue.EX) {
		return Invalid
	}
	want, keep := queue.Mode(op.Want), queue.Mode(op.Keep)
	if !want.Valid() || !want.Covers(keep) {
		return Invalid
	}
	if s.own(op.Ino, session) == nil {
		return NotFound
	}
	l, ok := s.cur.locks.Get(op.Ino)
	have := l.granted(session)
	if !have.Covers(keep) {
		return NotHolder
	}
	if !l.has(session) && s.session(session).Locks >= s.cur.limits.HostLocks {
		return TooMany
	}
	if !ok || l.more == nil && l.holder == session { // nobody else
		s.raiseNowTo(op.Ino, session, want)
		return OK
	}
	return s.contend(op, session, asked{
		keep: keep, want: want, have: have, flags: queue.Flags(op.Flags), pid: of.Pid, comm: string(of.Comm),
	})
}

// asked is what a step asks for.
type asked struct {
	keep, want, have queue.Mode
	flags            queue.Flags
	pid              uint32
	comm             string
}

// stateFlags are the request flags that mean something between hosts.
const stateFlags = queue.NoQueue | queue.QueCvt | queue.HeadQue | queue.AltPR | queue.AltCW

// contend asks for a lock that others have or want.
func (s *State) contend(op *statepb.Step, session uint64, a asked) Code {
	c := s.contention(op.Ino)
	had := c.has(session)
	try := a.flags&queue.Try != 0
	if w := c.wait(session); w != nil {
		if c.q.Waiting(session) == a.want && w.convert == op.Convert && w.try == try {
			w.pid, w.comm = a.pid, a.comm
			s.lowerTo(op.Ino, c, session, a.have, a.keep) // asked again: it keeps its place
			return s.settled(op.Ino, c, session, had)
		}
		c.dropWait(session)
		gs, _ := c.q.Cancel(session)
		s.grants(op.Ino, c, gs)
	}
	s.lowerTo(op.Ino, c, session, a.have, a.keep)
	r := queue.Request[uint64]{Holder: session, Mode: a.want, Flags: a.flags & stateFlags}
	convert := op.Convert && a.keep != queue.None
	var out queue.Outcome
	var mode queue.Mode
	var gs []queue.Grant[uint64]
	if convert {
		out, mode, gs = c.q.Convert(r)
	} else {
		out, mode = c.q.Request(r)
	}
	switch out {
	case queue.Granted:
		s.granted(op.Ino, c, session, mode, convert)
	case queue.Waiting:
		c.addWait(wait{session: session, since: s.index, try: try, convert: convert, pid: a.pid, comm: a.comm})
		s.lookForAt(op.Ino, session)
		if try && s.hopeless(c, session) {
			c.dropWait(session)
			gs, _ = c.q.Cancel(session)
			out = queue.Refused
		}
	}
	s.grants(op.Ino, c, gs)
	code := s.settled(op.Ino, c, session, had)
	if out == queue.Refused {
		return Busy
	}
	return code
}

// settled stores a contention that a session wrote to, and returns OK or Waiting.
func (s *State) settled(ino uint64, c *contention, session uint64, had bool) Code {
	code := OK
	if c.wait(session) != nil {
		code = Waiting
	}
	if has := c.has(session); has && !had {
		s.count(session, 1)
	} else if had && !has {
		s.count(session, -1)
	}
	s.settle(ino, c)
	return code
}

// hopeless says whether a try would have to wait for more than recalls: for a request ahead that is no try itself and in
// its way, or for the end of a lockdelay.
func (s *State) hopeless(c *contention, session uint64) bool {
	want := c.q.Waiting(session)
	for b := range c.q.Blockers(session) {
		switch {
		case b.Ceiling:
			return true
		case b.Waiting && !queue.Compatible(b.Mode, want) && !c.wait(b.Holder).try:
			return true
		}
	}
	return false
}

// lowerTo lowers a session's lock in a contention.
func (s *State) lowerTo(ino uint64, c *contention, session uint64, have, keep queue.Mode) {
	if have == keep {
		return
	}
	s.emit(Change{Kind: HostLowered, Session: session, Ino: ino, Mode: keep})
	w := c.wait(session)
	if keep != queue.None || w == nil || !w.convert {
		if keep == queue.None {
			c.dropHold(session)
		}
		s.grants(ino, c, c.q.Lower(session, keep))
		return
	}
	// A conversion of a lock that is no more goes on as a new request, behind the others.
	r := queue.Request[uint64]{Holder: session, Mode: c.q.Waiting(session)}
	c.dropHold(session)
	w.convert = false
	s.grants(ino, c, c.q.Release(session))
	if out, mode := c.q.Request(r); out == queue.Granted {
		s.granted(ino, c, session, mode, false)
	}
	s.lookForAt(ino, session)
}

// raisable says whether a session's lock could be raised to cover a mode at once.
func (s *State) raisable(ino, session uint64, mode queue.Mode) bool {
	l, ok := s.cur.locks.Get(ino)
	switch {
	case !ok || l.granted(session).Covers(mode):
		return true
	case l.more == nil:
		return l.holder == session || queue.Compatible(l.mode, mode)
	}
	for range l.more.q.BlockersOf(queue.Request[uint64]{Holder: session, Mode: mode}, false) {
		return false
	}
	return true
}

// raiseNow raises a session's lock to cover a mode, where raisable said that it can be had.
func (s *State) raiseNow(ino, session uint64, mode queue.Mode) {
	l, ok := s.cur.locks.Get(ino)
	have := l.granted(session)
	switch {
	case have.Covers(mode):
	case !ok || l.more == nil && l.holder == session:
		s.raiseNowTo(ino, session, queue.Join(have, mode))
	default:
		c := s.contention(ino)
		had := c.has(session)
		m, ok := c.q.TryGrant(queue.Request[uint64]{Holder: session, Mode: mode})
		if !ok {
			panic("lockfs: state: a lock that was free to raise is not")
		}
		s.granted(ino, c, session, m, false)
		s.settled(ino, c, session, had)
	}
}

// raiseNowTo sets a session's lock where nobody else has or wants any.
func (s *State) raiseNowTo(ino, session uint64, mode queue.Mode) {
	if _, ok := s.cur.locks.Get(ino); !ok {
		s.count(session, 1)
	}
	raise := s.nextRaise()
	s.setLock(ino, lock{holder: session, raise: raise, mode: mode})
	s.emit(Change{Kind: HostGranted, Session: session, Ino: ino, Mode: mode, Raise: raise})
}

func (s *State) release(op *statepb.Release, done *Change) {
	l, _ := s.cur.locks.Get(op.Ino)
	have := l.granted(done.Session)
	done.Ino = op.Ino
	switch keep := queue.Mode(min(op.Keep, 255)); {
	case keep > queue.EX:
		done.Code = Invalid
	case !have.Covers(keep):
		done.Code = NotHolder
	case have == keep:
	case l.more == nil && keep != queue.None:
		l.mode = keep
		s.setLock(op.Ino, l)
		s.emit(Change{Kind: HostLowered, Session: done.Session, Ino: op.Ino, Mode: keep})
	case l.more == nil:
		s.deleteLock(op.Ino)
		s.count(done.Session, -1)
		s.emit(Change{Kind: HostLowered, Session: done.Session, Ino: op.Ino})
		s.lastLockGone(op.Ino)
	default:
		c := s.contention(op.Ino)
		s.lowerTo(op.Ino, c, done.Session, have, keep)
		s.settled(op.Ino, c, done.Session, true)
	}
}

func (s *State) cancel(op *statepb.Cancel, done *Change) {
	done.Ino = op.Ino
	s.withdraw(op.Ino, done.Session)
}

// withdraw takes back a session's wait; what is granted stays.
func (s *State) withdraw(ino, session uint64) {
	l, _ := s.cur.locks.Get(ino)
	if l.more == nil || l.more.wait(session) == nil {
		return
	}
	c := s.contention(ino)
	c.dropWait(session)
	gs, _ := c.q.Cancel(session)
	s.grants(ino, c, gs)
	s.settled(ino, c, session, true)
}
