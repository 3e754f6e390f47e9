package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// journal is the replicated log on this host's disk, or in memory until it goes to disk (see memory). On disk it is raft-wal,
// with what that lacks when the disk is full or fails.
// After an append that failed, or a crash or failure between the last append to a segment and the start of the next
// one, raft-wal v0.4.0 refuses every further append. So the journal then closes it, puts the files in order and
// opens it again, before the next append; raft has meanwhile stepped down and been elected anew. Entries
// whose append was answered with an error are cut off, as raft does not know of them.
type journal struct {
	dir   string
	size  int64 // of a segment
	meta  *logMeta
	log   hclog.Logger
	ended func(error)         // told how each append ended; may be nil
	grew  func(uint64, int64) // told of entries and their bytes; may be nil
	mayGo func(uint64) uint64 // up to which entry, of those up to one, the log may be compacted; nil: to that one

	mu     sync.RWMutex // held for writing by all that changes wal or memory
	memory *memory      // not nil: the entries are there, and what is in wal counts for nothing
	wal    *wal.WAL     // nil while it cannot be opened
	broken error        // why the next append must open it again
	last   uint64       // the last entry whose append to wal succeeded
	over   installed    // the snapshot that last took the log's place
	gone   uint64       // 0, or there are no entries and raft takes this for the last one, see forgotten
}

var _ raft.LogStore = (*journal)(nil)
var _ raft.MonotonicLogStore = (*journal)(nil)

// openJournal opens a log that was verified.
func openJournal(meta *logMeta, size int64, log hclog.Logger) (*journal, error) {
	j := &journal{dir: meta.files.dir, size: size, meta: meta, log: log}
	j.broken = j.open()
	if j.wal == nil {
		return nil, j.broken
	}
	var err error
	j.last, err = j.wal.LastIndex()
	return j, err
}

// open puts the files in order and opens them. When there is no room for the next segment it opens them all the same, for
// reading and for dropping entries, and returns that error.
func (j *journal) open() error {
	undone := j.mend()
	if undone != nil && !full(undone) {
		return undone
	}
	w, err := wal.Open(j.dir, wal.WithCodec(entryCodec{}), wal.WithSegmentSize(int(j.size)), wal.WithMetaStore(j.meta),
		wal.WithSegmentFiler(filer{segment.NewFiler(j.dir, j.meta.files), &j.meta.rotation}), wal.WithLogger(j.log))
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	j.wal = w
	return undone
}

// mend does what a crash or a failed append left undone in the last segment: a torn batch is overwritten with zeros,
// so that nothing of it can be taken for entries later; and if the segment is full, the next one is started.
func (j *journal) mend() error {
	list, err := j.meta.store.segments()
	if err != nil || len(list.Segments) == 0 {
		return err
	}
	tail := &list.Segments[len(list.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	path := filepath.Join(j.dir, segment.FileName(*tail))
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s, err := scanSegment(b, *tail, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if !zeros(b[s.end:]) {
		if err := wipe(path, s.end, int64(len(b))); err != nil {
			return err
		}
	}
	if s.indexStart == 0 {
		return nil
	}
	tail.SealTime, tail.MaxIndex, tail.IndexStart = time.Now(), s.last, s.indexStart
	next := types.SegmentInfo{
		ID: list.NextSegmentID, BaseIndex: s.last + 1, MinIndex: s.last + 1, SizeLimit: uint32(j.size), Codec: codecID,
		CreateTime: time.Now(),
	}
	list.NextSegmentID++
	list.Segments = append(list.Segments, next)
	if _, err := j.meta.Load(j.dir); err != nil {
		return err
	}
	return j.meta.CommitState(list)
}

// wipe overwrites a part of a file with zeros.
func wipe(path string, from, to int64) error {
	h, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	_, err = h.WriteAt(make([]byte, to-from), from)
	return errors.Join(err, h.Sync(), h.Close())
}

// StoreLogs appends entries and returns once they are on disk, or at once if that is not asked for. Called by raft's one
// goroutine.
func (j *journal) StoreLogs(logs []*raft.Log) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.gone = 0
	var err error
	if j.memory != nil {
		err = j.memory.append(logs)
	} else {
		err = j.insist(logs)
		if j.ended != nil {
			j.ended(err)
		}
	}
	if j.grew != nil && err == nil {
		bytes := int64(0)
		for _, l := range logs {
			bytes += entryBytes(l)
		}
		j.grew(uint64(len(logs)), bytes)
	}
	return err
}

// insist appends entries to wal, at the second try if what was needed is only a new segment or the reserve.
func (j *journal) insist(logs []*raft.Log) error {
	err := j.append(logs)
	if err != nil {
		j.broken = err
		err = j.append(logs)
	}
	if err != nil {
		j.broken = err
	}
	return err
}

func (j *journal) append(logs []*raft.Log) error {
	if j.broken != nil {
		if err := j.reopen(); err != nil {
			return err
		}
	}
	if first := logs[0].Index; j.last > 0 && first > j.last+1 && first == j.over.Index+1 { // raft could not have it dropped
		if err := j.dropAll(); err != nil {
			return err
		}
	}
	if err := j.wal.StoreLogs(logs); err != nil {
		return err
	}
	j.last = logs[len(logs)-1].Index
	return nil
}

// reopen opens the log anew, with the entries up to j.last.
func (j *journal) reopen() error {
	if j.wal != nil {
		if err := j.wal.Close(); err != nil {
			return err
		}
		j.wal = nil
		j.meta.rotation.end() // it did not come to that
	}
	if err := j.open(); err != nil {
		return err
	}
	last, err := j.wal.LastIndex()
	if err == nil && last < j.last {
		panic(fmt.Sprintf("lockfs: the log in %s lost entries %d to %d while it was open; stop this host and check its disk",
			j.dir, last+1, j.last))
	}
	if err == nil && last > j.last {
		err = j.drop(j.last+1, last)
	}
	if err != nil {
		return err
	}
	j.broken = nil
	return nil
}

// drop drops entries at the start or the end.
func (j *journal) drop(first, last uint64) error {
	j.meta.rotation.await()
	if err := j.wal.DeleteRange(first, last); err != nil {
		return err
	}
	end, err := j.wal.LastIndex()
	j.last = min(j.last, end)
	return err
}

// dropAll drops all entries.
func (j *journal) dropAll() error {
	first, err := j.wal.FirstIndex()
	if err == nil && j.last > 0 {
		err = j.drop(first, j.last)
	}
	if err != nil {
		j.broken = err
		return err
	}
	j.last = 0
	return nil
}

// replacedBy notes that a snapshot is about to take the log's place.
func (j *journal) replacedBy(by installed) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = by
}

// clear drops all entries, for which a snapshot was installed.
func (j *journal) clear() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.dropAll()
}

