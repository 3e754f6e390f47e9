package cluster

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// snapper decides when to take a snapshot: after so many entries or bytes of them. raft counts entries only, of which
// one may be 256 KiB.
type snapper struct {
	limits  logLimits
	wanted  chan struct{} // 1
	taking  sync.Mutex    // held while one is taken
	entries atomic.Uint64 // since the last snapshot
	bytes   atomic.Int64
	size    atomic.Int64  // of the last snapshot, 0 if there is none
	index   atomic.Uint64 // the entry that it is of
	taken   atomic.Uint64 // snapshots, here or from the leader
}

// grew counts entries that were appended.
func (s *snapper) grew(entries uint64, bytes int64) {
	e, b := s.entries.Add(entries), s.bytes.Add(bytes)
	if e >= s.limits.entries || b >= s.logBytes() {
		select {
		case s.wanted <- struct{}{}:
		default:
		}
	}
}

// logBytes is how many bytes of entries there may be before the next snapshot.
func (s *snapper) logBytes() int64 { return max(s.limits.bytes, s.size.Load()) }

// last notes the newest snapshot.
func (s *snapper) last(m *raft.SnapshotMeta) {
	s.size.Store(m.Size)
	s.index.Store(m.Index)
}

// installed notes a snapshot that the leader sent: it takes the place of the log before it.
func (s *snapper) installed(m *raft.SnapshotMeta) {
	s.last(m)
	s.taken.Add(1)
	s.entries.Store(0)
	s.bytes.Store(0)
}

// sinceLast returns the bytes of entries since the last snapshot.
func (s *snapper) sinceLast() int64 { return s.bytes.Load() }

// trailing returns how many entries to keep before a snapshot: as many as are about trailingBytes.
func (s *snapper) trailing() uint64 {
	return min(s.limits.trailing, max(1, s.fit(s.limits.trailingBytes)))
}

// fit returns how many entries, of the size that they have on average, are about so many bytes.
func (s *snapper) fit(bytes int64) uint64 {
	e, b := s.entries.Load(), s.bytes.Load()
	if e == 0 || b == 0 {
		return s.limits.entries
	}
	return uint64(float64(bytes) * float64(e) / float64(b))
}

// mayGo returns up to which entry the log may be dropped, of those up to last: what follows a snapshot that is being sent stays, but
// no more than there may be between two snapshots.
func (s *snapper) mayGo(last, sent uint64) uint64 {
	if sent >= last || last-sent > min(s.limits.entries, s.fit(s.logBytes())) {
		return last
	}
	return sent
}

// snapshotRetry is how long after a snapshot that failed (a full disk) the next is tried.
const snapshotRetry = 10 * time.Second

// snapshots takes snapshots when they are wanted. The state is taken in O(1); it is written while entries are applied.
func (n *Node) snapshots() {
	for {
		select {
		case <-n.stop:
			return
		case <-n.snap.wanted:
		}
		err := n.Snapshot()
		if err == nil || errors.Is(err, raft.ErrRaftShutdown) {
			continue
		}
		n.log.Warn("no snapshot could be taken; the log grows until one can", "dir", n.config.Dir, "err", err)
		select {
		case <-n.stop:
			return
		case <-time.After(snapshotRetry):
		}
		n.snap.grew(0, 0)
	}
}

// Snapshot writes a snapshot now and drops the log's entries before it but for some that followers may need.
func (n *Node) Snapshot() error {
	n.snap.taking.Lock()
	defer n.snap.taking.Unlock()
	entries, bytes := n.snap.entries.Load(), n.snap.bytes.Load()
	if err := n.trail(n.snap.trailing()); err != nil {
		return err
	}
	started := time.Now()
	if err := n.raft.Snapshot().Error(); err != nil {
		if !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return err
		}
	}
	n.snap.entries.Add(-entries)
	n.snap.bytes.Add(-bytes)
	if list, err := n.snaps.List(); err == nil && len(list) > 0 {
		n.snap.last(list[0])
		n.snap.taken.Add(1)
		n.log.Debug("snapshot", "index", list[0].Index, "bytes", list[0].Size, "took", time.Since(started))
	}
	return nil
}
