package lockd

import (
	"slices"

	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/table"
)

// lookups is how often the rivals of a request are looked at, if others turn up while the processes are looked at.
const lookups = 3

// rival is a lock whose owner matters, and how its descriptor is recognised.
type rival struct {
	lock *table.Lock
	desc process.Descriptor
}

// ownAmong returns those of the locks in the way of a request that belong to its own owner. The processes are looked at with
// the mutex let go of, after Park; it is held again on return.
func (h *Host) ownAmong(c *Call, l *Lock, mode queue.Mode) (own []*table.Lock) {
	if l.t.PID == 0 {
		return nil
	}
	w := l.wait
	var known []*table.Lock
	pid := l.t.PID
	if c != nil && c.PID != 0 {
		pid = c.PID
	}
	for range lookups {
		rivals := h.unknownRivals(l, mode, known)
		if len(rivals) == 0 {
			break
		}
		h.unlock()
		c.park()
		mine := h.look(pid, rivals)
		h.mu.Lock()
		for i := range rivals {
			known = append(known, rivals[i].lock)
			if mine[i] {
				own = append(own, rivals[i].lock)
			}
		}
		if l.wait != w {
			break // answered or withdrawn meanwhile
		}
	}
	return own
}

// unknownRivals returns the rivals of a request that were not looked at yet.
func (h *Host) unknownRivals(l *Lock, mode queue.Mode, known []*table.Lock) []rival {
	var seen map[*table.Lock]bool
	if len(known) > 16 {
		seen = make(map[*table.Lock]bool, len(known))
		for _, t := range known {
			seen[t] = true
		}
	}
	var rivals []rival
	for _, t := range h.table.Rivals(&l.t, mode) {
		if seen[t] || seen == nil && slices.Contains(known, t) {
			continue
		}
		rivals = append(rivals, rival{lock: t, desc: descriptor(t)})
	}
	return rivals
}

// descriptor says how the processes know a lock's descriptor.
func descriptor(t *table.Lock) process.Descriptor {
	l := t.User.(*Lock)
	d := process.Descriptor{Opener: t.PID, Heir: l.Opener, File: l.File, Opened: l.Opened}
	if l.tgid != 0 {
		d.Opener = l.tgid // the process, since the thread may have ended
	}
	return d
}

// look asks which rivals belong to the owner of a thread. No mutex is held.
func (h *Host) look(pid uint32, rivals []rival) []bool {
	owner := h.cfg.Processes.Owner(pid)
	mine := make([]bool, len(rivals))
	for i := range rivals {
		mine[i] = owner.Has(rivals[i].desc)
	}
	return mine
}

// lookAgain starts a goroutine that looks for own locks where a request waits now.
func (h *Host) lookAgain(l *Lock) {
	w := l.wait
	if w == nil || h.phase == closed || l.t.PID == 0 {
		return
	}
	w.again = true
	if w.looking {
		return
	}
	w.looking = true
	h.work.Add(1)
	go func() {
		defer h.work.Done()
		h.mu.Lock()
		defer h.unlock()
		for l.wait == w && w.again {
			w.again = false
			own := h.ownAmong(nil, l, l.t.Wanted)
			if l.wait == w {
				h.table.SetOwn(&l.t, own)
				h.settle()
			}
		}
		w.looking = false
	}()
}
