package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/cluster/wire"
)

// Open locks the data directory against a second daemon, verifies everything in it, takes the port and opens the log.
// A directory that is missing or empty becomes a new cluster of one. What a crash leaves is put in order; anything else
// that is wrong (a damaged or missing file, a newer format, rights that are too wide or too narrow, a port that is
// taken) is an error that says what is wrong and what to do, and nothing in the directory is changed.
//
// Nothing is applied before Start. The caller must Close the node in any case.
func Open(config Config) (*Node, error) {
	c := config.withDefaults()
	n, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("lockfs: open the data directory %s: %w", c.Dir, err)
	}
	return n, nil
}

func open(c Config) (n *Node, err error) {
	undo := func(f func() error) {
		if err != nil {
			f()
		}
	}
	if c.Dir == "" {
		return nil, errors.New("no directory is named; use --data-dir DIR")
	}
	if real, err := filepath.EvalSymlinks(c.Dir); err == nil {
		c.Dir = real
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(c.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("%w; make it, or name another one with --data-dir", err)
		}
		defer undo(func() error { return os.Remove(c.Dir) })
	}
	if err := checkRights(c.Dir); err != nil {
		return nil, err
	}
	if _, err := isNew(c.Dir); err != nil { // before a lock file is made in some other program's directory
		return nil, err
	}
	lock, err := lockDir(c.Dir)
	if err != nil {
		return nil, err
	}
	defer undo(lock.drop)
	fresh, err := isNew(c.Dir)
	if err != nil {
		return nil, err
	}
	was := &contents{}
	if !fresh {
		if was, err = verify(c.Dir); err != nil {
			return nil, err
		}
	}
	stream, err := listen(c.Bind, c.Advertise)
	if err != nil {
		return nil, err
	}
	defer undo(stream.Close)

	// From here on the directory is changed.
	if err := errors.Join(lock.sign(), makeDirs(c.Dir)); err != nil {
		return nil, err
	}
	if fresh {
		was.identity = Identity{Format: FormatVersion, Cluster: newID(), Host: newID(), Name: c.name(""), Created: time.Now().UTC()}
		if c.joins != "" {
			was.identity.Cluster, was.identity.Founded = c.joins, true
		}
		if err := createStore(c.Dir, was.identity, nil); err != nil {
			return nil, fmt.Errorf("make %s: %w", storeName, err)
		}
	}
	return openVerified(c, was, lock, stream)
}

func makeDirs(dir string) error {
	for _, name := range []string{logName, snapsName} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return syncDir(dir)
}

// openVerified opens what was found and verified.
func openVerified(c Config, was *contents, lock *dirLock, stream *stream) (n *Node, err error) {
	n = newNode(c, was)
	n.lock = lock
	defer func() {
		if err != nil {
			n.closeFiles()
		}
	}()
	if n.store, err = openStore(filepath.Join(c.Dir, storeName)); err != nil {
		return nil, err
	}
	if err := os.Remove(filepath.Join(c.Dir, restoreName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if was.stopped != nil {
		if err := n.store.delete(bucketDaemon, keyStopped); err != nil {
			return nil, err
		}
	}
	if name := c.name(was.identity.Name); name != was.identity.Name {
		n.identity.Name = name
		if err := n.store.putJSON(bucketIdentity, keyIdentity, n.identity); err != nil {
			return nil, err
		}
	}
	log := filepath.Join(c.Dir, logName)
	n.reserve = newReserve(log, c.limits.segment)
	files := &files{dir: log, reserve: n.reserve, fault: c.fault}
	if n.journal, err = openJournal(&logMeta{store: n.store, files: files}, c.limits.segment, n.hclog("wal")); err != nil {
		return nil, err
	}
	n.journal.ended, n.journal.grew = n.appendEnded, n.snap.grew
	if was.inMemory() {
		n.journal.keepIn(newMemory(&n.snap))
	}
	if was.obsolete {
		if err := n.journal.clear(); err != nil {
			return nil, err
		}
	}
	if err := n.reserve.refill(); err != nil {
		n.log.Warn("no room for the reserve that keeps locks going when the disk is full", "dir", c.Dir, "err", err)
	}
	keep := ""
	if was.snapshot != nil {
		keep = was.snapshot.ID
		n.snap.last(&was.snapshot.SnapshotMeta)
	}
	if err := clearSnapshots(filepath.Join(c.Dir, snapsName), keep); err != nil {
		return nil, err
	}
	if n.snaps, err = raft.NewFileSnapshotStoreWithLogger(c.Dir, retainSnapshots, n.hclog("snapshot")); err != nil {
		return nil, err
	}
	n.port, err = wire.New(wire.Config{
		Listener: stream.Listener, Advertise: stream.advertise, TLS: c.TLS, Self: n.self, Dial: c.dial, Logger: c.Logger,
	})
	return n, err
}

// foundCluster writes the first entry of a new cluster, whose only voter is this host. A crash before it was noted that this
// was done leaves the term, or the term and the entry.
func (n *Node) foundCluster(trans raft.Transport, config *raft.Config) error {
	if n.identity.Founded {
		return nil
	}
	if last, err := n.journal.LastIndex(); err != nil {
		return err
	} else if last == 0 {
		if err := n.store.SetUint64([]byte(keyCurrentTerm), 0); err != nil {
			return err
		}
		self := raft.Configuration{Servers: []raft.Server{{ID: config.LocalID, Address: trans.LocalAddr()}}}
		if err := raft.BootstrapCluster(config, n.journal, n.store, n.snaps, trans, self); err != nil {
			return fmt.Errorf("found the cluster: %w", err)
		}
	}
	n.identity.Founded = true
	return n.store.putJSON(bucketIdentity, keyIdentity, n.identity)
}
