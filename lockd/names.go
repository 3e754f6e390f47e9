package lockd

import (
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// recallFor is how long a name operation waits for other hosts to give up what they merely cache, DESIGN 1.1.
const recallFor = time.Second

// Remove removes a name. It is refused with ErrBusy if a lock is held or awaited on the node on this host, or in use
// on another; what others merely cache is recalled, for at most a second. With Posix the locks of this host do not matter.
// A directory with something in it is refused for that, whatever is held below.
func (h *Host) Remove(c *Call, op *statepb.Remove) (Result, error) {
	var pins []uint64
	n := h.View().Lookup(op.Parent, string(op.Name))
	if n != nil && !op.Posix {
		pins = append(pins, n.Ino)
	}
	res, err := h.conditional(c, pins, &statepb.Command{Op: &statepb.Command_Remove{Remove: op}})
	if err == ErrBusy && op.Dir && n != nil {
		for range h.View().ReadDir(n.Ino, "") {
			return res, state.NotEmpty
		}
	}
	return res, err
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
	return h.conditional(c, pins, &statepb.Command{Op: &statepb.Command_Rename{Rename: op}})
}

// conditional proposes a command under pins, again and again while other hosts are recalled.
func (h *Host) conditional(c *Call, pins []uint64, command *statepb.Command) (Result, error) {
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
		res, err := h.do(c, command, &pending{}, patience{most: h.cfg.OpTimeout})
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

// recallWatch waits for the answers to the recalls of a conditional removal.
type recallWatch struct {
	h       *Host
	inos    []uint64
	refused chan struct{} // closed: somebody uses it
	lowered chan struct{} // closed: somebody gave way
	done    bool
}

// awaitRecall begins to watch.
func (h *Host) awaitRecall(inos []uint64) *recallWatch {
	w := &recallWatch{h: h, inos: inos, refused: make(chan struct{}), lowered: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recalls[w] = struct{}{}
	return w
}

func (w *recallWatch) stop() {
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	delete(w.h.recalls, w)
}

// recallAnswered is told that a host lock was lowered, or that a request of this host was refused.
func (h *Host) recallAnswered(c *state.Change, v *state.View) {
	if len(h.recalls) == 0 {
		return
	}
	above := v.Ancestors(nil, c.Ino)
	for w := range h.recalls {
		switch {
		case w.done || !slices.ContainsFunc(w.inos, func(ino uint64) bool { return slices.Contains(above, ino) }):
		case c.Kind == state.HostLowered:
			w.done = true
			close(w.lowered)
		case c.Session == h.lease.session:
			w.done = true
			close(w.refused)
		}
	}
}

// pin keeps resources as they are for a removal.
func (h *Host) pin(inos []uint64) (unpin func(), err error) {
	h.mu.Lock()
	defer h.unlock()
	for i, ino := range inos {
		if !h.table.Pin(ino) {
			for _, done := range inos[:i] {
				h.table.Unpin(done)
			}
			return nil, ErrBusy
		}
	}
	return func() {
		h.mu.Lock()
		for _, ino := range inos {
			h.table.Unpin(ino)
		}
		h.unlock()
	}, nil
}
