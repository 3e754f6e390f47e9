package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
)

// restoreName is a file that is there while a snapshot is being restored to a directory. The last step but the file's removal
// is that lockfs.db is renamed into place, so the directory is whole once that is there, and nothing before.
const restoreName = "restore" + tmpSuffix

// restoredTerm is raft's term in which a restored snapshot is.
const restoredTerm = 1

// Restore makes dir the data directory of a new cluster, with an id of its own, that begins with the state of an operator's
// snapshot (state.Rebase: sessions, locks and waits have ended, tokens go on far beyond those given out). Its only
// member is this host, of that name (empty: the machine's); the others join it with empty directories. dir must be
// missing or empty. What was cut off by a crash is not used by Open, and done again by Restore.
//
// The snapshot is read and verified before anything is written.
func Restore(dir, name string, r io.Reader) error {
	if err := restore(dir, name, r); err != nil {
		return fmt.Errorf("lockfs: restore a snapshot to %s: %w", dir, err)
	}
	return nil
}

func restore(dir, name string, r io.Reader) error {
	if dir == "" {
		return errors.New("no directory is named; use --data-dir DIR")
	}
	made, err := restorable(dir)
	if err != nil {
		return err
	}
	_, s, err := readSaved(r)
	if err != nil {
		return err
	}
	s.Rebase()
	if made {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := checkRights(dir); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := restorable(dir); err != nil { // now that nobody else can change it
		return err
	}
	return fillRestored(dir, Config{Name: name}.name(""), s)
}

// restorable says whether a directory is yet to be made, and why a snapshot cannot be restored to it.
func restorable(dir string) (missing bool, err error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	there := map[string]bool{}
	for _, e := range list {
		there[e.Name()] = true
	}
	if there[storeName] {
		return false, errors.New("it is a host's data directory already; name one that is missing or empty, " +
			"and move this one away if it is no longer wanted")
	}
	cutOff := there[restoreName]
	for name := range there {
		switch name {
		case lockName, "lost+found", restoreName:
		case logName, snapsName, storeName + tmpSuffix:
			if !cutOff {
				return false, fmt.Errorf("there is %q in it; name a directory that is missing or empty", name)
			}
		default:
			return false, fmt.Errorf("there is %q in it; name a directory that is missing or empty", name)
		}
	}
	return false, nil
}

// fillRestored makes a directory that is locked and empty, or holds what was cut off, a data directory.
func fillRestored(dir, name string, s *state.State) error {
	mark := filepath.Join(dir, restoreName)
	if err := errors.Join(os.WriteFile(mark, nil, 0o600), syncDir(dir)); err != nil {
		return err
	}
	for _, rest := range []string{logName, snapsName} {
		if err := os.RemoveAll(filepath.Join(dir, rest)); err != nil {
			return err
		}
	}
	if err := makeDirs(dir); err != nil {
		return err
	}
	id := Identity{Format: FormatVersion, Cluster: newID(), Host: newID(), Name: name, Created: time.Now().UTC(), Founded: true}
	index := max(1, s.View().Index())
	if err := writeRestored(dir, id, index, s.View()); err != nil {
		return err
	}
	err := createStore(dir, id, func(to *store) error {
		return errors.Join(
			to.putJSON(bucketLog, keyInstalled, installed{index, restoredTerm}),
			to.put(bucketRaft, keyCurrentTerm, binary.LittleEndian.AppendUint64(nil, restoredTerm)))
	})
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(mark), syncDir(dir))
}

// writeRestored writes the snapshot that the new cluster begins with. The member's address in it is a mere placeholder: a
// leader tells its own.
func writeRestored(dir string, id Identity, index uint64, view *state.View) error {
	silent := &raftLog{to: slog.New(slog.DiscardHandler)}
	snaps, err := openSnapshots(dir, silent)
	if err != nil {
		return err
	}
	_, trans := raft.NewInmemTransport(DefaultBind)
	defer trans.Close()
	self := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(id.Host), Address: DefaultBind}}}
	sink, err := snaps.Create(raft.SnapshotVersionMax, index, restoredTerm, self, 1, trans)
	if err != nil {
		return err
	}
	if err := (snapshot{view}).Persist(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
