package lockd

import (
	"time"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Do proposes one operation and waits until it is applied here: at most Config.OpTimeout, then ErrNoQuorum. The
// command's Op must be set; its Session and Seq do not matter, and a time of 0 is that of the call. It may be used again as soon
// as Do returns.
// A command that the state refuses is answered by its state.Code as the error; the result is set even then.
func (h *Host) Do(c *Call, cmd *statepb.Command) (Result, error) {
	return h.do(c, cmd, &pending{}, patience{most: h.cfg.OpTimeout})
}

// patience is how long the answer to a command is waited for.
type patience struct {
	most   time.Duration   // 0: for ever
	cancel <-chan struct{} // ends it with ErrInterrupted
	keep   bool            // the command stands even if nobody waits for its answer any more
}

// do proposes a command; p says what else there is to know of it.
func (h *Host) do(c *Call, cmd *statepb.Command, p *pending, wait patience) (Result, error) {
	if grows(cmd) && h.cfg.Log.Room() != nil {
		return Result{}, ErrNoSpace
	}
	if cmd.TimeUnixNs == 0 {
		cmd.TimeUnixNs = h.wall().UnixNano()
	}
	p.body, p.from = encode(cmd), c.from()
	size := int64(len(p.body))
	defer h.pendingBytes.Add(-size)
	if h.pendingBytes.Add(size) > int64(h.cfg.Limits.Pending) {
		return Result{}, ErrNoQuorum
	}
	done, err := h.submit(p)
	if err != nil {
		return Result{}, err
	}
	c.park()
	var over <-chan time.Time
	if wait.most > 0 {
		timer := time.NewTimer(wait.most)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-done:
		return p.answer()
	case <-over:
		err = ErrNoQuorum
	case <-wait.cancel:
		err = ErrInterrupted
	}
	h.mu.Lock()
	defer h.unlock()
	if p.done == nil {
		return p.answer()
	}
	p.done = nil
	if !wait.keep {
		h.withdraw(p)
	}
	return Result{}, err
}

// submit queues a command whose answer will be waited for.
func (h *Host) submit(p *pending) (done <-chan struct{}, err error) {
	h.mu.Lock()
	defer h.unlock()
	switch {
	case h.phase == fresh || h.phase == closed:
		return nil, ErrClosed
	case p.lock != nil && p.lock.lost.Load():
		return nil, ErrLost
	}
	if p.lock != nil {
		p.need = h.lease.session
	}
	if p.need != 0 && p.need != h.lease.session {
		return nil, ErrLost
	}
	p.done = make(chan struct{})
	done = p.done
	h.enqueue(p)
	return done, nil
}

// answer returns what the command was answered.
func (p *pending) answer() (Result, error) {
	if p.err != nil {
		return p.res, p.err
	}
	return p.res, p.res.Code.Err()
}

// grows reports whether a command makes the state larger, so that it must be refused when there is no room.
func grows(cmd *statepb.Command) bool {
	switch op := cmd.Op.(type) {
	case *statepb.Command_Make, *statepb.Command_SetXattr, *statepb.Command_RangeLock:
		return true
	case *statepb.Command_Commit:
		_, shrinks := op.Commit.Change.(*statepb.Commit_Truncate)
		return !shrinks || op.Commit.GetTruncate() > 0
	}
	return false
}

// Room says whether a value may grow by so many bytes as things are now: nil, or ErrNoSpace. So a write can be refused
// that would only fail at its commit, where many programs do not look.
func (h *Host) Room(bytes int) error {
	v := h.View()
	if _, used := v.Counts(); bytes > 0 && used+uint64(bytes) > v.Limits().Bytes || h.cfg.Log.Room() != nil {
		return ErrNoSpace
	}
	return nil
}

// Barrier waits until the host has applied everything that was committed before the call: what it then reads from View is
// linearizable. It passes through the log.
func (h *Host) Barrier(c *Call) (Result, error) {
	return h.Do(c, &statepb.Command{Op: &statepb.Command_Barrier{Barrier: &statepb.Barrier{}}})
}

// Commit stores a value, or changes it, and returns its new generation. The lock is the descriptor's that commits, nil in the
// posix view; with it the commit is refused as ErrLost once the lock is lost, also if that happens while it is under way.
// What was committed before the loss was applied stands.
func (h *Host) Commit(c *Call, l *Lock, commit *statepb.Commit) (generation uint64, err error) {
	if l != nil {
		if err := h.Check(l); err != nil {
			return 0, err
		}
	}
	cmd := &statepb.Command{Op: &statepb.Command_Commit{Commit: commit}}
	res, err := h.do(c, cmd, &pending{lock: l}, patience{most: h.cfg.OpTimeout})
	return res.Generation, err
}

// CommitIn is Commit without a lock, for what makes sense in one session only, since byte ranges are held in it: then
// ErrLost once that is lost. Session 0 is any.
func (h *Host) CommitIn(c *Call, session uint64, commit *statepb.Commit) error {
	cmd := &statepb.Command{Op: &statepb.Command_Commit{Commit: commit}}
	_, err := h.do(c, cmd, &pending{need: session}, patience{most: h.cfg.OpTimeout})
	return err
}

// Invalidate marks the value of a resource invalid: a process that held l in PW or EX was killed. It does nothing if
// the lock is lost, since the end of the session invalidates the value.
func (h *Host) Invalidate(c *Call, l *Lock, ino uint64) error {
	cmd := &statepb.Command{Op: &statepb.Command_Invalidate{Invalidate: &statepb.Invalidate{Ino: ino}}}
	_, err := h.do(c, cmd, &pending{lock: l}, patience{most: h.cfg.OpTimeout, keep: true})
	if err == ErrLost {
		return nil
	}
	return err
}