func (j *journal) StoreLog(l *raft.Log) error { return j.StoreLogs([]*raft.Log{l}) }

func (j *journal) IsMonotonic() bool { return true }

func (j *journal) FirstIndex() (uint64, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	switch {
	case j.memory != nil:
		return j.memory.first(), nil
	case j.wal == nil:
		return 0, j.broken
	}
	return j.wal.FirstIndex()
}

func (j *journal) LastIndex() (uint64, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.end(), nil
}

// end is the last entry, 0 if there is none.
func (j *journal) end() uint64 {
	if j.memory != nil {
		return j.memory.last()
	}
	return j.last
}

func (j *journal) GetLog(index uint64, l *raft.Log) error {
	j.mu.RLock()
	defer j.mu.RUnlock()
	switch {
	case j.gone > 0:
		return j.forgotten(index, l)
	case j.memory != nil:
		return j.memory.get(index, l)
	case j.wal == nil:
		return j.broken
	}
	if err := j.wal.GetLog(index, l); err != nil {
		return err
	}
	if l.Index != index {
		return fmt.Errorf("lockfs: read entry %d of the log in %s: entry %d is in its place", index, j.dir, l.Index)
	}
	return nil
}

// DeleteRange drops entries at the start, after a snapshot, or at the end. The former makes room on a full disk, so it works
// even while appends do not.
func (j *journal) DeleteRange(first, last uint64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.gone > 0 {
		j.gone = max(first-1, j.over.Index)
		return nil
	}
	if last < j.end() && j.mayGo != nil { // else it is not to compact the log
		last = j.mayGo(last)
	}
	if last < first {
		return nil
	}
	if err := j.delete(first, last); err != nil {
		return err
	}
	if j.end() == 0 && j.over.Index > 0 && last > j.over.Index {
		j.gone = last
	}
	return nil
}

func (j *journal) delete(first, last uint64) error {
	if j.memory != nil {
		return j.memory.drop(first, last)
	}
	if j.wal == nil || j.broken != nil && last >= j.last {
		if err := j.reopen(); err != nil {
			return err
		}
	}
	if err := j.drop(first, last); err != nil {
		j.broken = err
		return err
	}
	return nil
}

// forgotten reads an entry of a log that was dropped for a snapshot while it had entries after the snapshot's, which another
// leader never had. raft (v1.8.0) goes on taking the last of these for its last, asks for them when it gets others in their
// place, and without an answer has the snapshot sent again and again. So it gets the snapshot's entry with its term, and
// those after it with a term that no leader has: it drops them and goes on.
func (j *journal) forgotten(index uint64, l *raft.Log) error {
	switch {
	case index == j.over.Index:
		*l = raft.Log{Index: index, Term: j.over.Term}
	case index > j.over.Index && index <= j.gone:
		*l = raft.Log{Index: index}
	default:
		return raft.ErrLogNotFound
	}
	return nil
}

// inMemory says whether the entries are in memory only.
func (j *journal) inMemory() bool {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.memory != nil
}

// keepIn keeps the entries in memory from now on; whatever is on disk is left out of account. raft must not have started.
func (j *journal) keepIn(m *memory) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.memory = m
}

// toMemory keeps the entries in memory from now on, if there are none yet, after commit has noted that.
func (j *journal) toMemory(m *memory, commit func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.memory != nil || j.last > 0 || j.over.Index > 0 {
		return nil
	}
	if err := commit(); err != nil {
		return err
	}
	j.memory = m
	return nil
}

// toDisk takes all entries from memory to disk, where they stay from then on. When they are there it calls commit, which notes
// that. It can be called again after an error, and does nothing if the entries are on disk. Appends wait meanwhile.
func (j *journal) toDisk(commit func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.memory == nil {
		return nil
	}
	if j.wal == nil || j.broken != nil {
		if err := j.reopen(); err != nil {
			return err
		}
	}
	if err := j.dropAll(); err != nil { // what an attempt before this one left
		return err
	}
	if err := j.memory.batches(j.insist); err != nil {
		return err
	}
	if err := commit(); err != nil {
		return err
	}
	j.memory = nil
	return nil
}

// Close waits for an append under way and closes the log.
func (j *journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.wal == nil {
		return nil
	}
	err := j.wal.Close()
	j.wal, j.broken = nil, wal.ErrClosed
	return err
}
