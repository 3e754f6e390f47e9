package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

// The names in a data directory.
const (
	lockName    = "lock"      // flock of the running daemon, and its pid
	storeName   = "lockfs.db" // see store
	logName     = "log"       // the segments of raft-wal
	snapsName   = "snapshots" // raft.FileSnapshotStore's
	reserveName = "reserve"   // room for when the disk is full, see reserve
	tmpSuffix   = ".tmp"

	initName       = "init"        // RequestInit asks for it
	initAnswerName = "init.answer" // why it was not done
)

// files is the file system as raft-wal sees it (types.VFS), and makes the log's files so that they can be verified:
//
//   - A segment has its full size on disk, and is known to the directory, before lockfs.db lists it. raft-wal
//     would do it after, and takes a missing last segment for one that a crash kept from being made.
//   - When there is no room for the next segment the reserve gives way.
type files struct {
	dir     string
	reserve *reserve
	fault   func(op, name string) error // tests: what goes wrong; nil for nothing
}

var _ types.VFS = (*files)(nil)

func (f *files) ListDir(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// prepare makes the file of a segment, full of zeros and safe against a crash.
func (f *files) prepare(info types.SegmentInfo) error {
	path := filepath.Join(f.dir, segment.FileName(info))
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err // what a crash left
	}
	err := f.allocate(path, int64(info.SizeLimit))
	if full(err) && f.reserve.giveUp(int64(info.SizeLimit)) {
		err = f.allocate(path, int64(info.SizeLimit))
	}
	if err != nil {
		return fmt.Errorf("make the next segment of the log, %d bytes: %w", info.SizeLimit, err)
	}
	return syncDir(f.dir)
}

func (f *files) allocate(path string, size int64) error {
	if err := f.check("allocate", path); err != nil {
		return err
	}
	h, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(allocate(h, size), h.Sync(), h.Close()); err != nil {
		os.Remove(path)
		return err
	}
	return nil
}

func (f *files) check(op, path string) error {
	if f.fault == nil {
		return nil
	}
	return f.fault(op, filepath.Base(path))
}

// Create opens the file that prepare made.
func (f *files) Create(dir, name string, size uint64) (types.WritableFile, error) {
	return f.OpenWriter(dir, name)
}

func (f *files) OpenWriter(dir, name string) (types.WritableFile, error) {
	h, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &logFile{File: h, files: f}, nil
}

func (f *files) OpenReader(dir, name string) (types.ReadableFile, error) {
	h, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (f *files) Delete(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

// logFile is a segment that is written to.
type logFile struct {
	*os.File
	files *files
}

func (l *logFile) WriteAt(b []byte, off int64) (int, error) {
	if err := l.files.check("write", l.Name()); err != nil {
		return 0, err
	}
	n, err := l.File.WriteAt(b, off)
	if full(err) && l.files.reserve.giveUp(int64(len(b))+blockSlack) {
		n, err = l.File.WriteAt(b, off) // past the allocated size
	}
	return n, err
}

// blockSlack is what a file system may need beside the bytes, for the blocks that a write begins and ends in and its own
// records of them.
const blockSlack = 64 << 10

// Sync brings to the disk what was written, and of the inode what is needed to read it: not its times, which would be a second
// write for most commits.
func (l *logFile) Sync() error {
	if err := l.files.check("sync", l.Name()); err != nil {
		return err
	}
	for {
		err := unix.Fdatasync(int(l.Fd()))
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return &os.PathError{Op: "fdatasync", Path: l.Name(), Err: err}
		}
	}
}

// filer makes and opens segments for raft-wal, which (v0.4.0) names its own codec in every new segment, whatever codec
// it was given, and so would refuse them when it is opened the next time; logMeta and filer put the right one in. It also seals a segment of which it cuts off the end without writing the index
// that it needs to read the segment when it is opened the next time; such a one is read through as a tail is.
type filer struct {
	*segment.Filer
	rotation *rotation
}

var _ types.SegmentFiler = filer{}

func (f filer) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	info.Codec = codecID
	w, err := f.Filer.Create(info)
	return tail{w, f.rotation}, err
}

func (f filer) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	w, err := f.Filer.RecoverTail(info)
	return tail{w, f.rotation}, err
}

func (f filer) Open(info types.SegmentInfo) (types.SegmentReader, error) {
	if info.IndexStart == 0 {
		return f.Filer.RecoverTail(info)
	}
	return f.Filer.Open(info)
}

// tail is the segment that is appended to. raft-wal asks Sealed after an append and, if so, starts the next segment in
// another goroutine.
type tail struct {
	types.SegmentWriter
	rotation *rotation
}

func (t tail) Sealed() (bool, uint64, error) {
	sealed, index, err := t.SegmentWriter.Sealed()
	if sealed {
		t.rotation.begin()
	}
	return sealed, index, err
}

// rotation is the start of the next segment. raft-wal (v0.4.0) does not keep DeleteRange from coming between it and the
// append that it follows on, and would then take a new segment for the full one; so the journal waits.
type rotation struct {
	mu   sync.Mutex
	wait chan struct{} // nil: none
}

func (r *rotation) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wait == nil {
		r.wait = make(chan struct{})
	}
}

// end is called when raft-wal has its lock for the rotation.
func (r *rotation) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wait != nil {
		close(r.wait)
		r.wait = nil
	}
}

// await returns when no rotation waits for raft-wal's lock.
func (r *rotation) await() {
	r.mu.Lock()
	wait := r.wait
	r.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

// logMeta is raft-wal's list of segments, kept in lockfs.db.
type logMeta struct {
	store    *store
	files    *files
	known    []uint64 // ids of the segments that have a file
	rotation rotation
}

var _ types.MetaStore = (*logMeta)(nil)

func (m *logMeta) Load(string) (types.PersistentState, error) {
	list, err := m.store.segments()
	m.known = nil
	for _, s := range list.Segments {
		m.known = append(m.known, s.ID)
	}
	return list, err
}

// CommitState stores the list, after a new segment's file was made.
func (m *logMeta) CommitState(list types.PersistentState) error {
	m.rotation.end()
	var known []uint64
	list.Segments = slices.Clone(list.Segments)
	for i, s := range list.Segments {
		list.Segments[i].Codec = codecID
		if !slices.Contains(m.known, s.ID) {
			if err := m.files.prepare(s); err != nil {
				return err
			}
		}
		known = append(known, s.ID)
	}
	if err := m.store.putJSON(bucketLog, keySegments, list); err != nil {
		return err
	}
	m.known = known
	return nil
}

func (m *logMeta) GetStable(key []byte) ([]byte, error) { return m.store.Get(key) }
func (m *logMeta) SetStable(key, value []byte) error    { return m.store.Set(key, value) }
func (m *logMeta) Close() error                         { return nil }

// allocate gives a file its size, on disk where the file system can.
func allocate(h *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(h.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP):
			return h.Truncate(size)
		default:
			return err
		}
	}
}

// extend allocates a file of that name up to size.
func extend(path string, size int64) error {
	h, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(allocate(h, size), h.Sync(), h.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
