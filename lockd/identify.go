package lockd

import "time"

// A lock knows the thread that asked for it. That thread may end while its process goes on and holds the lock, and then
// nothing would tell whose the lock is. So the process of each lock that lives longer than youngFor is looked up once.
const (
	youngFor   = 50 * time.Millisecond
	youngBatch = 256 // locks looked up at one tick
)

// youngList are the locks whose process is not looked up yet, in order of the grant. It is linked through the locks, so that the
// warm path allocates nothing. Guarded by Host.mu.
type youngList struct{ first, last *Lock }

// add puts a lock at the end.
func (y *youngList) add(l *Lock) {
	if l.young {
		return
	}
	l.young, l.prev = true, y.last
	if y.last != nil {
		y.last.next = l
	} else {
		y.first = l
	}
	y.last = l
}

// drop takes a lock off the list.
func (y *youngList) drop(l *Lock) {
	if !l.young {
		return
	}
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		y.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		y.last = l.prev
	}
	l.young, l.prev, l.next = false, nil, nil
}

// grown takes those that are old enough off the list.
func (y *youngList) grown(now int64) (list []*Lock) {
	for l := y.first; l != nil && len(list) < youngBatch && now-l.t.Since >= int64(youngFor); l = y.first {
		y.drop(l)
		list = append(list, l)
	}
	return list
}

// identify looks up the processes of locks that are no longer young. No mutex is held.
func (h *Host) identify(locks []*Lock, pids []uint32) {
	tgids := make(map[uint32]uint32, 1)
	for _, pid := range pids {
		if _, ok := tgids[pid]; !ok {
			tgids[pid] = h.cfg.Processes.Tgid(pid)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, l := range locks {
		if l.t.PID == pids[i] && l.t.Held() {
			l.tgid = tgids[pids[i]]
		}
	}
}
