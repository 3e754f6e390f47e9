package conn

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Notifier writes the invalidations of one mount, in the order queued, from a goroutine of its own. Queueing never
// blocks and may be done under a lock and from the loop that applies the log. The queue has no limit, but what is
// queued already is not queued again: it holds at most one entry for each inode and name.
//
// Each invalidation carries the index of the log entry that caused it, 0 for none. Wait waits until those up to an
// index have been written.
//
// Poll wake-ups have a queue and a goroutine of their own: they never block, and must not stand behind an
// invalidation that does.
type Notifier struct {
	write func(*invalidation) // writes one; may block
	wake  func(kh uint64)

	low atomic.Uint64 // the lowest index not written yet, none: nothing is pending

	mu      sync.Mutex
	queue   []*invalidation
	lowest  uint64                    // the lowest index in queue, or none
	pending map[subject]*invalidation // what is in queue, not what is being written
	waiters []waiter
	polls   []uint64
	polled  map[uint64]struct{}
	stopped bool

	work, pollWork chan struct{} // capacity 1
	stop           chan struct{}
	done           sync.WaitGroup
}

// none as an index says that nothing is pending.
const none = math.MaxUint64

// subject is what an invalidation is about; two of one subject are one.
type subject struct {
	kind  kind
	ino   uint64 // the inode, or the directory
	child uint64 // for del
	name  string
}

type kind uint8

const (
	inode kind = iota
	entry
	del
)

type invalidation struct {
	subject
	index       uint64
	low         uint64 // the lowest index of those behind it in its batch, or none
	off, length int64  // for inode
	flags       uint32 // for entry
}

type waiter struct {
	index uint64
	done  chan struct{}
}

func newNotifier(write func(*invalidation), wake func(kh uint64)) *Notifier {
	n := &Notifier{
		write:    write,
		wake:     wake,
		pending:  make(map[subject]*invalidation),
		polled:   make(map[uint64]struct{}),
		work:     make(chan struct{}, 1),
		pollWork: make(chan struct{}, 1),
		stop:     make(chan struct{}),
		lowest:   none,
	}
	n.low.Store(none)
	return n
}

// Inode queues an InvalInode. Different ranges of one inode are joined.
func (n *Notifier) Inode(index, ino uint64, off, length int64) {
	n.add(&invalidation{subject: subject{kind: inode, ino: ino}, index: index, off: off, length: length})
}

// Entry queues an InvalEntry.
func (n *Notifier) Entry(index, parent uint64, name string, flags uint32) {
	n.add(&invalidation{subject: subject{kind: entry, ino: parent, name: name}, index: index, flags: flags})
}

// Delete queues a Delete.
func (n *Notifier) Delete(index, parent, child uint64, name string) {
	n.add(&invalidation{subject: subject{kind: del, ino: parent, child: child, name: name}, index: index})
}

// Poll queues a NotifyPoll, for those who hold a lock.
func (n *Notifier) Poll(kh uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, queued := n.polled[kh]; queued || n.stopped {
		return
	}
	n.polled[kh] = struct{}{}
	n.polls = append(n.polls, kh)
	prod(n.pollWork)
}

// Settled reports whether every invalidation up to index has been written. It is one atomic load.
func (n *Notifier) Settled(index uint64) bool {
	return n.low.Load() > index
}

// Wait waits until every invalidation up to index that was queued before the call has been written, and reports
// whether that is so; false after timeout, or when cancel is closed. A handler whose reply reports a change of the log
// calls it with that change's index, after Park where Settled is false. Never from a handler of a request under a
// directory's lock in the kernel (LOOKUP, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, SETATTR) nor of a cached READ: the
// invalidation may be waiting for that very reply.
func (n *Notifier) Wait(index uint64, cancel <-chan struct{}, timeout time.Duration) bool {
	if n.Settled(index) {
		return true
	}
	n.mu.Lock()
	if n.Settled(index) || n.stopped {
		n.mu.Unlock()
		return true
	}
	w := waiter{index, make(chan struct{})}
	n.waiters = append(n.waiters, w)
	n.mu.Unlock()

	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-w.done:
		return true
	case <-cancel:
	case <-timer.C:
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.waiters {
		if n.waiters[i].done == w.done {
			n.waiters = append(n.waiters[:i], n.waiters[i+1:]...)
			return false
		}
	}
	return true
}

func (n *Notifier) add(v *invalidation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return
	}
	if old := n.pending[v.subject]; old != nil {
		old.join(v)
	} else {
		n.pending[v.subject] = v
		n.queue = append(n.queue, v)
	}
	if v.index != 0 {
		n.lowest = min(n.lowest, v.index)
		n.low.Store(min(n.low.Load(), v.index))
	}
	prod(n.work)
}

// join makes v, which is not written yet, do for w as well.
func (v *invalidation) join(w *invalidation) {
	switch {
	case v.index == 0:
		v.index = w.index
	case w.index != 0:
		v.index = min(v.index, w.index)
	}
	v.flags &= w.flags
	switch {
	case w.off < 0: // attributes are dropped with any pages
	case v.off < 0:
		v.off, v.length = w.off, w.length
	case v.off != w.off || v.length != w.length:
		v.off, v.length = 0, 0
	}
}

// run writes what is queued until the Notifier is stopped.
func (n *Notifier) run() {
	defer n.done.Done()
	for {
		select {
		case <-n.stop:
			return
		case <-n.work:
		}
		for _, v := range n.take() {
			if n.isStopped() {
				return
			}
			n.write(v)
			n.wrote(v)
		}
	}
}

// take empties the queue. What is queued from now on is written anew: it may tell of a change that the write, once
// begun, has not seen.
func (n *Notifier) take() []*invalidation {
	n.mu.Lock()
	defer n.mu.Unlock()
	batch := n.queue
	n.queue, n.lowest = nil, none
	clear(n.pending)
	low := uint64(none)
	for i := len(batch) - 1; i >= 0; i-- {
		batch[i].low = low
		if index := batch[i].index; index != 0 {
			low = min(low, index)
		}
	}
	return batch
}

// wrote ends the waits that were for v.
func (n *Notifier) wrote(v *invalidation) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return
	}
	low := min(v.low, n.lowest)
	n.low.Store(low)
	kept := n.waiters[:0]
	for _, w := range n.waiters {
		if w.index < low {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	clear(n.waiters[len(kept):])
	n.waiters = kept
}

// runPolls writes poll wake-ups until the Notifier is stopped.
func (n *Notifier) runPolls() {
	defer n.done.Done()
	for {
		select {
		case <-n.stop:
			return
		case <-n.pollWork:
		}
		n.mu.Lock()
		polls := n.polls
		n.polls = nil
		clear(n.polled)
		n.mu.Unlock()
		for _, kh := range polls {
			n.wake(kh)
		}
	}
}

func (n *Notifier) isStopped() bool {
	select {
	case <-n.stop:
		return true
	default:
		return false
	}
}

func (n *Notifier) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped {
		return
	}
	n.done.Add(2)
	go n.run()
	go n.runPolls()
}

// end drops what is queued, lets everybody go who waits, and returns when the write under way, if any, is over.
func (n *Notifier) end() {
	n.mu.Lock()
	if !n.stopped {
		n.stopped = true
		close(n.stop)
		n.queue = nil
		clear(n.pending)
		n.low.Store(none)
		for _, w := range n.waiters {
			close(w.done)
		}
		n.waiters = nil
	}
	n.mu.Unlock()
	n.done.Wait()
}

func prod(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
