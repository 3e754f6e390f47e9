package lockd

import (
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Range is a byte range of a file and its owner, as fcntl(2) has them.
type Range struct {
	Owner uint64 // the kernel's number of the owner; may be used again when the owner is gone
	Write bool
	Start uint64
	End   uint64 // inclusive; state.MaxRange: to the end, however the file grows
	PID   uint32 // process, for F_GETLK
	OFD   bool   // the owner is an open file description: never EDEADLK
}

// rangeWait is a wait for a byte-range lock.
type rangeWait struct {
	ino      uint64
	id       uint64 // names the wait in the session
	want     Range
	asked    pending // the command
	more     bool    // the owner had something on the file before
	tid      uint32  // of the thread that waits, 0: none
	uid      uint32  // of that
	telling  telling
	done     chan struct{}
	err      error
	session  uint64 // that it was granted in
	finished bool
}

// finish ends the wait. Called with the mutex held.
func (r *rangeWait) finish(err error) {
	if !r.finished {
		r.finished, r.err = true, err
		close(r.done)
	}
}

// grant ends it well.
func (r *rangeWait) grant(session uint64) {
	r.session = session
	r.finish(nil)
}

// answered reports whether the command is no longer on its way to the log: it is the state that has the wait, or nobody.
func (r *rangeWait) answered() bool { return r.asked.seq != 0 && r.asked.done == nil }

// LockRange locks a byte range and returns the session in which it has it: the lock is lost with that. ErrBusy if it conflicts and wait is false; ErrInterrupted;
// ErrDeadlock for a cycle of POSIX owners; ErrNoQuorum if wait is false; ErrNoLocks. A wait outlasts
// the loss of the session; what is locked does not.
func (h *Host) LockRange(c *Call, ino uint64, r Range, wait bool) (session uint64, err error) {
	for {
		session, err := h.lockRange(c, ino, r, wait)
		if err != errSessionLost {
			return session, err
		}
	}
}

// lockRange tries in one session. If that is lost meanwhile it returns errSessionLost.
func (h *Host) lockRange(c *Call, ino uint64, r Range, wait bool) (session uint64, err error) {
	w, id, err := h.beginRange(c, ino, r, wait)
	if err != nil {
		return 0, err
	}
	defer h.endRange(w, id)
	cmd := &statepb.Command{Op: &statepb.Command_RangeLock{RangeLock: &statepb.RangeLock{
		Ino: ino, Owner: r.Owner, Write: r.Write, Start: r.Start, End: r.End, Pid: r.PID, Id: id, Wait: wait, Ofd: r.OFD,
	}}}
	w.asked.late = func(res Result) {
		switch {
		case res.Code == state.Waiting:
			h.command(rangeCancel(id))
		case res.Code == state.OK && !w.more && h.onlyRange(ino, r):
			h.command(rangeUnlock(ino, r))
		}
	}
	res, err := h.do(c, cmd, &w.asked, h.patience(c, wait))
	switch {
	case err == ErrInterrupted:
		return h.cancelRange(w, id)
	case err != nil && err != errUnseen:
		return 0, rangeError(err)
	}
	h.rangeAnswered(w, id, res, err)
	select {
	case <-w.done:
		if w.err == ErrDeadlock {
			return h.condemnedRange(w)
		}
		return w.session, w.err
	case <-c.cancel():
	}
	return h.cancelRange(w, id)
}

// onlyRange reports whether an owner has this very range on a file and nothing else, nor asks for anything: then a grant
// that came when nobody waited for it any more can be taken back. Else it stays until its owner unlocks it or closes the
// file, since a part of it may be something that it knows of. Called with the mutex held.
func (h *Host) onlyRange(ino uint64, want Range) bool {
	for _, w := range h.ranges {
		if w.ino == ino && w.want.Owner == want.Owner {
			return false
		}
	}
	n := 0
	for r := range h.View().Ranges(ino) {
		if r.Session != h.lease.session || r.Owner != want.Owner {
			continue
		}
		if n++; n > 1 || r.Start != want.Start || r.End != want.End || r.Write != want.Write {
			return false
		}
	}
	return n == 1
}

// condemnedRange withdraws a wait that is the victim of a deadlock; if the state has granted it before, it is granted.
func (h *Host) condemnedRange(w *rangeWait) (session uint64, err error) {
	session = w.asked.res.session
	p := &pending{need: session, late: func(res Result) {
		if res.Code == state.NotFound && h.onlyRange(w.ino, w.want) {
			h.command(rangeUnlock(w.ino, w.want))
		}
	}}
	if _, err := h.do(nil, rangeCancel(w.id), p, patience{most: h.cfg.OpTimeout, keep: true}); err == state.NotFound {
		return session, nil
	}
	return 0, ErrDeadlock
}

// rangeAnswered looks at an answer that is no refusal: it is worth something only if the session that it came in still
// stands.
func (h *Host) rangeAnswered(w *rangeWait, id uint64, res Result, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case res.session != h.lease.session:
		w.finish(errSessionLost)
	case err != nil:
		h.rangeRestored(id, w, h.View())
	case res.Code == state.OK:
		w.grant(res.session)
	}
}

