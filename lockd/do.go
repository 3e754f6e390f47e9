package lockd

import (
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// recallFor is how long a name operation waits for other hosts to give up what they merely cache, DESIGN 1.1.
const recallFor = time.Second

// Do proposes one operation and waits until it is applied here: at most Config.OpTimeout, then ErrNoQuorum. The
// command's Op must be set; Session, Seq and, if it is 0, the time are filled in, and the command is the Host's from now on.
// A command that the state refuses is answered by its state.Code as the error; the result is set even then.
func (h *Host) Do(c *Call, cmd *statepb.Command) (Result, error) {
	return h.do(c, &pending{cmd: cmd}, h.cfg.OpTimeout)
}

func (h *Host) do(c *Call, p *pending, wait time.Duration) (Result, error) {
	if grows(p.cmd) {
		if err := h.cfg.Log.Room(); err != nil {
			return Result{}, ErrNoSpace
		}
	}
	done := make(chan struct{})
	p.done = done
	h.mu.Lock()
	switch {
	case h.phase == fresh || h.phase == closed:
		h.mu.Unlock()
		return Result{}, ErrClosed
	case p.lock != nil && p.lock.lost.Load():
		h.mu.Unlock()
		return Result{}, ErrLost
	}
	if p.lock != nil {
		p.need = h.lease.session
	}
	h.enqueue(p)
	h.unlock()
	c.park()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		h.mu.Lock()
		if p.done != nil {
			h.withdraw(p)
			p.done = nil
			p.err = ErrNoQuorum
		}
		h.unlock()
	}
	if p.err == nil {
		p.err = p.res.Code.Err()
	}
	return p.res, p.err
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
	res, err := h.do(c, &pending{cmd: &statepb.Command{Op: &statepb.Command_Commit{Commit: commit}}, lock: l}, h.cfg.OpTimeout)
	return res.Generation, err
}

// Invalidate marks the value of a resource invalid: a process that held l in PW or EX was killed. It does nothing if
// the lock is lost, since the end of the session invalidates the value.
func (h *Host) Invalidate(c *Call, l *Lock, ino uint64) error {
	cmd := &statepb.Command{Op: &statepb.Command_Invalidate{Invalidate: &statepb.Invalidate{Ino: ino}}}
	_, err := h.do(c, &pending{cmd: cmd, lock: l}, h.cfg.OpTimeout)
	if err == ErrLost {
		return nil
	}
	return err
}

// Remove removes a name. It is refused with ErrBusy if a lock is held or awaited on the node on this host, or in use
// on another; what others merely cache is recalled, for at most a second. With Posix the locks of this host do not matter.
func (h *Host) Remove(c *Call, op *statepb.Remove) (Result, error) {
	var pins []uint64
	if n := h.View().Lookup(op.Parent, string(op.Name)); n != nil && !op.Posix {
		pins = append(pins, n.Ino)
	}
	return h.conditional(c, pins, func() *statepb.Command {
		return &statepb.Command{Op: &statepb.Command_Remove{Remove: op}}
	})
}

// Rename moves a name, over another if there is one. The conditions of Remove go for the source with all below it and
// for an overwritten target.
func (h *Host) Rename(c *Call, op *statepb.Rename) (Result, error) {
	var pins []uint64
	v := h.View()
	from, to := v.Lookup(op.Parent, string(op.Name)), v.Lookup(op.NewParent, string(op.NewName))
	if from != nil && !op.Posix {
		pins = append(pins, from.Ino)
	}
	if to != nil && !op.Noreplace && !op.Posix && to != from {
		pins = append(pins, to.Ino)
	}
	return h.conditional(c, pins, func() *statepb.Command {
		return &statepb.Command{Op: &statepb.Command_Rename{Rename: op}}
	})
}

// conditional proposes a command under pins, again and again while other hosts are recalled.
func (h *Host) conditional(c *Call, pins []uint64, command func() *statepb.Command) (Result, error) {
	unpin, err := h.pin(pins)
	if err != nil {
		return Result{}, err
	}
	defer unpin()
	deadline := time.NewTimer(recallFor)
	defer deadline.Stop()
	pause := time.Millisecond
	for {
		answered := h.awaitRecall(pins)
		res, err := h.do(c, &pending{cmd: command()}, h.cfg.OpTimeout)
		if err != state.Recalling {
			answered.stop()
			if err == state.Busy {
				err = ErrBusy
			}
			return res, err
		}
		retry := time.NewTimer(pause)
		select {
		case <-answered.refused:
			err = ErrBusy
		case <-deadline.C:
			err = ErrBusy
		case <-h.stopped:
			err = ErrClosed
		case <-answered.lowered:
			err = nil
		case <-retry.C:
			err = nil
		}
		retry.Stop()
		answered.stop()
		if err != nil {
			return res, err
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}
