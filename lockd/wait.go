package lockd

import (
	"time"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/table"
)

// waiter is a request that could not be granted at once, and whoever waits for it.
type waiter struct {
	done     chan struct{} // closed when finished; nil for an asynchronous request
	err      error
	finished bool
	tid      uint32 // of the thread that waits, 0 if none does
	order    uint64 // of the begin of the wait: the youngest has the highest
	convert  bool
	mode     queue.Mode // asked for
	expires  time.Duration
	looking  bool    // a goroutine looks for own locks
	again    bool    // and has to do so again
	linger   *linger // it was interrupted and keeps its place
	begun    bool    // the caller of an asynchronous request was told that it is accepted
	telling  telling
}

// ask makes a request that could not be granted at once. It is called with the mutex held and lets go of it.
func (h *Host) ask(c *Call, l *Lock, r Request, async bool) error {
	l.async = async
	convert := l.t.Held()
	w := &waiter{convert: convert, mode: r.Mode, expires: r.TTL}
	if !async {
		w.done = make(chan struct{})
	}
	l.wait = w
	if r.Flags&queue.NoQueue != 0 && h.refusedAnyway(l, &r) {
		h.finish(l, ErrBusy)
		h.unlock()
		return ErrBusy
	}
	own := h.ownAmong(c, l, r.Mode)
	if !w.finished && h.phase != running && !(convert && h.phase == draining) {
		h.finish(l, ErrDraining)
	}
	if w.finished { // released, lost or refused during the look-ups
		h.unlock()
		return w.err
	}
	h.order++
	w.order = h.order
	w.telling.lock = l
	h.reports.begin(&w.telling, h.cfg.Now())
	h.hurry()
	h.counts.Waits++
	if r.Flags&(queue.NoQueue|queue.Try) != 0 {
		h.hurry() // the table ends it by the clock
	}
	if c != nil && !async {
		w.tid = c.PID
		h.beginWait(w.tid)
	}
	h.table.At(h.cfg.Now())
	if convert {
		h.table.Convert(&l.t, r.Mode, r.Flags, own)
	} else {
		h.table.Request(&l.t, r.Mode, r.Flags, own)
	}
	h.settle()
	w.begun = true
	err := w.err
	h.unlock()
	if async {
		return err // nil, or why it was refused at once
	}
	return h.await(c, l, w, r)
}

// refusedAnyway reports whether a try need not look at any process: somebody has the very resource in a mode that is in the
// way, and that refuses it whoever he is.
func (h *Host) refusedAnyway(l *Lock, r *Request) bool {
	if r.Flags&(queue.AltPR|queue.AltCW) != 0 {
		return false
	}
	for _, t := range h.table.Rivals(&l.t, r.Mode) {
		if t.Ino == l.t.Ino && t.Held() && !queue.Compatible(t.Mode, r.Mode) {
			return true
		}
	}
	return false
}

// await waits for the end of a request, or withdraws it. Without a waiter it is granted already.
func (h *Host) await(c *Call, l *Lock, w *waiter, r Request) error {
	if w == nil {
		return nil
	}
	done := w.done // before anybody can change it: the caller has just made it
	select {
	case <-done:
		return w.err
	default:
	}
	c.park()
	var over <-chan time.Time
	if r.Wait > 0 {
		timer := time.NewTimer(r.Wait)
		defer timer.Stop()
		over = timer.C
	}
	var err error
	select {
	case <-done:
		return w.err
	case <-c.cancel():
		err = ErrInterrupted
	case <-over:
		err = ErrTimeout
	}
	h.mu.Lock()
	defer h.unlock()
	if err == ErrInterrupted && h.lingers(l, w, &r) {
		return err
	}
	h.withdrawLock(l, w, err)
	return w.err
}

// withdrawLock takes back a request unless it is finished.
func (h *Host) withdrawLock(l *Lock, w *waiter, err error) {
	if w.finished || l.wait != w {
		return
	}
	h.table.Cancel(&l.t)
	h.finish(l, err)
}

// finish ends the wait of a lock.
func (h *Host) finish(l *Lock, err error) {
	w := l.wait
	l.wait = nil
	w.finished, w.err = true, err
	h.endTelling(&w.telling)
	h.endWait(w.tid)
	switch err {
	case ErrBusy:
		h.counts.Busy++
	case ErrTimeout:
		h.counts.Timeouts++
	case ErrInterrupted:
		h.counts.Interrupts++
	}
	if w.done != nil {
		close(w.done)
		return
	}
	if err != nil && err != ErrLost && err != ErrInterrupted && w.begun && w.linger == nil {
		n := h.lockNotice(NoticeFailed, l)
		n.Err, n.Wanted = err, w.mode
		h.tellListener(l, n)
	}
}

// beginWait notes that a thread waits in a request to this host.
func (h *Host) beginWait(tid uint32) {
	if tid != 0 {
		h.waiters[tid]++
	}
}

func (h *Host) endWait(tid uint32) {
	if tid == 0 {
		return
	}
	if h.waiters[tid]--; h.waiters[tid] == 0 {
		delete(h.waiters, tid)
	}
}

// reason turns the table's reason into an error.
func reason(r table.Reason) error {
	switch r {
	case table.Busy, table.NoLease:
		return ErrBusy
	case table.NoLocks:
		return ErrNoLocks
	case table.NotFound:
		return state.NotFound
	}
	return r
}
