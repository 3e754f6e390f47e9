package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// hinter tells followers of commits. raft tells them with its next message, which without further entries is up to
// CommitTimeout late; so when it is about to apply an entry the leader sends each of them an AppendEntries of no entries.
// What makes that safe:
//
//   - Its term is CurrentTerm, read equal before and after State was seen to be Leader: this host led in that term.
//   - Its commit index and its previous entry are both that entry, with its own term. So the follower takes it
//     only if it has that very entry, and then (log matching) everything before it as the leader has it.
//   - It never goes to the leader itself, who would take a wrong term for another leader's. (Whoever answers at a
//     follower's address is that follower: wire.At.)
//
// One hint is under way to a follower at a time, and the newest entry counts. A follower that does not have the
// entry yet refuses; it is asked again for as long as raft's own message may take to come, and no longer. If it refuses
// although its log goes further, its log is another one: that is for raft to mend.
type hinter struct {
	raft  leads
	trans raft.Transport
	self  raft.ServerID

	newest atomic.Pointer[commit]
	active atomic.Bool // there are followers to tell
	ended  sync.WaitGroup

	mu        sync.Mutex
	leading   bool
	followers map[raft.ServerID]*hinted
	wakes     atomic.Pointer[[]chan struct{}] // of followers
}

// leads is what a hinter asks raft.
type leads interface {
	CurrentTerm() uint64
	State() raft.RaftState
	GetConfiguration() raft.ConfigurationFuture
}

// commit is an entry that raft had applied here, so it is committed.
type commit struct{ index, term uint64 }

// hinted is a follower being told.
type hinted struct {
	server raft.Server
	wake   chan struct{} // 1
	stop   context.CancelFunc
}

// A refused hint is repeated after the first, then after twice that and so on up to the second, until the third.
const (
	minHintPause = 200 * time.Microsecond
	maxHintPause = 20 * time.Millisecond
	hintFor      = commitTimeout
)

// newHinter returns one that does nothing until it leads. Its raft must be set before.
func newHinter(trans raft.Transport, self raft.ServerID) *hinter {
	return &hinter{trans: trans, self: self, followers: map[raft.ServerID]*hinted{}}
}

// committed is told of the newest entry that is about to be applied, by the applying goroutine.
func (h *hinter) committed(index, term uint64) {
	if !h.active.Load() {
		return
	}
	h.newest.Store(&commit{index, term})
	for _, wake := range *h.wakes.Load() {
		token(wake)
	}
}

// lead makes this host one that hints, with the members as they are now, or not. It is called again when they change.
func (h *hinter) lead(leading bool) {
	var servers []raft.Server
	if leading {
		if f := h.raft.GetConfiguration(); f.Error() == nil {
			servers = f.Configuration().Servers
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leading = leading
	wanted := map[raft.ServerID]raft.Server{}
	for _, s := range servers {
		if s.ID != h.self {
			wanted[s.ID] = s
		}
	}
	for id, f := range h.followers {
		if _, stays := wanted[id]; !stays {
			f.stop()
			delete(h.followers, id)
		}
	}
	for id, s := range wanted {
		if h.followers[id] == nil {
			ctx, stop := context.WithCancel(context.Background())
			f := &hinted{server: s, wake: make(chan struct{}, 1), stop: stop}
			h.followers[id] = f
			h.ended.Go(func() { h.tell(ctx, f) })
		}
	}
	wakes := make([]chan struct{}, 0, len(h.followers))
	for _, f := range h.followers {
		wakes = append(wakes, f.wake)
	}
	h.wakes.Store(&wakes)
	h.active.Store(len(wakes) > 0)
}

// changed looks at the members again.
func (h *hinter) changed() {
	h.mu.Lock()
	leading := h.leading
	h.mu.Unlock()
	if leading {
		h.lead(true)
	}
}

// term returns the term in which this host leads; false if it does not.
func (h *hinter) term() (uint64, bool) {
	term := h.raft.CurrentTerm()
	if h.raft.State() != raft.Leader {
		return 0, false
	}
	return term, h.raft.CurrentTerm() == term
}

// tell is the goroutine of one follower.
func (h *hinter) tell(ctx context.Context, f *hinted) {
	var told uint64 // it knows of this entry, or need not be told any more
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		}
		var first *commit // refused
		var since time.Time
		pause := minHintPause
		for {
			c := h.newest.Load()
			if c.index <= told {
				break
			}
			outcome := h.send(f.server, c)
			if outcome != hintEarly {
				told = c.index
				continue
			}
			if first == nil || first.index != c.index {
				first, since, pause = c, time.Now(), minHintPause
			}
			if time.Since(since) >= hintFor {
				told = c.index
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, maxHintPause)
		}
	}
}

// What came of a hint.
type hintOutcome uint8

const (
	hintTaken   hintOutcome = iota
	hintEarly               // the follower does not have the entry yet
	hintDropped             // this hint is of no use
)

func (h *hinter) send(to raft.Server, c *commit) hintOutcome {
	term, leads := h.term()
	if !leads {
		return hintDropped
	}
	addr := h.trans.EncodePeer(h.self, h.trans.LocalAddr())
	req := raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(h.self), Addr: addr},
		Term:      term,
		// The same entry twice: what must be there, and how far it is committed.
		PrevLogEntry: c.index, PrevLogTerm: c.term, LeaderCommitIndex: c.index,
	}
	var resp raft.AppendEntriesResponse
	err := h.trans.AppendEntries(to.ID, to.Address, &req, &resp)
	if err != nil { // the connection may have been an old one
		err = h.trans.AppendEntries(to.ID, to.Address, &req, &resp)
	}
	switch {
	case err != nil:
		return hintDropped
	case resp.Success:
		return hintTaken
	case resp.Term > term, resp.LastLog >= c.index:
		return hintDropped
	}
	return hintEarly
}
