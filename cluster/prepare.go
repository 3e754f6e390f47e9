package cluster

import (
	"context"
	"fmt"
	"time"
)

// A host that is not to be a voter keeps its log in memory. What it acknowledges then counts for nothing: raft counts
// voters only, and a voter it becomes only after prepare. A restart begins at the newest snapshot on disk, with no entries.
//
// The states that a crash can leave, by lockfs.db:
//
//	kept.Memory   the log's files, if there is anything in them, are of a prepare that was cut off and count for nothing
//	otherwise     the log is on disk, from the newest snapshot on or from its first entry

// durable says whether what this host acknowledges is on its disk. Once it is, it always will be.
func (n *Node) durable() bool { return !n.journal.inMemory() }

// keepInMemory makes this host keep its log in memory, if it has none yet; durable says what came of it. It may be called at
// any time after Open. A restart goes on the same way.
func (n *Node) keepInMemory() error {
	if n.hasLog {
		return nil
	}
	err := n.journal.toMemory(newMemory(&n.snap), func() error { return n.store.putJSON(bucketLog, keyKept, kept{Memory: true}) })
	if err != nil {
		return fmt.Errorf("lockfs: keep the log in memory: %w", err)
	}
	return nil
}

// prepareRetry is how long after a snapshot that could not be taken the next is tried.
const prepareRetry = 50 * time.Millisecond

// prepare makes this host one that may become a voter: its state goes to disk as a snapshot, then its log, and from then on
// nothing is acknowledged before it is on disk. It may be called again after an error, and does nothing on a host that is
// durable already. Called after Start.
func (n *Node) prepare(ctx context.Context) error {
	if n.durable() {
		return nil
	}
	for { // raft takes none while the members change; and the shorter the log, the shorter it stops below
		err := n.Snapshot()
		if err == nil {
			break
		}
		select {
		case <-time.After(prepareRetry):
		case <-n.stop:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("lockfs: write a snapshot before the log goes to disk: %w (%w)", err, context.Cause(ctx))
		}
	}
	err := n.journal.toDisk(func() error { return n.store.putJSON(bucketLog, keyKept, kept{}) })
	if err != nil {
		return fmt.Errorf("lockfs: take the log to disk: %w", err)
	}
	n.log.Info("this host keeps its log on disk from now on")
	return nil
}
