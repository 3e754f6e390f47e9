package cluster

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// contents is what a data directory holds, all of it verified.
type contents struct {
	identity  Identity
	record    Record   // of the run before
	stopped   *stopped // the run before was stopped cleanly
	peers     []string // keyPeers
	kept      *kept    // nil: not said
	installed installed
	list      types.PersistentState
	values    map[string][]byte // of lockfs.db, by bucket/key

	snapshot *found // nil: none
	first    uint64 // of the log's entries, 0 if there are none
	last     uint64
	lastTerm uint64
	snapTerm uint64 // of the log's entry that the snapshot is of, 0 if it has none
	obsolete bool   // a snapshot was installed that takes the log's place
	entries  uint64 // after the snapshot
	bytes    int64  // of those entries' data
}

// verify reads a whole data directory and says what is wrong with it and what to do. It writes nothing.
func verify(dir string) (*contents, error) {
	c := &contents{values: map[string][]byte{}}
	for _, step := range []struct {
		what, todo string
		check      func(dir string) error
	}{
		{storeName, "restore the whole directory from a backup, or move it away to start afresh", c.readStore},
		{snapsName, "restore the whole directory from a backup, or move it away to start afresh", c.readSnapshots},
		{logName, "check the disk; restore the whole directory from a backup, or move it away to start afresh", c.readLog},
	} {
		if err := step.check(filepath.Join(dir, step.what)); err != nil {
			if v := (*versionError)(nil); errors.As(err, &v) {
				return nil, v
			}
			msg := strings.ReplaceAll(err.Error(), dir+string(filepath.Separator), "")
			return nil, &damageError{msg + "; nothing was changed: " + step.todo, err}
		}
	}
	return c, nil
}

// versionError tells of something that a newer program wrote.
type versionError struct{ msg string }

func (e *versionError) Error() string { return e.msg }

// damageError is what is wrong, with paths as seen from the data directory, which the reader is told before.
type damageError struct {
	msg   string
	cause error
}

func (e *damageError) Error() string { return e.msg }
func (e *damageError) Unwrap() error { return e.cause }

// maxStore bounds what is read of lockfs.db.
const maxStore = 64 << 20

