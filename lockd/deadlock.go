package lockd

import (
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
)

// suspectEvery is how often the processes of a cycle that stands are looked at again.
const suspectEvery = 250 * time.Millisecond

// suspected starts a goroutine that looks after a cycle of waits: the table found that l waits for what waits for
// it, or for another descriptor of its own owner.
//
// The youngest wait of the cycle gets ErrDeadlock: at once if no thread of any process that has one of the descriptors
// could let go of it (all wait here, or in wait(2) for one that does); otherwise after the cycle has stood for
// Config.DeadlockWait. The latter is not for a request that only waits for another descriptor of its own process: one thread that
// works under the lock for long while another waits for it is no deadlock.
func (h *Host) suspected(l *Lock) {
	if l.suspect || h.phase == closed {
		return
	}
	l.suspect = true
	h.work.Add(1)
	go h.resolve(l)
}

// resolve looks at a cycle until it is gone, and ends it by a verdict if it stays.
func (h *Host) resolve(l *Lock) {
	defer h.work.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var stands []*Lock
	var orders []uint64
	begin := h.cfg.Now()
	for {
		h.mu.Lock()
		cycle, order := h.cycle(l)
		if cycle == nil {
			l.suspect = false
			h.unlock()
			return
		}
		if !slices.Equal(cycle, stands) || !slices.Equal(order, orders) {
			stands, orders, begin = cycle, order, h.cfg.Now()
		}
		descs := heldDescriptors(cycle)
		h.unlock()

		old := h.cfg.DeadlockWait >= 0 && !slices.Contains(order, 0) && h.cfg.Now()-begin >= int64(h.cfg.DeadlockWait)
		if old || !h.cfg.Processes.CanLetGo(descs, h.isWaiting) {
			h.mu.Lock()
			if again, order := h.cycle(l); slices.Equal(again, cycle) && slices.Equal(order, orders) {
				h.verdict(cycle)
			}
			h.unlock()
		}
		timer.Reset(suspectEvery)
		select {
		case <-timer.C:
		case <-h.stopped:
			return
		}
	}
}

// cycle returns the cycle that a lock is part of, and which wait of each member that is, 0 for one that does not wait; nil if
// there is none.
func (h *Host) cycle(l *Lock) (cycle []*Lock, order []uint64) {
	if l.wait == nil {
		return nil, nil
	}
	for _, t := range h.table.Cycle(&l.t) {
		x := t.User.(*Lock)
		var n uint64
		if x.wait != nil {
			n = x.wait.order
		}
		cycle, order = append(cycle, x), append(order, n)
	}
	return cycle, order
}

// heldDescriptors returns the descriptors that somebody would have to let go of.
func heldDescriptors(cycle []*Lock) (descs []process.Descriptor) {
	for _, l := range cycle {
		if l.t.Held() {
			descs = append(descs, descriptor(&l.t))
		}
	}
	return descs
}

// isWaiting reports whether a thread waits in a request to this host.
func (h *Host) isWaiting(tid uint32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiters[tid] > 0
}

// verdict ends the youngest wait of a cycle and tells all parties.
func (h *Host) verdict(cycle []*Lock) {
	var victim *Lock
	for _, l := range cycle {
		if l.wait != nil && l.t.Flags&queue.NoDlckWt == 0 && (victim == nil || l.wait.order > victim.wait.order) {
			victim = l
		}
	}
	if victim == nil {
		return
	}
	by := Party{Host: h.cfg.Name, PID: victim.t.PID}
	wanted := victim.wait.mode
	for _, l := range cycle {
		n := h.lockNotice(NoticeDeadlock, l)
		n.By, n.Wanted, n.Reason = by, wanted, "victim"
		if l != victim {
			n.Reason = "party"
		}
		h.tellListener(l, n)
		if l == victim {
			h.publish(n)
		}
	}
	h.deadlocks++
	h.withdrawLock(victim, victim.wait, ErrDeadlock)
}