// patience is how long an operation waits for its answer: if it may wait at all, until it is interrupted.
func (h *Host) patience(c *Call, wait bool) patience {
	if wait {
		return patience{cancel: c.cancel(), keep: true}
	}
	return patience{most: h.cfg.OpTimeout}
}

// beginRange notes a wait, so that no grant is missed.
func (h *Host) beginRange(c *Call, ino uint64, r Range, wait bool) (*rangeWait, uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch h.phase {
	case running:
	case draining:
		return nil, 0, ErrDraining
	default:
		return nil, 0, ErrClosed
	}
	w := &rangeWait{ino: ino, want: r, done: make(chan struct{})}
	if c != nil && wait {
		w.tid = c.PID
		h.beginWait(w.tid)
	}
	h.counts.RangeLocks++
	w.more = h.hasRanges(ino, r.Owner)
	h.rangeID++
	w.id = h.rangeID
	h.ranges[w.id] = w
	if w.tid != 0 && !r.OFD {
		w.uid, w.telling.wait = c.UID, w
		h.reports.begin(&w.telling, h.cfg.Now())
		h.hurry()
	}
	return w, w.id, nil
}

func (h *Host) endRange(w *rangeWait, id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ranges, id)
	h.endTelling(&w.telling)
	h.endWait(w.tid)
}

// cancelRange withdraws a wait that was interrupted; if it was granted meanwhile, it stays granted. The command comes after
// the one that asked, whenever the log takes them.
func (h *Host) cancelRange(w *rangeWait, id uint64) (session uint64, err error) {
	if h.withdrawHeld(&w.asked) {
		return 0, ErrInterrupted
	}
	h.do(nil, rangeCancel(id), &pending{need: h.Session()}, patience{most: h.cfg.OpTimeout, keep: true}) // whatever the answer: the grant, if there was one, is in w
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.finished && w.err == nil {
		return w.session, nil
	}
	return 0, ErrInterrupted
}

// rangeError turns the state's answer into this package's errors.
func rangeError(err error) error {
	switch err {
	case state.Busy:
		return ErrBusy
	case state.Deadlock:
		return ErrDeadlock
	case state.TooMany:
		return ErrNoLocks
	}
	return err
}

// UnlockRange unlocks a byte range of its owner. After ErrNoQuorum it will still be unlocked.
func (h *Host) UnlockRange(c *Call, ino uint64, r Range) error {
	_, err := h.do(c, rangeUnlock(ino, r), &pending{}, patience{most: h.cfg.OpTimeout, keep: true})
	return err
}

func rangeCancel(id uint64) *statepb.Command {
	return &statepb.Command{Op: &statepb.Command_RangeCancel{RangeCancel: &statepb.RangeCancel{Id: id}}}
}

func rangeUnlock(ino uint64, r Range) *statepb.Command {
	return &statepb.Command{Op: &statepb.Command_RangeUnlock{RangeUnlock: &statepb.RangeUnlock{
		Ino: ino, Owner: r.Owner, Start: r.Start, End: r.End,
	}}}
}

// DropRanges unlocks all that an owner has on a file, and does nothing, quickly, if that is nothing and nothing is under
// way. The answer is not awaited: it comes before that of any later command of this host.
func (h *Host) DropRanges(ino, owner uint64) {
	has := h.hasRanges(ino, owner)
	h.mu.Lock()
	underWay := h.queue != nil && len(h.queue.list) > 0
	if (has || underWay) && (h.phase == running || h.phase == draining) {
		h.command(&statepb.Command{Op: &statepb.Command_RangeUnlock{RangeUnlock: &statepb.RangeUnlock{
			Ino: ino, Owner: owner, All: true,
		}}})
	}
	h.unlock()
}

// hasRanges reports whether an owner has or awaits a range.
func (h *Host) hasRanges(ino, owner uint64) bool {
	v := h.View()
	for r := range v.Ranges(ino) {
		if r.Owner == owner && r.Session == h.sessionID.Load() {
			return true
		}
	}
	for r := range v.RangeWaits(ino) {
		if r.Owner == owner && r.Session == h.sessionID.Load() {
			return true
		}
	}
	return false
}

// TestRange returns the first lock that is in the way of a range, and its host; ok is false if there is none. The
// owner is the range's own and is not in its own way.
func (h *Host) TestRange(ino uint64, r Range) (conflict state.Range, host string, ok bool) {
	v := h.View()
	conflict, ok = v.RangeConflict(ino, state.Range{
		Session: h.sessionID.Load(), Owner: r.Owner, Start: r.Start, End: r.End, Write: r.Write, PID: r.PID,
	})
	if !ok {
		return conflict, "", false
	}
	s, _ := v.Session(conflict.Session)
	return conflict, s.Host, true
}

// loseRanges tells who waits for a range that the session is lost: it asks again in the next one. A command that is not
// answered yet is asked again by itself.
func (h *Host) loseRanges() {
	for _, w := range h.ranges {
		if w.answered() {
			w.finish(errSessionLost)
		}
	}
}
