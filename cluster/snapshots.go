package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
)

// The files of raft.FileSnapshotStore: a directory TERM-INDEX-MILLISECONDS a snapshot, ending in .tmp until it is whole.
const (
	snapMeta  = "meta.json"
	snapState = "state.bin"
)

// retainSnapshots is one: without the log that was compacted after the newest, an older one is of no use.
const retainSnapshots = 1

// found is a verified snapshot.
type found struct {
	raft.SnapshotMeta
	state *state.State
}

// snapName is the parsed name of a snapshot's directory.
type snapName struct {
	term, index, ms uint64
	name            string
}

// newestSnapshot verifies the newest snapshot and returns it, nil if there is none. raft would take the next older one
// when it cannot read the newest, and with that forget what was acknowledged; so that is an error here. What is
// older than the newest is a remnant of a crash while it was being removed.
func newestSnapshot(dir string) (*found, error) {
	names, err := snapNames(dir)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	newest := names[len(names)-1]
	path := filepath.Join(dir, newest.name)
	f, err := readSnapshot(path, newest)
	if errors.Is(err, state.ErrUnknown) {
		return nil, &versionError{fmt.Sprintf("the snapshot %s cannot be read: %v", path, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("the snapshot %s is damaged: %w", path, err)
	}
	return f, nil
}

// snapNames lists the finished snapshots, oldest first.
func snapNames(dir string) ([]snapName, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []snapName
	for _, e := range list {
		if strings.HasSuffix(e.Name(), tmpSuffix) {
			continue
		}
		n := snapName{name: e.Name()}
		if k, err := fmt.Sscanf(e.Name(), "%d-%d-%d", &n.term, &n.index, &n.ms); k != 3 || err != nil || !e.IsDir() {
			return nil, fmt.Errorf("%s is no snapshot; move it away", filepath.Join(dir, e.Name()))
		}
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b snapName) int {
		return slices.Compare([]uint64{a.term, a.index, a.ms}, []uint64{b.term, b.index, b.ms})
	})
	return names, nil
}

func readSnapshot(path string, name snapName) (*found, error) {
	b, err := os.ReadFile(filepath.Join(path, snapMeta))
	if err != nil {
		return nil, err
	}
	var meta struct {
		raft.SnapshotMeta
		CRC []byte
	}
	if err := json.Unmarshal(b, &meta); err != nil {
		return nil, fmt.Errorf("%s: %w", snapMeta, err)
	}
	if meta.Term != name.term || meta.Index != name.index || meta.ID != name.name {
		return nil, fmt.Errorf("%s is another snapshot's: it says term %d, index %d", snapMeta, meta.Term, meta.Index)
	}
	if meta.Version != raft.SnapshotVersionMax {
		return nil, fmt.Errorf("%s is of version %d, which this program does not know", snapMeta, meta.Version)
	}
	h, err := os.Open(filepath.Join(path, snapState))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	n, err := io.Copy(sum, h)
	if err != nil {
		return nil, err
	}
	if n != meta.Size {
		return nil, fmt.Errorf("%s has %d bytes and should have %d", snapState, n, meta.Size)
	}
	if !bytes.Equal(sum.Sum(nil), meta.CRC) {
		return nil, fmt.Errorf("the checksum of %s does not match", snapState)
	}
	if _, err := h.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	s, err := state.Read(h)
	if err != nil {
		return nil, err
	}
	if applied := s.View().Index(); applied > meta.Index {
		return nil, fmt.Errorf("%s is of index %d and %s says %d", snapState, applied, snapMeta, meta.Index)
	}
	return &found{meta.SnapshotMeta, s}, nil
}

// clearSnapshots removes what a crash left: unfinished snapshots, and those older than keep.
func clearSnapshots(dir, keep string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Name() != keep {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
