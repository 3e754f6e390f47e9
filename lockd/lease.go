package lockd

import (
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// How a session's time to live is divided (DESIGN 3.2).
const (
	renewals   = 5  // renewals in one time to live
	retries    = 10 // a renewal that was not applied is repeated so often in one time to live
	marginPart = 40 // the lease ends this part of it earlier than the cluster's session: 2.5%
)

// The periods of the ticker: while something here counts in milliseconds (cohorts, tries), and at most.
const (
	briskTick = 25 * time.Millisecond
	briskFor  = 2 * time.Second
	maxTick   = 2 * time.Second
	reopen    = 200 * time.Millisecond // between two attempts to open a session
)

// lease is the session and how long this host may act under it.
type lease struct {
	session  uint64
	start    int64 // when the last renewal that was applied here was sent
	halfway  int64 // jeopardy from then on
	end      int64
	edge     int64 // the next of the two: what a request has to look at
	jeopardy bool

	renewed int64 // when a renewal was last sent
	due     int64 // when the next is to be sent
	step    int64 // when one is due once that which was sent is applied; 0: an interval after that
}

// opening is the attempt to open a session.
type opening struct {
	nonce uint64 // 0: no attempt
	stamp int64  // when it was first sent: the lease counts from there
	sent  int64
	end   uint64          // the former session, to be ended first
	stale map[uint64]bool // nonces given up or used: other sessions that come by them are ended

	attempts uint64 // given up
}

// maxStale bounds the nonces that are remembered; what is forgotten expires.
const maxStale = 256

// probes are asked before each renewal whether their part of the daemon answers.
type probes struct {
	mu   sync.Mutex
	list []*func() bool
}

// AddProbe adds a question that is put at every tick: has your part of the daemon (a FUSE loop) made progress since
// the last one? While any answers no the session is not renewed. It must return at once. The returned function
// takes it away.
func (h *Host) AddProbe(alive func() bool) (remove func()) {
	p := &h.probes
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list = append(slices.Clone(p.list), &alive)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.list = slices.DeleteFunc(slices.Clone(p.list), func(x *func() bool) bool { return x == &alive })
	}
}

// answer reports whether all answer yes.
func (p *probes) answer() bool {
	p.mu.Lock()
	list := p.list
	p.mu.Unlock()
	alive := true
	for _, f := range list {
		alive = (*f)() && alive
	}
	return alive
}

// Silent returns for how long not all of the daemon has answered: its FUSE loops, asked by the ticker, and the ticker itself. It
// takes no lock, so that it answers whatever hangs. 0 before Start.
func (h *Host) Silent() time.Duration {
	answered := h.answered.Load()
	if answered == 0 {
		return 0
	}
	return max(0, time.Duration(h.cfg.Now()-answered))
}

// tick is the goroutine that lets the table know the time and keeps the session renewed.
func (h *Host) tick() {
	defer h.work.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-h.stopped:
			return
		case <-h.prod:
		case <-timer.C:
		}
		alive := h.probes.answer()
		now := h.cfg.Now()
		if alive {
			h.answered.Store(now)
		}
		h.mu.Lock()
		h.advance(now)
		session := h.renewal(now, alive)
		if h.lease.session == 0 && h.phase != closed && !h.leaving && now-h.opening.sent >= int64(reopen) {
			h.openSession()
		}
		period := h.period(now)
		tell := h.reports.due(now)
		h.unlock()
		if tell {
			wake(h.tellKick)
		}
		if session != 0 {
			h.cfg.Log.Renew(session, now)
		}
		timer.Reset(period)
	}
}

// period returns when to tick next: at the latest when the lease comes to its middle or end.
func (h *Host) period(now int64) time.Duration {
	period := maxTick
	if h.lease.session == 0 || now < h.brisk || h.reports.pending() {
		period = min(period, briskTick)
	}
	if h.reports.told.first != nil {
		period = min(period, followTick)
	}
	if h.lease.session != 0 {
		period = min(period, time.Duration(h.lease.edge-now))
		if left := time.Duration(h.lease.due - now); left > 0 {
			period = min(period, left)
		} else { // something here does not answer
			period = min(period, briskTick)
		}
	}
	return max(period, time.Millisecond)
}

// hurry makes the ticker tick often for a while.
func (h *Host) hurry() {
	now := h.cfg.Now()
	h.prodded = h.prodded || now >= h.brisk
	h.brisk = now + int64(briskFor)
}

// advance lets the table know the time; a lease that is over ends the session.
func (h *Host) advance(now int64) {
	if h.lease.session != 0 && now >= h.lease.end {
		h.loseSession("the session was not renewed in time")
	}
	h.table.Tick(now)
	h.lease.setEdge(now)
}