func (c *contents) readStore(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if fi.Size() > maxStore {
		return fmt.Errorf("%s is damaged: it has %d bytes", path, fi.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	err = checkPages(b, func(bucket string, key, sealed []byte) error {
		value, err := unseal(bucket, string(key), sealed)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", bucket, key, err)
		}
		c.values[bucket+"/"+string(key)] = append([]byte{}, value...)
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	for name, to := range map[string]any{
		bucketIdentity + "/" + keyIdentity: &c.identity,
		bucketLog + "/" + keySegments:      &c.list,
		bucketLog + "/" + keyKept:          &c.kept,
		bucketLog + "/" + keyInstalled:     &c.installed,
		bucketDaemon + "/" + keyMounts:     &c.record,
		bucketDaemon + "/" + keyPeers:      &c.peers,
		bucketDaemon + "/" + keyStopped:    &c.stopped,
	} {
		b, ok := c.values[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(b, to); err != nil {
			return fmt.Errorf("%s is damaged: %s: %w", path, name, err)
		}
	}
	switch id := c.identity; {
	case id.Format > FormatVersion:
		return &versionError{fmt.Sprintf("%s is of format %d and this program knows format %d only: run the version of lockfs "+
			"that wrote it, or a newer one", path, id.Format, FormatVersion)}
	case id.Format < 1 || id.Cluster == "" && (id.Founded || id.Joined) || id.Host == "":
		return fmt.Errorf("%s is damaged: it does not say whose it is", path)
	}
	return nil
}

func (c *contents) readSnapshots(dir string) error {
	var err error
	c.snapshot, err = newestSnapshot(dir)
	if errors.Is(err, fs.ErrNotExist) && !c.identity.Founded {
		return nil
	}
	return err
}

// readLog verifies every segment that lockfs.db lists, and that together with the snapshot nothing is missing.
func (c *contents) readLog(dir string) error {
	if _, err := os.Stat(dir); err != nil && (c.identity.Founded || !errors.Is(err, fs.ErrNotExist)) {
		return err
	}
	if len(c.list.Segments) == 0 && c.identity.Founded && !c.wasInstalled() {
		return fmt.Errorf("%s lists no segments of the log", storeName)
	}
	if err := c.readSegments(dir); err != nil {
		return err
	}
	if err := c.unlisted(dir); err != nil {
		return err
	}
	if c.inMemory() { // what is here is of a change to disk that was cut off
		c.forget()
		return nil
	}
	if err := c.whole(); err != nil {
		return err
	}
	if c.obsolete {
		c.forget()
	}
	return nil
}

// forget leaves the log on disk out of account.
func (c *contents) forget() { c.first, c.last, c.lastTerm, c.entries, c.bytes = 0, 0, 0, 0, 0 }

// wasInstalled says whether the snapshot did not come of this host's own log.
func (c *contents) wasInstalled() bool {
	return c.snapshot != nil && c.installed == installed{c.snapshot.Index, c.snapshot.Term}
}

// inMemory says whether the log was kept in memory: nothing of it is left.
func (c *contents) inMemory() bool { return c.kept != nil && c.kept.Memory }

// readSegments verifies every listed segment, and that each continues the one before.
func (c *contents) readSegments(dir string) error {
	for i, info := range c.list.Segments {
		path := filepath.Join(dir, segment.FileName(info))
		if i > 0 && info.BaseIndex != c.last+1 {
			return fmt.Errorf("the log has a gap: entries %d to %d are in no segment", c.last+1, info.BaseIndex-1)
		}
		if err := c.readSegment(path, info, i == len(c.list.Segments)-1); err != nil {
			return fmt.Errorf("%s is damaged: %w", path, err)
		}
	}
	return nil
}

// readSegment verifies one segment, the last of all with tail.
func (c *contents) readSegment(path string, info types.SegmentInfo, tail bool) error {
	if info.Codec != codecID {
		return &versionError{fmt.Sprintf("%s is laid out in a way that this program does not know (%#x): run the version "+
			"of lockfs that wrote it, or a newer one", path, info.Codec)}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(b) < int(info.SizeLimit) {
		return fmt.Errorf("it has %d bytes and was made with %d: it was truncated", len(b), info.SizeLimit)
	}
	sealed := !info.SealTime.IsZero()
	if sealed == tail {
		return fmt.Errorf("%s does not agree with itself on which segment is the last", storeName)
	}
	after := uint64(0)
	if c.snapshot != nil {
		after = c.snapshot.Index
	}
	_, err = scanSegment(b, info, func(l *raft.Log) error {
		if sealed && l.Index > info.MaxIndex {
			return nil // cut off
		}
		if l.Term < c.lastTerm {
			return fmt.Errorf("entry %d: its term %d is older than that of the entry before (%d)", l.Index, l.Term, c.lastTerm)
		}
		c.lastTerm, c.last = l.Term, l.Index
		if c.first == 0 && l.Index >= info.MinIndex {
			c.first = l.Index
		}
		if l.Index == after {
			c.snapTerm = l.Term
		}
		if l.Index > after {
			c.entries++
			c.bytes += entryBytes(l)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.last < info.BaseIndex { // no entries
		c.last = info.BaseIndex - 1
	}
	return nil
}

// unlisted looks at files of the log that lockfs.db does not list. raft-wal removes them: rightly if a crash left them
// between the list's change and the files', but not if lockfs.db is older than the log.
func (c *contents) unlisted(dir string) error {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	listed := map[string]bool{reserveName: true}
	for _, s := range c.list.Segments {
		listed[segment.FileName(s)] = true
	}
	for _, e := range list {
		if listed[e.Name()] {
			continue
		}
		path := filepath.Join(dir, e.Name())
		var base, id uint64
		n, err := fmt.Sscanf(e.Name(), "%020d-%016x.wal", &base, &id)
		if n != 2 || err != nil || !strings.HasSuffix(e.Name(), ".wal") {
			return fmt.Errorf("%s does not belong to the log; move it away", path)
		}
		if id < c.list.NextSegmentID {
			continue // was dropped
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if id > c.list.NextSegmentID || !zeros(b) {
			return fmt.Errorf("%s is newer than what %s knows of: that file seems to be an older copy", path, storeName)
		}
	}
	return nil
}

// whole says what is missing between the snapshot and the log.
func (c *contents) whole() error {
	snap := uint64(0)
	if c.snapshot != nil {
		snap = c.snapshot.Index
	}
	switch {
	case !c.identity.Founded && !c.identity.Joined:
		if c.snapshot != nil || c.last > 1 {
			return fmt.Errorf("%s says that the cluster was never founded, but there is a log", storeName)
		}
	case c.first == 0 && snap == 0 && !c.identity.Founded: // admitted, and nothing came yet
	case c.first == 0 && snap == 0:
		return fmt.Errorf("%s has no entries and there is no snapshot: what was stored is gone", logName)
	case c.first > snap+1:
		return fmt.Errorf("a snapshot is missing: the log starts at entry %d and the newest snapshot is of entry %d", c.first, snap)
	case c.wasInstalled() && c.first != 0 && c.first <= snap && c.snapTerm != c.snapshot.Term:
		c.obsolete = true // a crash kept it from being dropped
	case c.first != 0 && c.last < snap:
		return fmt.Errorf("the end of the log is missing: it ends with entry %d and the snapshot is of entry %d", c.last, snap)
	}
	if term, ok := c.values[bucketRaft+"/"+keyCurrentTerm]; c.lastTerm > 0 && c.identity.Founded &&
		(!ok || len(term) != 8 || binary.LittleEndian.Uint64(term) < c.lastTerm) {
		return fmt.Errorf("%s is older than the log: it knows of no term %d", storeName, c.lastTerm)
	}
	if c.stopped != nil && (c.stopped.Index != c.last && c.first != 0) {
		return fmt.Errorf("the end of the log is missing: it ends with entry %d, and with entry %d when lockfs was stopped",
			c.last, c.stopped.Index)
	}
	return nil
}
