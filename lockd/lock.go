package lockd

import (
	"time"

	"github.com/lockfs/lockfs/lockd/queue"
)

// ttl takes a lock away when its time to live is over.
type ttl struct {
	timer *time.Timer
	end   time.Time
}

// Lock asks for a lock and waits until it is granted. It returns
//
//   - nil: granted. An interrupt that came too late is ignored: the caller has the lock.
//   - ErrBusy: NoQueue was set and it cannot be had now.
//   - ErrTimeout, ErrInterrupted: the request is withdrawn.
//   - ErrDeadlock: it waits for its own owner, or is the youngest of a cycle.
//   - ErrNoLocks, ErrDraining, ErrClosed, ErrFlags, state.NotFound: it was not accepted.
//   - ErrLost: l was lost before and not released.
//
// The lock must not be held or waiting.
func (h *Host) Lock(c *Call, l *Lock, r Request) error {
	h.mu.Lock()
	if l.wait != nil || l.unclaimed() != nil {
		h.onTime()
		if w, claimed := h.endLinger(c, l, &r, queue.None); claimed || w != nil {
			h.unlock()
			return h.await(c, l, w, r)
		}
	}
	if err := h.admit(l, &r); err != nil {
		h.mu.Unlock()
		return err
	}
	now := h.onTime()
	l.asked(c, r.Ino)
	if h.table.Try(&l.t, r.Mode, r.Flags) {
		h.counts.Warm++
		l.t.Since = now
		h.granted(l, r.TTL, false)
		h.unlock()
		return nil
	}
	return h.ask(c, l, r, false)
}

// Enqueue asks for a lock and returns at once: with nil if the request is accepted, be it granted or waiting, else with
// the errors of Lock. The Listener is told of the grant (NoticeGranted), or of why there will be none (NoticeFailed).
func (h *Host) Enqueue(c *Call, l *Lock, r Request) error {
	h.mu.Lock()
	h.endLinger(c, l, nil, queue.None)
	if err := h.admit(l, &r); err != nil {
		h.mu.Unlock()
		return err
	}
	now := h.onTime()
	l.asked(c, r.Ino)
	if h.table.Try(&l.t, r.Mode, r.Flags) {
		h.counts.Warm++
		l.t.Since = now
		h.granted(l, r.TTL, false)
		h.tellListener(l, h.lockNotice(NoticeGranted, l))
		h.unlock()
		return nil
	}
	return h.ask(c, l, r, true)
}

// Convert changes the mode of a lock that is held. A mode that the present one covers is given at once. While it
// waits the lock keeps what it has, and after an error too, but for ErrLost. Errors as for Lock.
func (h *Host) Convert(c *Call, l *Lock, mode queue.Mode, flags queue.Flags, wait time.Duration) error {
	return h.ConvertBy(c, l, Request{Mode: mode, Flags: flags, Wait: wait})
}

// ConvertBy is Convert with all that a request can say. Its Ino and TTL are ignored.
func (h *Host) ConvertBy(c *Call, l *Lock, r Request) error {
	h.mu.Lock()
	now := h.onTime()
	r.Ino, r.TTL = l.t.Ino, 0
	if w, claimed := h.endLinger(c, l, &r, l.Mode()); claimed || w != nil {
		h.unlock()
		return h.await(c, l, w, r)
	}
	if err := h.admitConversion(l, &r); err != nil {
		h.unlock()
		return err
	}
	if h.table.TryConvert(&l.t, r.Mode, r.Flags) {
		h.counts.Warm++
		l.t.Since = now
		h.granted(l, 0, true)
		h.unlock()
		return nil
	}
	return h.ask(c, l, r, false)
}

// admitConversion refuses conversions that make no sense.
func (h *Host) admitConversion(l *Lock, r *Request) error {
	switch {
	case h.phase == fresh || h.phase == closed:
		return ErrClosed
	case l.lost.Load():
		return ErrLost
	case !l.t.Held() || l.wait != nil:
		return ErrBusy
	case r.Flags.Check(l.t.Mode, r.Mode) != nil:
		return ErrFlags
	case h.phase == draining && !l.t.Mode.Covers(r.Mode):
		return ErrDraining
	}
	return nil
}

// Release lets go of a lock, or withdraws the request that waits. A lock that was lost becomes no lock, which can be
// locked again. Release never waits.
func (h *Host) Release(l *Lock) {
	h.mu.Lock()
	if h.table.Waiting() > 0 {
		h.onTime() // somebody may be granted it
	}
	h.endLinger(nil, l, nil, queue.None)
	if l.wait != nil {
		h.finish(l, ErrInterrupted)
	}
	if l.t.Held() && h.heard() {
		h.publish(h.lockNotice(NoticeReleased, l))
	}
	h.table.Release(&l.t)
	h.forget(l)
	l.lost.Store(false)
	h.unlock()
}

