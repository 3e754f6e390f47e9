package lockd

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Limits of one proposal, and of proposals under way. While fewWay are under way what comes is gathered until one of them is
// answered, or it fills a proposal: an entry costs every host more than the commands in it.
const (
	batchCommands = 1024
	batchBytes    = 512 << 10
	window        = 64
	fewWay        = 2
)

// The pause after a proposal failed grows from the first to the second.
const (
	minPause = 5 * time.Millisecond
	maxPause = 250 * time.Millisecond
)

// pending is a command that is not answered yet, and who waits for it.
type pending struct {
	body  []byte           // the command, encoded
	named *statepb.Command // to be encoded when it is sent first, with the names of processes; nil: it is encoded
	seq   uint64           // its number, 0: none yet
	own   bool             // the table's, or nobody's: it ends with the session
	lock  *Lock            // whose commit it is, may be nil
	from  any              // Call.From of who waits
	need  uint64           // the session that it makes sense in; 0: any
	done  chan struct{}    // closed when answered; nil: nobody waits
	late  func(Result)     // told of an answer that nobody waits for any more; not of one that was not seen
	res   Result
	err   error
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

// size is how long the body is, or at least will be.
func (p *pending) size() int {
	if p.named != nil {
		return proto.Size(p.named)
	}
	return len(p.body)
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
	most := fewWay
	if len(q.list)-q.sent >= batchCommands {
		most = window
	}
	return q.sent < len(q.list) && q.inflight < most && !q.failed && !q.pausing
}

// add gives a command its number.
func (q *proposals) add(p *pending) {
	p.seq = q.next
	q.next++
	q.list = append(q.list, p)
}

// answered takes the command of that number off the list; nil if it is not the next one to be answered.
func (q *proposals) answered(seq uint64) *pending {
	if len(q.list) == 0 || q.list[0].seq != seq {
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

// batch takes the next commands to send in one entry.
func (q *proposals) batch(buf []*pending) []*pending {
	size := 0
	for q.sent < len(q.list) && len(buf) < batchCommands {
		p := q.list[q.sent]
		if size += p.size() + commandOverhead; size > batchBytes && len(buf) > 0 {
			break
		}
		buf = append(buf, p)
		q.sent++
	}
	return buf
}

// entry encodes a batch. The commands' bodies and numbers do not change any more.
func (q *proposals) entry(batch []*pending) []byte {
	size := 2 + commandOverhead
	for _, p := range batch {
		size += len(p.body) + commandOverhead
	}
	entry := appendBatch(make([]byte, 0, size))
	for _, p := range batch {
		entry = appendCommand(entry, q.session, p.seq, p.body)
	}
	return entry
}

// enqueue gives a command its number and puts it in the queue, or keeps it until there is a session.
func (h *Host) enqueue(p *pending) {
	if h.queue == nil {
		if !p.own {
			h.held = append(h.held, p)
		}
		return
	}
	h.tellNews()
	h.queue.add(p)
}

// command queues a command that nobody waits for and that makes sense in the present session only.
func (h *Host) command(cmd *statepb.Command) {
	if h.queue == nil {
		return
	}
	if cmd.TimeUnixNs == 0 {
		cmd.TimeUnixNs = h.wall().UnixNano()
	}
	h.tellNews()
	p := &pending{own: true}
	if cmd.GetAcquire() != nil {
		p.named = cmd
	} else {
		p.body = encode(cmd)
	}
	h.queue.add(p)
	cmd.Session, cmd.Seq = h.queue.session, p.seq // by these the table knows the answer to its own
}

// withdraw forgets a command whose caller gave up. One that was never sent is not going to be applied; one that was
// may have been. Its number has to be used all the same.
func (h *Host) withdraw(p *pending) {
	if i := slices.Index(h.held, p); i >= 0 {
		h.held = slices.Delete(h.held, i, i+1)
		return
	}
	if h.queue == nil {
		return
	}
	for i, x := range h.queue.list {
		if x == p {
			h.queue.list[i] = &pending{own: true, seq: p.seq, late: p.late, body: encode(&statepb.Command{
				TimeUnixNs: h.wall().UnixNano(),
				Op:         &statepb.Command_Barrier{Barrier: &statepb.Barrier{}},
			})}
			return
		}
	}
}

// withdrawHeld forgets a command that waits for a session, and reports whether it did.
func (h *Host) withdrawHeld(p *pending) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.held, p)
	if i < 0 {
		return false
	}
	h.held = slices.Delete(h.held, i, i+1)
	return true
}

// propose is the goroutine that hands batches to the log.
func (h *Host) propose() {
	defer h.work.Done()
	for {
		select {
		case <-h.stopped:
			return
		case <-h.kick:
		}
		for h.proposeOnce() {
		}
	}
}

// proposeOnce hands one entry to the log, if there is something to propose.
func (h *Host) proposeOnce() bool {
	h.mu.Lock()
	control := h.control
	h.control = nil
	if len(control) > 0 {
		h.mu.Unlock()
		h.cfg.Log.Propose(state.Encode(control), func(error) {}) // whoever asked repeats it
		return true
	}
	if h.newsPending() {
		h.tellNews()
	}
	q := h.queue
	if q == nil || !q.wants() {
		h.mu.Unlock()
		return false
	}
	batch := q.batch(nil)
	q.inflight++
	h.counts.Entries++
	h.counts.Commands += uint64(len(batch))
	h.mu.Unlock()
	for _, p := range batch {
		if p.named != nil {
			h.nameProcesses(p.named)
			p.body, p.named = encode(p.named), nil
		}
	}
	sent := h.cfg.Now()
	h.cfg.Log.Propose(q.entry(batch), func(err error) { h.proposed(q, sent, err) })
	return true
}

// proposed is told how a proposal ended that was sent at some time.
func (h *Host) proposed(q *proposals, sent int64, err error) {
	took := time.Duration(h.cfg.Now() - sent)
	h.mu.Lock()
	q.inflight--
	if err == nil {
		h.counts.Commit.add(took)
	}
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
