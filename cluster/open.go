package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/lockfs/lockfs/cluster/gossip"
	"github.com/lockfs/lockfs/cluster/wire"
)

// Open locks the data directory against a second daemon, verifies everything in it, takes the port and opens the log.
// A directory that is missing or empty becomes a new cluster of one, or with Config.Join a host that waits to be admitted. What a crash leaves is put in order; anything else
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
	if !fresh && !c.Reset {
		if was, err = verify(c.Dir); err == nil {
			err = c.mayStart(&was.identity)
		}
		if err != nil {
			return nil, err
		}
	}
	stream, err := listen(c.Bind, c.Advertise)
	if err != nil {
		return nil, err
	}
	defer undo(stream.Close)
	heard, err := c.listenGossip(stream)
	if err != nil {
		return nil, err
	}
	if heard != nil {
		defer undo(func() error { return heard.Close(false) })
	}

	// From here on the directory is changed.
	if c.Reset {
		to, err := moveAside(c.Dir)
		if err != nil {
			return nil, err
		}
		if to != "" {
			c.Logger.Info("starting as a new host, as --reset asks", "old data", to)
		}
		fresh = true
	}
	if err := errors.Join(lock.sign(), makeDirs(c.Dir), clearInit(c.Dir)); err != nil {
		return nil, err
	}
	if fresh {
		was.identity = c.newIdentity()
		if err := createStore(c.Dir, was.identity, nil); err != nil {
			return nil, fmt.Errorf("make %s: %w", storeName, err)
		}
	}
	return openVerified(c, was, lock, stream, heard)
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
func openVerified(c Config, was *contents, lock *dirLock, stream *stream, heard *gossip.Gossip) (n *Node, err error) {
	n = newNode(c, was)
	n.lock, n.gossip = lock, heard
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
	if err := n.become(func(id *Identity) { id.Name = c.name(id.Name) }); err != nil {
		return nil, err
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
	if n.snaps, err = openSnapshots(c.Dir, n.hclog("snapshot")); err != nil {
		return nil, err
	}
	n.journal.mayGo = func(last uint64) uint64 {
		if sent, is := n.snaps.sending.oldest(time.Now()); is {
			return n.snap.mayGo(last, sent)
		}
		return last
	}
	n.snaps.replace, n.snaps.room, n.snaps.unknown = n.replacedBy, n.roomToInstall, n.fail
	n.snaps.stall, n.snaps.hangUp = snapshotStall, n.hangUp
	n.port, err = wire.New(wire.Config{
		Listener: stream.Listener, Advertise: stream.advertise, TLS: c.TLS, Self: n.self, Removed: n.isRemoved, Dial: c.dial, Logger: c.Logger,
	})
	return n, err
}

// mayStart says why a host that was one before must not go on as it is.
func (c Config) mayStart(id *Identity) error {
	switch {
	case id.stage() == gone:
		return errLeft()
	case id.stage() == waiting && len(c.Join) == 0:
		return errors.New("its host waits to be admitted to a cluster: start it with --join as before, or with --reset to found a cluster of its own")
	}
	return nil
}
