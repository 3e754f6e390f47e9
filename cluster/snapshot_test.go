package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// diskUse is the bytes allocated below a directory, without the reserve.
func diskUse(dir string) int64 {
	var sum int64
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && e.Name() != reserveName && unix.Lstat(path, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

// setValue is a command that stores a value, whatever is there.
func setValue(s, seq, ino uint64, value []byte) *statepb.Command {
	return &statepb.Command{Session: s, Seq: seq, TimeUnixNs: 1, Op: &statepb.Command_Commit{Commit: &statepb.Commit{
		Ino: ino, Posix: true, Change: &statepb.Commit_Write{Write: &statepb.Write{Bytes: value}},
	}}}
}

// TestLogIsBounded writes many times what the log may hold, in small entries and in large ones, and looks at the disk all
// the while. The state stays small, so the disk must.
func TestLogIsBounded(t *testing.T) {
	for _, x := range []struct {
		name    string
		value   int
		entries int
	}{{"small", 10, 60_000}, {"large", 100 << 10, 1500}} {
		t.Run(x.name, func(t *testing.T) {
			c := testConfig(t, filepath.Join(t.TempDir(), "data"))
			c.limits = logLimits{entries: 8000, bytes: 4 << 20, trailing: 1000, trailingBytes: 1 << 20, segment: 1 << 20}
			if testing.Short() {
				x.entries /= 4
			}
			n, h := start(t, c)
			s := session(t, n, h, 1)
			must(t, propose(n, makeFile(s, 1, "f")))
			ino := h.now().Lookup(state.Root, "f").Ino
			slots := make(chan struct{}, 64)
			var peak int64
			var wrote int
			for i := range x.entries {
				slots <- struct{}{}
				entry := state.Encode([]*statepb.Command{setValue(s, uint64(i+2), ino, bytes.Repeat([]byte{byte(i)}, x.value))})
				wrote += len(entry)
				n.Propose(entry, func(err error) {
					if err != nil {
						t.Error(err)
					}
					<-slots
				})
				if i%200 == 0 {
					peak = max(peak, diskUse(c.Dir))
				}
			}
			for range cap(slots) {
				slots <- struct{}{}
			}
			st := n.Status()
			t.Logf("%d entries, %.1f MiB; on disk at most %.1f MiB; log %d to %d, snapshot %d", x.entries, float64(wrote)/(1<<20),
				float64(peak)/(1<<20), st.First, st.Last, st.Snapshot)
			// The log before a snapshot, what is appended while it is written (on a disk that is busy a multiple of that), the
			// trailing part, segments begun, two snapshots and lockfs.db.
			if bound := 8*c.limits.bytes + c.limits.trailingBytes + 3*c.limits.segment + 8<<20; peak > bound {
				t.Errorf("at most %d bytes on disk, bound %d", peak, bound)
			}
			if st.Snapshot == 0 || st.First < 100 {
				t.Errorf("no snapshot, or nothing was dropped: %+v", st)
			}
			stop(t, n)
			_, h = start(t, c)
			want := bytes.Repeat([]byte{byte(x.entries - 1)}, x.value)
			h.await(t, "the last value", func(v *state.View) bool {
				f := v.Lookup(state.Root, "f")
				return f != nil && bytes.Equal(f.Value, want)
			})
		})
	}
}

// TestSnapshotWhileApplying takes snapshots of a large state while entries go on: none of these may wait for one.
func TestSnapshotWhileApplying(t *testing.T) {
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	n, h := start(t, c)
	s := session(t, n, h, 1)
	var cmds []*statepb.Command
	files := uint64(50_000)
	if testing.Short() {
		files = 10_000
	}
	for i := range files {
		cmds = append(cmds, makeFile(s, i+1, fmt.Sprintf("file-%d", i)))
	}
	for len(cmds) > 0 {
		k := min(1000, len(cmds))
		must(t, propose(n, cmds[:k]...))
		cmds = cmds[k:]
	}
	seq := files
	var worst time.Duration
	one := func() {
		seq++
		started := time.Now()
		must(t, propose(n, makeFile(s, seq, fmt.Sprintf("more-%d", seq))))
		worst = max(worst, time.Since(started))
	}
	var during atomic.Int64
	var took time.Duration
	done := make(chan error, 1)
	go func() {
		started := time.Now()
		err := n.Snapshot()
		took = time.Since(started)
		done <- err
	}()
	for running := true; running; {
		select {
		case err := <-done:
			must(t, err)
			running = false
		default:
			one()
			during.Add(1)
		}
	}
	t.Logf("%d entries during a snapshot of %.1f MiB that took %v; the slowest took %v", during.Load(),
		float64(n.Status().SnapBytes)/(1<<20), took, worst)
	if during.Load() < 5 && took > 50*time.Millisecond {
		t.Error("the snapshot held entries up")
	}
	digest := func(v *state.View) uint64 { nodes, _ := v.Counts(); return nodes }
	want := digest(h.now())
	stop(t, n)
	_, h = start(t, c)
	h.await(t, "all files", func(v *state.View) bool { return digest(v) == want })
}

// TestUnknownEntryStopsTheNode: an entry that a newer version wrote is not skipped.
func TestUnknownEntryStopsTheNode(t *testing.T) {
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	n, h := start(t, c)
	s := session(t, n, h, 1)
	done := make(chan error, 2)
	n.Propose([]byte{0x08, 0x63}, func(err error) { done <- err }) // version 99
	n.Propose(state.Encode([]*statepb.Command{makeFile(s, 1, "after")}), func(err error) { done <- err })
	for range 2 {
		if err := <-done; err == nil || !strings.Contains(err.Error(), "newer version") {
			t.Fatalf("an entry of an unknown version: %v", err)
		}
	}
	<-n.Failed()
	if err := n.Err(); err == nil || !strings.Contains(err.Error(), "entry") {
		t.Fatal(err)
	}
	if h.now().Lookup(state.Root, "after") != nil {
		t.Error("an entry after the unknown one was applied")
	}
	if err := n.Snapshot(); err == nil {
		t.Error("a snapshot of a state that is not complete")
	}
	stop(t, n)
	// It stands in the log, so the next start stops as well, before anything can be proposed.
	n, err := Open(c)
	must(t, err)
	must(t, n.Start(newTestHost()))
	<-n.Failed()
	if err := n.Ready(context.Background()); err == nil {
		t.Error("ready")
	}
	t.Log(n.Err())
	must(t, n.Close())
}

// TestNothingIsLeftRunning opens, starts and closes nodes at every point and wants every goroutine and file to end.
func TestNothingIsLeftRunning(t *testing.T) {
	defer noLeaks(t, goleak.IgnoreCurrent())
	before := openFiles(t)
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	for i := range 4 {
		n, err := Open(c)
		must(t, err)
		if i > 0 {
			must(t, n.Start(newTestHost()))
		}
		if i > 1 {
			must(t, n.Ready(context.Background()))
			for range 100 {
				n.Propose(state.Encode([]*statepb.Command{openSession("x", 1)}), func(error) {})
			}
		}
		must(t, n.Close())
		must(t, n.Close())
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

// TestUnknownSnapshotStopsTheNode: one that a newer version wrote, sent by the leader or found on the disk.
func TestUnknownSnapshotStopsTheNode(t *testing.T) {
	var b bytes.Buffer
	_, err := state.New().View().WriteTo(&b)
	must(t, err)
	newer := b.Bytes()
	newer[8]++ // the version that follows the magic
	var failed error
	m := &machine{fail: func(err error) { failed = err }}
	if err := m.Restore(io.NopCloser(bytes.NewReader(newer))); !errors.Is(err, state.ErrUnknown) {
		t.Errorf("restored: %v", err)
	}
	if failed == nil || !strings.Contains(failed.Error(), "install the version") {
		t.Errorf("the node goes on: %v", failed)
	}
	if _, err := m.Snapshot(); err == nil {
		t.Error("a snapshot of a state that is not there")
	}

	dir := t.TempDir()
	store, err := raft.NewFileSnapshotStore(dir, 1, io.Discard)
	must(t, err)
	sink, err := store.Create(raft.SnapshotVersionMax, 1, 1, raft.Configuration{}, 1, nil)
	must(t, err)
	_, err = sink.Write(newer)
	must(t, err)
	must(t, sink.Close())
	_, err = newestSnapshot(filepath.Join(dir, "snapshots"))
	if v := (*versionError)(nil); !errors.As(err, &v) || !strings.Contains(v.msg, "install the version") {
		t.Errorf("found on the disk: %v", err)
	}
}