// Check returns nil if the lock is not lost, by the clock of this very moment: it does not count on anybody having noticed
// the end of the lease. What a caller does with a descriptor goes through Check first.
func (h *Host) Check(l *Lock) error {
	if l.lost.Load() || h.cfg.Now() >= h.leaseEnd.Load() && l.mode.Load() != 0 {
		return ErrLost
	}
	return nil
}

// Fresh returns nil while the host may answer reads without a lock from its own state: until its lease has run out.
// Then it returns ErrNoQuorum.
func (h *Host) Fresh() error {
	if h.cfg.Now() >= h.leaseEnd.Load() {
		return ErrNoQuorum
	}
	return nil
}

// Now returns what time it is by the clock of all this: CLOCK_BOOTTIME.
func (h *Host) Now() time.Duration { return time.Duration(h.cfg.Now()) }

// Stands returns nil while a session is the host's present one and its lease lasts, by the clock of this very moment; then
// ErrLost.
func (h *Host) Stands(session uint64) error {
	if h.Fresh() != nil || h.Session() != session { // in this order: a session does not come back
		return ErrLost
	}
	return nil
}

// LeaseLeft returns how long the host may still act on what it knows, and so how long kernel caches may last.
func (h *Host) LeaseLeft() time.Duration {
	return max(0, time.Duration(h.leaseEnd.Load()-h.cfg.Now()))
}

// asked notes who asks for a lock, and of what.
func (l *Lock) asked(c *Call, ino uint64) {
	l.t.Ino, l.t.PID, l.t.UID, l.tgid = ino, 0, 0, 0
	if c != nil {
		l.t.PID, l.t.UID = c.PID, c.UID
	}
	if l.t.User == nil {
		l.t.User = l
	}
}

// admit refuses new requests.
func (h *Host) admit(l *Lock, r *Request) error {
	switch {
	case r.Flags.Check(queue.None, r.Mode) != nil:
		return ErrFlags
	case l.lost.Load():
		return ErrLost
	case l.t.Held() || l.wait != nil:
		return ErrBusy
	case h.phase == running:
		return nil
	case h.phase == draining:
		return ErrDraining
	}
	return ErrClosed
}

// onTime lets the table know the time, and returns it: nothing is granted by a lease that ran out while this process was
// stopped.
func (h *Host) onTime() int64 {
	now := h.cfg.Now()
	if now >= h.lease.edge {
		h.advance(now)
	}
	h.table.At(now)
	return now
}

// lockNow locks the mutex for somebody who only looks: a lease that ran out is noticed first.
func (h *Host) lockNow() {
	h.mu.Lock()
	h.onTime()
}

// granted notes what the table has granted to a lock.
func (h *Host) granted(l *Lock, expires time.Duration, convert bool) {
	l.mode.Store(uint32(l.t.Mode))
	l.token.Store(l.t.Token)
	if l.extra != nil {
		l.extra.told = nil
	}
	h.counts.Grants++
	h.reports.young.add(l)
	if l.t.Since >= h.brisk {
		h.hurry() // so that it is told of in time
	}
	if expires > 0 {
		h.expireAfter(l, expires)
	}
	if h.heard() {
		kind := NoticeGranted
		if convert {
			kind = NoticeConverted
		}
		h.publish(h.lockNotice(kind, l))
	}
}

// expireAfter arms the time to live.
func (h *Host) expireAfter(l *Lock, d time.Duration) {
	l.disarm()
	t := &ttl{end: h.wall().Add(d)}
	l.extras().ttl = t
	t.timer = time.AfterFunc(d, func() {
		h.mu.Lock()
		if l.ttl() == t && h.phase != closed {
			h.takeAway(l, "its time to live is over")
		}
		h.unlock()
	})
}

func (l *Lock) disarm() {
	if t := l.ttl(); t != nil {
		t.timer.Stop()
		l.extra.ttl = nil
	}
}

// takeAway makes a lock a lost one.
func (h *Host) takeAway(l *Lock, why string) {
	if !l.t.Held() {
		return
	}
	n := h.lockNotice(NoticeLost, l)
	h.table.Release(&l.t)
	h.lose(l, n, why)
}

// lose notes that a lock, which is out of the table, is lost.
func (h *Host) lose(l *Lock, n Notice, why string) {
	if l.wait != nil {
		h.finish(l, ErrLost)
	}
	l.lost.Store(true)
	h.counts.LocksLost++
	h.forget(l)
	n.Reason = why
	h.tellListener(l, n)
	h.publish(n)
}

// forget makes a lock have nothing.
func (h *Host) forget(l *Lock) {
	l.disarm()
	if g := l.unclaimed(); g != nil {
		g.timer.Stop()
	}
	l.extra = nil
	h.reports.young.drop(l)
	if l.report != 0 {
		h.goneReport(l.t.Ino, l.report)
		l.report = 0
	}
	l.mode.Store(0)
	l.token.Store(0)
}
