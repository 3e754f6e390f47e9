package lockd

import (
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Limits of one proposal, and of proposals under way.
const (
	batchCommands = 1024
	batchBytes    = 512 << 10
	window        = 64
)

// The pause after a proposal failed grows from the first to the second.
const (
	minPause = 5 * time.Millisecond
	maxPause = 250 * time.Millisecond
)

// pending is a command that is not answered yet, and who waits for it.
type pending struct {
	cmd  *statepb.Command
	own  bool          // the table's: nobody waits, and it ends with the session
	lock *Lock         // whose commit it is, may be nil
	need uint64        // the session that it makes sense in; 0: any
	done chan struct{} // closed when answered; nil: nobody waits
	late func(Result)  // told of an answer that nobody waits for any more
	res  Result
	err  error
	size int
}

// finish answers whoever waits.
func (p *pending) finish(res Result, err error) {
	if p.done == nil {
		if p.late != nil && err == nil {
			p.late(res)
		}
		return
	}
	p.res, p.err = res, err
	close(p.done)
	p.done = nil
}

// proposals are the commands of one session that are not answered yet, in the order of their numbers. They are sent in
// that order, in batches, several under way at once. When one fails, all that are not answered are sent again
// once nothing is under way any more: what was applied meanwhile is a repeat to the state, and harmless.
type proposals struct {
	session  uint64
	next     uint64 // seq of the next command
	list     []*pending
	sent     int // how many of the list are sent
	inflight int // proposals under way
	failed   bool
	pausing  bool
	pause    time.Duration
}

// wants reports whether there is something to send now.
func (q *proposals) wants() bool {
	return q.sent < len(q.list) && q.inflight < window && !q.failed && !q.pausing
}

// add gives a command its number.
func (q *proposals) add(p *pending) {
	p.cmd.Session, p.cmd.Seq = q.session, q.next
	q.next++
	q.list = append(q.list, p)
}

// answered takes the command of that number off the list; nil if it is not the next one to be answered.
func (q *proposals) answered(seq uint64) *pending {
	if len(q.list) == 0 || q.list[0].cmd.Seq != seq {
		return nil
	}
	p := q.list[0]
	q.list[0] = nil
	q.list = q.list[1:]
	if q.sent > 0 {
		q.sent--
	}
	return p
}

// again starts from the first command that is not answered, now or when nothing is under way.
func (q *proposals) again() {
	if q.inflight > 0 {
		q.failed = true
		return
	}
	q.failed, q.sent = false, 0
}

// batch returns the next commands to send in one entry.
func (q *proposals) batch(buf []*statepb.Command) []*statepb.Command {
	size := 0
	for q.sent < len(q.list) && len(buf) < batchCommands {
		p := q.list[q.sent]
		if p.size == 0 {
			p.size = proto.Size(p.cmd)
		}
		if size += p.size; size > batchBytes && len(buf) > 0 {
			break
		}
		buf = append(buf, p.cmd)
		q.sent++
	}
	return buf
}

// enqueue gives a command its number and puts it in the queue, or keeps it until there is a session.
func (h *Host) enqueue(p *pending) {
	if p.cmd.TimeUnixNs == 0 {
		p.cmd.TimeUnixNs = h.wall().UnixNano()
	}
	if h.queue == nil {
		if !p.own {
			h.held = append(h.held, p)
		}
		return
	}
	h.queue.add(p)
}

// withdraw forgets a command whose caller gave up. One that was never sent is not going to be applied; one that was
// may have been. Its number has to be used all the same.
func (h *Host) withdraw(p *pending) {
	for i, x := range h.held {
		if x == p {
			h.held = append(h.held[:i], h.held[i+1:]...)
			return
		}
	}
	if h.queue == nil {
		return
	}
	for i, x := range h.queue.list {
		if x == p {
			h.queue.list[i] = &pending{own: true, cmd: &statepb.Command{
				Session: p.cmd.Session, Seq: p.cmd.Seq, TimeUnixNs: p.cmd.TimeUnixNs,
				Op: &statepb.Command_Barrier{Barrier: &statepb.Barrier{}},
			}}
			return
		}
	}
}

// propose is the goroutine that hands batches to the log.
func (h *Host) propose() {
	defer h.work.Done()
	var buf []*statepb.Command
	for {
		select {
		case <-h.stopped:
			return
		case <-h.kick:
		}
		for {
			h.mu.Lock()
			buf = append(buf[:0], h.control...)
			h.control = nil
			q := h.queue
			control := len(buf) > 0
			if !control {
				if q == nil || !q.wants() {
					h.mu.Unlock()
					break
				}
				buf = q.batch(buf)
				q.inflight++
				h.counts.Entries++
				h.counts.Commands += uint64(len(buf))
			}
			h.unlock()
			entry := state.Encode(buf)
			clear(buf)
			if control {
				h.cfg.Log.Propose(entry, func(error) {}) // whoever asked repeats it
			} else {
				h.cfg.Log.Propose(entry, func(err error) { h.proposed(q, err) })
			}
		}
	}
}

// proposed is told how a proposal ended.
func (h *Host) proposed(q *proposals, err error) {
	h.mu.Lock()
	q.inflight--
	switch {
	case err != nil:
		h.counts.Failed++
		q.failed = true
	case !q.failed:
		q.pause = 0
	}
	if q.failed && q.inflight == 0 && !q.pausing {
		q.failed, q.sent = false, 0
		q.pause = min(max(2*q.pause, minPause), maxPause)
		q.pausing = true
		h.after(q.pause, func() {
			h.mu.Lock()
			q.pausing = false
			h.unlock()
		})
	}
	h.unlock()
}

// after runs f later, unless the host is closed before. Called with the mutex held.
func (h *Host) after(d time.Duration, f func()) {
	if h.phase == closed {
		return
	}
	h.work.Add(1)
	go func() {
		defer h.work.Done()
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			f()
		case <-h.stopped:
		}
	}()
}

// failPending answers all that wait for a command.
func (h *Host) failPending(err error) {
	for _, p := range h.held {
		p.finish(Result{}, err)
	}
	h.held = nil
	if h.queue != nil {
		for _, p := range h.queue.list {
			p.finish(Result{}, err)
		}
		h.queue = nil
	}
}
