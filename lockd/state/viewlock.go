package state

import (
	"iter"

	"github.com/lockfs/lockfs/lockd/queue"
)

// HostLock is what one session has and wants of one resource.
type HostLock struct {
	Ino     uint64
	Session uint64
	Mode    queue.Mode // held, or None
	Wanted  queue.Mode // waited for, or None
	Raise   uint64     // number of the last grant, without the token base; 0 if nothing is held
	Since   uint64     // index of the entry that asked for Wanted
	Place   int        // among those that wait, from 1; 0 if it does not
	Convert bool       // waits in the conversion queue
	Try     bool       // waits for the answer to recalls only
}

// Token returns the token of the grant, with a count of 0, under a token base.
func (h *HostLock) Token(base uint64) uint64 { return (base + h.Raise) << 20 }

// HostLock returns the mode that a session has of a resource, or None.
func (v *View) HostLock(ino, session uint64) queue.Mode {
	l, ok := v.locks.Get(ino)
	if !ok {
		return queue.None
	}
	return l.granted(session)
}

// HostWait returns the mode that a session waits for, or None.
func (v *View) HostWait(ino, session uint64) queue.Mode {
	l, _ := v.locks.Get(ino)
	if l.more == nil {
		return queue.None
	}
	return l.more.q.Waiting(session)
}

// HostWaitSince returns the index of the entry by which a session asked for what it waits for, 0 if it does not wait.
func (v *View) HostWaitSince(ino, session uint64) uint64 {
	l, _ := v.locks.Get(ino)
	if l.more == nil {
		return 0
	}
	w := l.more.wait(session)
	if w == nil {
		return 0
	}
	return w.since
}

// Withheld says whether the lock is withheld for a lockdelay.
func (v *View) Withheld(ino uint64) bool {
	l, _ := v.locks.Get(ino)
	return l.more != nil && l.more.q.Ceiling() != queue.EX
}

// HostLocks returns what sessions have and want of one resource: holders by session, then those that only wait, in order.
func (v *View) HostLocks(ino uint64) iter.Seq[HostLock] {
	return func(yield func(HostLock) bool) {
		if l, ok := v.locks.Get(ino); ok {
			l.each(ino, yield)
		}
	}
}

// AllHostLocks returns what sessions have and want, by inode number.
func (v *View) AllHostLocks() iter.Seq[HostLock] {
	return func(yield func(HostLock) bool) {
		v.locks.Scan(func(ino uint64, l lock) bool { return l.each(ino, yield) })
	}
}

// Recalls returns what a holder was told last: the first request that its lock holds up and the first try, as Recall
// changes. A host that is restored from a snapshot begins with these.
func (v *View) Recalls(ino, session uint64) iter.Seq[Change] {
	return func(yield func(Change) bool) {
		l, _ := v.locks.Get(ino)
		if l.more == nil {
			return
		}
		h := l.more.hold(session)
		if h == nil {
			return
		}
		for k, r := range h.recalls {
			if r.by == 0 {
				continue
			}
			c := l.more.recalled(ino, session, k, r)
			c.Index = v.index
			if !yield(c) {
				return
			}
		}
	}
}

// each yields the entries of a lock, and reports whether to go on.
func (l *lock) each(ino uint64, yield func(HostLock) bool) bool {
	c := l.more
	if c == nil {
		return yield(HostLock{Ino: ino, Session: l.holder, Mode: l.mode, Raise: l.raise})
	}
	for i := range c.holds {
		h := &c.holds[i]
		x := HostLock{Ino: ino, Session: h.session, Mode: c.q.Granted(h.session), Raise: h.raise}
		if c.wait(h.session) != nil {
			for e := range c.q.Line() {
				if e.Holder == h.session {
					x.waits(c, e)
				}
			}
		}
		if !yield(x) {
			return false
		}
	}
	for e := range c.q.Line() {
		if c.hold(e.Holder) != nil {
			continue
		}
		x := HostLock{Ino: ino, Session: e.Holder}
		x.waits(c, e)
		if !yield(x) {
			return false
		}
	}
	return true
}

func (x *HostLock) waits(c *contention, e queue.Entry[uint64]) {
	w := c.wait(x.Session)
	x.Wanted, x.Place, x.Since, x.Convert, x.Try = e.Wanted, e.Place, w.since, w.convert, w.try
}
