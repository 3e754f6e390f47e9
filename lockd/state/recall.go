package state

import (
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// recallAll tells each holder what its lock holds up, if that is something else than it was told last.
func (s *State) recallAll(ino uint64, c *contention) {
	for i := range c.holds {
		h := &c.holds[i]
		var now [2]recall
		if len(c.waits) > 0 {
			now = c.recalls(h.session)
		}
		if now == h.recalls {
			continue
		}
		for k, r := range now {
			if r == h.recalls[k] {
				continue
			}
			if r.by != 0 && k == recallWait {
				s.lookForAt(ino, h.session)
			}
			s.emit(c.recalled(ino, h.session, k, r))
		}
		h.recalls = now
	}
}

// recalled is the change that tells a holder of a recall.
func (c *contention) recalled(ino, holder uint64, kind int, r recall) Change {
	change := Change{Kind: Recall, Session: holder, Ino: ino, By: r.by, Wanted: r.wanted, Try: kind == recallTry}
	if r.by == 0 {
		change.Kind = RecallCancelled
	} else if w := c.wait(r.by); w != nil {
		change.PID, change.Name = w.pid, w.comm
	}
	return change
}

// recalls returns the first request that a holder's lock holds up, and the first try.
func (c *contention) recalls(session uint64) (r [2]recall) {
	for _, by := range c.q.Blocked(session) {
		k := recallWait
		if c.wait(by).try {
			k = recallTry
		}
		if r[k].by == 0 {
			r[k] = recall{by: by, wanted: c.q.Waiting(by)}
		}
		if r[recallWait].by != 0 && r[recallTry].by != 0 {
			break
		}
	}
	return r
}

// inUse refuses a try that the session's lock holds up.
func (s *State) inUse(op *statepb.InUse, done *Change) {
	done.Ino = op.Ino
	l, _ := s.cur.locks.Get(op.Ino)
	if l.granted(done.Session) == queue.None {
		done.Code = NotHolder
		return
	}
	refused := Change{Kind: HostRefused, Session: op.Waiter, Ino: op.Ino, By: done.Session}
	if l.more == nil || l.more.wait(op.Waiter) == nil {
		s.emit(refused) // to a Remove or Rename, which does not wait in the queue
		return
	}
	if !l.more.wait(op.Waiter).try || !blocks(l.more, done.Session, op.Waiter) {
		return // it has become a request that waits, or waits for another
	}
	refused.Wanted = l.more.q.Waiting(op.Waiter)
	s.emit(refused)
	s.withdraw(op.Ino, op.Waiter)
}

// blocks says whether a holder's lock is in the way of a waiting request.
func blocks(c *contention, holder, waiter uint64) bool {
	for b := range c.q.Blockers(waiter) {
		if b.Holder == holder && !b.Waiting {
			return true
		}
	}
	return false
}

// way finds out whether locks are in the way of removing or moving nodes.
type way struct {
	s       *State
	session uint64
	busy    bool
	recalls []Change
}

// recallsAtOnce bounds the recalls of one attempt to move a directory. The next attempt recalls others.
const recallsAtOnce = 1024

func (s *State) way(session uint64) *way { return &way{s: s, session: session} }

// check looks at one node. The session's own host lock is never in the way: what the host does with it is its own affair.
// Its byte ranges and waits are, unless the node and they live on (posix).
func (w *way) check(ino uint64, lives bool) {
	if w.busy {
		return
	}
	if r, ok := w.s.cur.ranges.Get(ino); ok && (!lives || r.others(w.session)) {
		w.busy = true
		return
	}
	l, ok := w.s.cur.locks.Get(ino)
	switch {
	case !ok:
	case l.more == nil:
		w.holder(ino, l.holder)
	default:
		c := l.more
		w.busy = c.q.Ceiling() != queue.EX
		for i := range c.waits {
			w.busy = w.busy || !lives || c.waits[i].session != w.session
		}
		for i := range c.holds {
			w.holder(ino, c.holds[i].session)
		}
	}
}

// checkTree looks at a node and all below it.
func (w *way) checkTree(n *Node, lives bool) {
	w.check(n.Ino, lives)
	if !n.Dir || w.busy {
		return
	}
	for c := range w.s.cur.ReadDir(n.Ino, "") {
		w.checkTree(c, lives)
	}
}

func (w *way) holder(ino, session uint64) {
	if session != w.session && len(w.recalls) < recallsAtOnce {
		w.recalls = append(w.recalls, Change{
			Kind: Recall, Session: session, Ino: ino, By: w.session, Wanted: queue.EX, Try: true,
		})
	}
}

// clear returns OK if nothing is in the way, Busy if something is that will not go away by itself, or Recalling after it
// has recalled what others hold.
func (w *way) clear() Code {
	switch {
	case w.busy:
		return Busy
	case len(w.recalls) == 0:
		return OK
	}
	for _, c := range w.recalls {
		w.s.emit(c)
	}
	return Recalling
}
