package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// The errors of a proposal. After any of them the entry may or may not come to be applied; sending its commands again is
// harmless, since the state takes each (session, sequence) once.
var (
	ErrClosed   = errors.New("this host is stopping")
	ErrNoLeader = errors.New("the cluster has no leader now")
	ErrTooMany  = errors.New("too many proposals are waiting")
	ErrTooBig   = errors.New("the entry is too big")
	ErrNoSpace  = errors.New("the disk of the data directory is full")
)

// What may wait for a leader, or for raft, on one host.
const (
	maxWaiting      = 1 << 16
	maxWaitingBytes = 64 << 20
)

// maxEntry is the bytes that one entry may have, on any host.
const maxEntry = 16 << 20

// proposal is an entry on its way to the log.
type proposal struct {
	entry  []byte
	done   func(error)
	since  time.Time
	here   bool // it is to be appended by this host or not at all: another one forwarded it
	future raft.ApplyFuture
}

// end reports the outcome.
func (e *proposal) end(err error) {
	if e.done != nil {
		e.done(err)
	}
}

// proposer hands entries to raft in order and reports how each ended, in order. While few are under way they go to raft
// straight from propose; else, and when there is no leader, they queue up for a goroutine that feeds raft. Raft gathers
// what is there in one append to the log and one fsync. Another goroutine waits for the outcomes. While another host
// leads, the link to it takes the entries from the queue (lend.go).
type proposer struct {
	apply   func(entry []byte) raft.ApplyFuture // blocks while raft has maxAppend entries that it has not looked at
	failed  func(error) error                   // what an error of raft means
	timeout time.Duration                       // how long an entry waits for a leader

	wake  chan struct{} // 1: the queue or the gate changed
	sent  chan proposal
	ended sync.WaitGroup

	mu     sync.Mutex
	queue  []proposal
	bytes  int
	open   bool  // entries may go to raft
	link   *link // nil, or who takes them; not while open
	feeds  bool  // the goroutine is sending what it took
	flying int   // with raft, or reported in a moment
	closed bool

	appended  uint64 // entries that went to raft here
	forwarded uint64 // that were sent to the leader
}

func newProposer(apply func([]byte) raft.ApplyFuture, failed func(error) error, timeout time.Duration) *proposer {
	p := &proposer{apply: apply, failed: failed, timeout: timeout, wake: make(chan struct{}, 1), sent: make(chan proposal, 1024)}
	p.ended.Go(p.feed)
	p.ended.Go(p.report)
	return p
}

// propose queues an entry. done is called once, never from within propose.
func (p *proposer) propose(entry []byte, done func(error)) {
	e := proposal{entry: entry, done: done}
	if err := p.put(e); err != nil {
		go e.end(err)
	}
}

// put is propose, but for errors that are known at once.
func (p *proposer) put(e proposal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return ErrClosed
	case e.here && !p.open:
		return ErrNoLeader
	case len(e.entry) > maxEntry:
		return ErrTooBig
	case len(p.queue) >= maxWaiting || p.bytes+len(e.entry) > maxWaitingBytes:
		return ErrTooMany
	case p.open && !p.feeds && len(p.queue) == 0 && p.flying < fewFlying:
		p.flying++
		p.appended++
		e.future = p.apply(e.entry)
		p.sent <- e // neither blocks: both have room for more than fewFlying
		return nil
	}
	e.since = time.Now()
	p.queue = append(p.queue, e)
	p.bytes += len(e.entry)
	if p.link != nil {
		p.link.kick()
	} else {
		p.kick()
	}
	return nil
}

// fewFlying is how many entries may be under way for one more to go to raft at once.
const fewFlying = maxAppend / 2

func (p *proposer) kick() { token(p.wake) }

func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// gate opens or shuts the way to raft: entries wait while there is no leader.
func (p *proposer) gate(open bool) {
	p.mu.Lock()
	p.open = open
	if open {
		p.link = nil
	}
	p.mu.Unlock()
	p.kick()
}

// shut ends every entry that waits; no other is taken.
func (p *proposer) shut() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.kick()
}

// close does that too, and returns when all outcomes of raft were reported.
func (p *proposer) close() {
	p.shut()
	p.ended.Wait()
}

func (p *proposer) feed() {
	defer close(p.sent)
	var timer *time.Timer // while entries wait for the gate
	var expired <-chan time.Time
	for {
		select {
		case <-p.wake:
		case <-expired:
		}
		if timer != nil {
			timer.Stop()
			timer, expired = nil, nil
		}
		send, fail, wait, closed := p.take()
		for _, e := range send {
			e.future = p.apply(e.entry)
			p.sent <- e
		}
		for _, e := range fail {
			p.sent <- e
		}
		p.fed()
		if closed {
			return
		}
		if wait > 0 {
			timer = time.NewTimer(wait)
			expired = timer.C
		}
	}
}

// take returns what goes to raft, what has waited too long, and for how long the first of the rest may wait.
func (p *proposer) take() (send, fail []proposal, wait time.Duration, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.queue
	switch {
	case p.closed:
		p.queue, p.bytes, p.feeds = nil, 0, true
		p.flying += len(all)
		return nil, all, 0, true
	case p.open:
		p.queue, p.bytes, p.feeds = nil, 0, len(all) > 0
		p.flying += len(all)
		p.appended += uint64(len(all))
		return all, nil, 0, false
	}
	now := time.Now()
	late := func(e proposal) bool { return e.here || now.Sub(e.since) >= p.timeout }
	if slices.ContainsFunc(all, late) {
		p.queue = nil
		for _, e := range all {
			if late(e) {
				fail = append(fail, e)
				p.bytes -= len(e.entry)
			} else {
				p.queue = append(p.queue, e)
			}
		}
	}
	p.flying += len(fail)
	if len(p.queue) > 0 {
		wait = p.timeout - now.Sub(p.queue[0].since)
		if p.link != nil {
			p.link.kick()
		}
	}
	return nil, fail, wait, false
}

// fed notes that what was taken is with raft.
func (p *proposer) fed() {
	p.mu.Lock()
	p.feeds = false
	p.mu.Unlock()
}

func (p *proposer) report() {
	for e := range p.sent {
		var err error
		switch {
		case e.future != nil:
			err = p.outcome(e.future)
		case p.isClosed():
			err = ErrClosed
		default:
			err = p.failed(ErrNoLeader)
		}
		p.mu.Lock()
		p.flying--
		p.mu.Unlock()
		e.end(err)
	}
}

// counts returns how many entries went to raft and how many to the leader.
func (p *proposer) counts() (appended, forwarded uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.appended, p.forwarded
}

func (p *proposer) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *proposer) outcome(f raft.ApplyFuture) error {
	err := f.Error()
	if err == nil {
		err, _ = f.Response().(error)
		return err
	}
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return p.failed(fmt.Errorf("%w (%w)", ErrNoLeader, err))
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	}
	return p.failed(err)
}