// setEdge finds what requests have to look at next.
func (l *lease) setEdge(now int64) {
	switch {
	case l.session == 0:
		l.edge = math.MaxInt64
	case now < l.halfway:
		l.edge = l.halfway
	default:
		l.edge = l.end
	}
}

// renewal returns the session to be renewed now, 0 for none.
func (h *Host) renewal(now int64, alive bool) uint64 {
	l := &h.lease
	if l.session == 0 || !alive || now < l.due {
		return 0
	}
	l.renewed, l.due = now, now+int64(h.cfg.SessionTTL/retries)
	return l.session
}

// keepStep sees an entry of renewals, applied now, and decides when this host's next is due. Hosts keep step: one that was not
// in the entry and would be due within half an interval renews at once, and from then on when those of the entry do. So the
// leader gathers the renewals of all hosts into one entry an interval, and an idle cluster writes no more than that.
func (h *Host) keepStep(now int64, own bool) {
	l := &h.lease
	interval := int64(h.cfg.SessionTTL / renewals)
	switch {
	case l.session == 0:
	case own && l.step != 0:
		l.due, l.step = l.step, 0
	case own:
		l.due = now + interval
	case l.renewed > l.start: // under way
		l.step = now + interval
	case l.due-now <= interval/2:
		l.due, l.step = now, now+interval
		h.prodded = true
	}
}

// renewedAt extends the lease: a renewal that was sent then was applied.
func (h *Host) renewedAt(stamp int64) {
	if stamp <= h.lease.start {
		return
	}
	// The table judges the new lease by the time that it knows.
	if h.advance(h.cfg.Now()); h.lease.session == 0 {
		return
	}
	h.setLease(stamp)
	h.table.Renewed(h.lease.halfway, h.lease.end)
}

func (h *Host) setLease(start int64) {
	ttl := int64(h.cfg.SessionTTL)
	h.lease.start = start
	h.lease.halfway = start + ttl/2
	h.lease.end = start + ttl - ttl/marginPart
	h.lease.setEdge(h.cfg.Now())
	h.leaseEnd.Store(h.lease.end)
}

// openSession proposes to open a session, again and again until it is open (the ticker calls it). A nonce is used as
// long as the lease, which counts from its first use, would be worth having.
func (h *Host) openSession() {
	now := h.cfg.Now()
	o := &h.opening
	if o.nonce == 0 || now-o.stamp > int64(h.cfg.SessionTTL/4) {
		if o.nonce != 0 {
			h.giveUpNonce()
		}
		o.nonce, o.stamp = nonce(), now
	}
	o.sent = now
	if o.end != 0 {
		h.endSession(o.end, statepb.EndReason_RESTART)
	}
	h.control = append(h.control, &statepb.Command{
		TimeUnixNs: h.wall().UnixNano(),
		Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{
			Host: h.cfg.Name, Nonce: o.nonce, Uid: h.cfg.UID, Gid: h.cfg.GID, Version: h.cfg.Version, BootId: h.cfg.BootID,
			Ttl: int64(h.cfg.SessionTTL),
		}},
	})
}

// retire remembers that the nonce is not to open any more sessions: what was proposed more than once may be applied when
// the session that it opened has ended.
func (o *opening) retire() {
	if o.stale == nil || len(o.stale) >= maxStale {
		o.stale = make(map[uint64]bool)
	}
	o.stale[o.nonce] = true
}

// giveUpNonce ends an attempt to open a session, and says so in the log at the first, second, fourth … time.
func (h *Host) giveUpNonce() {
	o := &h.opening
	o.retire()
	if o.attempts++; o.attempts&(o.attempts-1) == 0 {
		h.say(slog.LevelWarn, "no session yet: the cluster has no majority, or no room for one more session", "attempts", o.attempts)
	}
}

// endSession proposes to end a session of this host.
func (h *Host) endSession(id uint64, why statepb.EndReason) {
	h.control = append(h.control, &statepb.Command{
		TimeUnixNs: h.wall().UnixNano(),
		Op:         &statepb.Command_EndSession{EndSession: &statepb.EndSession{Session: id, Reason: why}},
	})
}

// endFormer ends the sessions of former daemons of this host that nobody can still work under (DESIGN 1.8).
func (h *Host) endFormer() {
	for s := range h.View().Sessions() {
		if s.Host == h.cfg.Name && s.ID != h.lease.session && (h.cfg.FormerGone || s.BootID != h.cfg.BootID) {
			h.endSession(s.ID, statepb.EndReason_RESTART)
		}
	}
}

