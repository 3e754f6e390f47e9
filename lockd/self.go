package lockd

import (
	"time"

	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
)

// suspected is told that the table found a cycle in one queue. If it is not of one owner, the state will find it too, as soon as it
// is told of.
func (h *Host) suspected(l *Lock) {
	if h.phase == closed {
		return
	}
	if h.table.Self(&l.t) == nil {
		h.tellNow()
		return
	}
	if !l.suspect {
		l.suspect = true
		h.work.Add(1)
		go h.resolveSelf(l)
	}
}

// selfDeadlock returns the lock of its own owner that a lock's request waits for, and which waits of the two these are (0: it
// does not wait); nil if there is none.
func (h *Host) selfDeadlock(l *Lock) (own *Lock, orders [2]uint64) {
	if l.wait == nil {
		return nil, orders
	}
	t := h.table.Self(&l.t)
	if t == nil {
		return nil, orders
	}
	own = t.User.(*Lock)
	orders[0] = l.wait.order
	if own.wait != nil {
		orders[1] = own.wait.order
	}
	return own, orders
}

// resolveSelf looks at a request that waits for another descriptor of its own owner until that is over. It gets ErrDeadlock
// once no thread of any process that has the descriptor could let go of it, however long that takes: one thread that works under a
// lock for long while another waits for it is no deadlock.
func (h *Host) resolveSelf(l *Lock) {
	defer h.work.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		h.mu.Lock()
		own, orders := h.selfDeadlock(l)
		if own == nil {
			l.suspect = false
			h.unlock()
			return
		}
		descs := []process.Descriptor{descriptor(&own.t)}
		if l.t.Held() {
			descs = append(descs, descriptor(&l.t))
		}
		h.unlock()

		if !h.cfg.Processes.CanLetGo(descs, h.isWaiting) {
			h.mu.Lock()
			if again, now := h.selfDeadlock(l); again == own && now == orders {
				h.endSelf(l, own)
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

// endSelf ends the younger wait of two locks of one owner.
func (h *Host) endSelf(l, own *Lock) {
	victim := l
	if own.wait != nil && own.t.Flags&queue.NoDlckWt == 0 && own.wait.order > l.wait.order {
		victim = own
	}
	by, wanted := Party{Host: h.cfg.Name, PID: victim.t.PID}, victim.wait.mode
	for _, x := range []*Lock{l, own} {
		n := h.lockNotice(NoticeDeadlock, x)
		n.By, n.Wanted, n.Reason = by, wanted, "victim"
		if x != victim {
			n.Reason = "party"
		}
		h.tellListener(x, n)
		if x == victim {
			h.publish(n)
		}
	}
	h.deadlocks++
	h.withdrawLock(victim, victim.wait, ErrDeadlock)
}
