package cluster

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// room is how much may still be written before growth is refused. The file system is asked at most every roomAge; in
// between what is proposed is counted.
type room struct {
	until atomic.Int64 // unix ns: when to ask again
	left  atomic.Int64 // bytes
}

const roomAge = 250 * time.Millisecond

func (r *room) spend(n int) { r.left.Add(-2 * int64(n)) }

// Room returns nil, or ErrNoSpace (wrapped) when commands that make the state grow must be refused. What is kept free is
// room for the next segment of the log, the next snapshot and the reserve, so that renewals, releases and removals go on.
// It is cheap enough to be asked before every such command.
func (n *Node) Room() error {
	if now := time.Now().UnixNano(); now >= n.room.until.Load() {
		n.room.until.Store(now + int64(roomAge))
		have, err := free(n.config.Dir)
		if err != nil {
			return fmt.Errorf("lockfs: ask for the room left in %s: %w", n.config.Dir, err)
		}
		n.room.left.Store(have - n.needed())
	}
	if p := n.diskErr.Load(); p != nil && full(*p) {
		return fmt.Errorf("lockfs: %w: %w", ErrNoSpace, *p)
	}
	if left := n.room.left.Load(); left <= 0 {
		return fmt.Errorf("lockfs: %w: %s needs %d MiB more; free some room there", ErrNoSpace, n.config.Dir, (-left>>20)+1)
	}
	return nil
}

// needed is what must stay free.
func (n *Node) needed() int64 {
	snapshot := n.snap.size.Load() + n.snap.sinceLast()
	return n.config.limits.segment + snapshot + snapshot/4 + n.reserve.missing() + 1<<20
}

// refill makes the reserve whole again once there is room for it.
func (n *Node) refill() {
	missing := n.reserve.missing()
	if missing == 0 {
		return
	}
	if have, err := free(n.config.Dir); err != nil || have < n.needed() {
		return
	}
	if err := n.reserve.refill(); err != nil {
		n.log.Debug("no room for the reserve", "err", err)
	}
}

// stable is raft's stable store. raft panics when its term cannot be stored, so a write that fails is repeated
// until it succeeds or the node is closed. (lockfs.db has its room allocated; this is for disks that fail.)
type stable struct {
	*store
	reserve *reserve
	stop    <-chan struct{}
}

var _ raft.StableStore = stable{}

const stableRetry = 500 * time.Millisecond

func (s stable) Set(key, value []byte) error {
	return s.insist(func() error { return s.store.Set(key, value) })
}

func (s stable) SetUint64(key []byte, v uint64) error {
	return s.insist(func() error { return s.store.SetUint64(key, v) })
}

func (s stable) insist(write func() error) error {
	for {
		err := write()
		if err == nil {
			return nil
		}
		if full(err) && s.reserve.giveUp(s.reserve.size) {
			continue
		}
		select {
		case <-s.stop:
			select {} // raft would panic; the process is about to end
		case <-time.After(stableRetry):
		}
	}
}