// sessionOpened is told of every session opened in this host's name.
func (h *Host) sessionOpened(c *state.Change, v *state.View) {
	o := &h.opening
	if c.Session == 0 {
		return // refused: the next attempt may be more lucky
	}
	if c.Nonce != o.nonce || o.nonce == 0 {
		if o.stale[c.Nonce] && c.Session != h.lease.session {
			h.endSession(c.Session, statepb.EndReason_LEAVE)
		}
		return
	}
	if h.phase == fresh || h.phase == closed {
		return
	}
	start := o.stamp
	o.retire()
	*o = opening{stale: o.stale}
	h.lease = lease{session: c.Session, renewed: start, due: start + int64(h.cfg.SessionTTL/renewals)}
	h.sessionID.Store(c.Session)
	h.setLease(start)
	h.queue = &proposals{session: c.Session, next: 1}
	h.table.Tick(h.cfg.Now())
	h.table.Session(c.Session, v.TokenBase())
	h.table.Renewed(h.lease.halfway, h.lease.end)
	held := h.held
	h.held = nil
	for _, p := range held {
		h.enqueue(p)
	}
	h.endFormer()
	h.watchedBy(v)
	h.watchAgain(v)
	close(h.opened)
	h.say(slog.LevelInfo, "session open", "session", c.Session, "index", c.Index)
}

// loseSession ends the session on this host's side: all its locks are lost, a new one is opened. What was proposed
// may still be applied, until the end of the session is.
func (h *Host) loseSession(why string) {
	old := h.lease.session
	if old == 0 {
		return
	}
	h.say(slog.LevelError, "the session is lost and so are its locks", "session", old, "why", why)
	h.losses++
	h.lossReason = why
	h.leaseEnd.Store(0)
	h.sessionID.Store(0)
	h.lease = lease{edge: math.MaxInt64}
	h.table.Lost()
	h.settle()
	if h.former != nil {
		h.settleFormer()
	}
	h.former, h.queue = h.queue, nil
	h.opened = make(chan struct{})
	h.opening.end = old
	h.loseRanges()
	h.forgetNews()
	h.forgetReports()
	for _, f := range h.onLost {
		h.outbox = append(h.outbox, delivery{call: f})
	}
	if h.phase != closed && !h.leaving {
		h.openSession()
	}
}

// sessionEnded is told when a session of this host has ended in the state: what of it is not answered by now never is.
func (h *Host) sessionEnded(c *state.Change) {
	if c.Session == h.lease.session && h.leaving {
		h.leaseEnd.Store(0)
		h.sessionID.Store(0)
		h.lease = lease{edge: math.MaxInt64}
		return
	}
	if c.Session == h.lease.session {
		h.loseSession("the cluster ended the session: " + c.Reason.String())
	}
	if h.former != nil && h.former.session == c.Session {
		h.settleFormer()
	}
	if h.opening.end == c.Session {
		h.opening.end = 0
	}
}

// settleFormer ends what a former session left unanswered: it was not applied. What does not need that session's locks
// is asked again in the next one.
func (h *Host) settleFormer() {
	list := h.former.list
	h.former = nil
	for _, p := range list {
		switch {
		case p.own || p.done == nil:
		case p.need != 0:
			p.finish(Result{}, ErrLost)
		default:
			h.enqueue(p)
		}
	}
}

// loseLocks takes all locks away, of a host that shuts down.
func (h *Host) loseLocks(why string) {
	h.lossReason = why
	var all []*Lock
	for t := range h.table.All() {
		if l := t.User.(*Lock); t.Held() {
			all = append(all, l)
		}
	}
	for _, l := range all {
		h.takeAway(l, why)
	}
}

// refuseWaiting ends all waits for locks.
func (h *Host) refuseWaiting(err error) {
	var all []*Lock
	for t := range h.table.All() {
		if l := t.User.(*Lock); l.wait != nil {
			all = append(all, l)
		}
	}
	for _, l := range all {
		h.withdrawLock(l, l.wait, err)
	}
	for id, r := range h.ranges {
		if !r.finished {
			r.finish(err)
			h.command(rangeCancel(id))
		}
	}
}

// leave ends the session for good.
func (h *Host) leave(session uint64) error {
	cmd := &statepb.Command{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{
		Session: session, Reason: statepb.EndReason_LEAVE,
	}}}
	_, err := h.do(nil, cmd, &pending{need: session}, patience{most: h.cfg.OpTimeout})
	if err == ErrLost || err == state.Ended {
		return nil
	}
	return err
}
