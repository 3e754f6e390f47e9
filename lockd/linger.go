package lockd

import (
	"time"

	"github.com/lockfs/lockfs/lockd/queue"
)

// A flock(2) that a signal interrupts is started again by the kernel, as a new request, and a process that gets signals at
// short intervals (a profiler's, an interval timer's) would go to the end of the queue with each. So a request
// with Request.Linger keeps its place that long after an interrupt: the same request for the same lock goes on from there. If
// it is granted meanwhile the grant waits for the rest of that time to be claimed. Who comes with something else, or
// releases, ends it at once; a process that dies closes its descriptor, which releases.
//
//	interrupt ──► lingers ──┬─ same request ──► waits on
//	                        ├─ granted ──► unclaimed ──┬─ same request ──► has it
//	                        │                          └─ time over ──► let go of
//	                        └─ time over, Release ──► withdrawn

// linger is the end of a wait that was interrupted.
type linger struct {
	timer   *time.Timer
	request Request
	before  queue.Mode // of a conversion: what it had, else None
}

// matches reports whether a new request is the one that was interrupted.
func (g *linger) matches(r *Request, had queue.Mode) bool {
	return g.before == had && g.request.Ino == r.Ino && g.request.Mode == r.Mode && g.request.Flags == r.Flags
}

// lingers lets a request that was interrupted keep its place, and reports whether it does.
func (h *Host) lingers(l *Lock, w *waiter, r *Request) bool {
	if r.Linger <= 0 || w.finished || l.wait != w || h.phase != running {
		return false
	}
	g := &linger{request: *r}
	if w.convert {
		g.before = l.t.Mode
	}
	w.done, w.linger = nil, g
	h.endWait(w.tid)
	w.tid = 0
	g.timer = time.AfterFunc(r.Linger, func() {
		h.mu.Lock()
		h.stopLinger(l, g)
		h.unlock()
	})
	return true
}

// stopLinger withdraws a request that lingers, or lets go of its grant that nobody claimed.
func (h *Host) stopLinger(l *Lock, g *linger) {
	g.timer.Stop()
	switch {
	case l.wait != nil && l.wait.linger == g:
		h.withdrawLock(l, l.wait, ErrInterrupted)
	case l.unclaimed() != g:
	case g.before == queue.None:
		l.claimed()
		h.table.Release(&l.t)
	default:
		l.claimed()
		h.table.Convert(&l.t, g.before, 0, nil)
	}
}

// endLinger is called before anything new is done with a lock: what lingers of it ends, unless it is the very same
// request. Then waiter is its wait, or claimed says that it is granted.
func (h *Host) endLinger(c *Call, l *Lock, r *Request, had queue.Mode) (w *waiter, claimed bool) {
	g := l.unclaimed()
	if l.wait != nil {
		g = l.wait.linger
	}
	if g == nil {
		return nil, false
	}
	if r == nil || !g.matches(r, had) {
		h.stopLinger(l, g)
		h.settle()
		return nil, false
	}
	g.timer.Stop()
	if c != nil {
		l.t.PID, l.t.UID = c.PID, c.UID
	}
	if l.unclaimed() == g {
		l.claimed()
		h.granted(l, r.TTL, had != queue.None)
		return nil, true
	}
	w = l.wait
	w.linger, w.done, w.expires = nil, make(chan struct{}), r.TTL
	if c != nil {
		w.tid = c.PID
		h.beginWait(w.tid)
	}
	return w, false
}
