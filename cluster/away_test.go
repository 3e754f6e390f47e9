package cluster

import (
	"bytes"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestLogIsKeptWhileASnapshotIsSent: the log is not dropped under a host that is being sent a snapshot, and for it alone it does
// not grow without end.
func TestLogIsKeptWhileASnapshotIsSent(t *testing.T) {
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	c.limits = tinyLog
	c.limits.entries = 400
	n, h := start(t, c)
	s := session(t, n, h, 1)
	must(t, propose(n, makeFile(s, 1, "f")))
	ino, seq := h.now().Lookup(state.Root, "f").Ino, uint64(1)
	write := func(entries int) {
		t.Helper()
		for range entries {
			seq++
			must(t, propose(n, setValue(s, seq, ino, bytes.Repeat([]byte{byte(seq)}, 2000))))
		}
	}
	first := func() uint64 { return n.Status().First }
	write(100)
	must(t, n.Snapshot())
	list, err := n.snaps.List()
	must(t, err)
	meta, r, err := n.snaps.Open(list[0].ID)
	must(t, err)
	for range 3 {
		write(100)
		must(t, n.Snapshot())
		if first() > meta.Index+1 {
			t.Fatalf("entry %d is gone, which follows the snapshot that is being sent", meta.Index+1)
		}
	}
	must(t, r.Close())
	write(50)
	must(t, n.Snapshot())
	if first() > meta.Index+1 {
		t.Fatalf("entry %d is gone just after the snapshot was sent", meta.Index+1)
	}
	write(200)
	must(t, n.Snapshot())
	if first() <= meta.Index+1 {
		t.Fatal("the log was kept for longer than there may be entries")
	}
}

// TestHostsThatWereAway has one host of three away while much more is written than the logs may hold, in large entries, and
// a fourth one new: both get a snapshot, while more is written, and all disks stay as small as they may be.
func TestHostsThatWereAway(t *testing.T) {
	limits := logLimits{entries: 2000, bytes: 1 << 20, trailing: 200, trailingBytes: 256 << 10, segment: 256 << 10}
	c := newTestCluster(t, 3, testOptions{
		config: func(_ int, c *Config) { c.limits, c.Voters = limits, 3 },
		opened: func(n *testNode) {
			if n.name() == "d" {
				must(t, n.keepInMemory())
			}
		},
	})
	w := newWriter(c)
	w.files(50)
	c.agree()
	away := c.followers()[0]
	away.stop()
	leader := c.leader()
	inos := []uint64{}
	for _, name := range w.made {
		inos = append(inos, leader.view().Lookup(state.Root, name).Ino)
	}
	// 32 at a time, of 8 KiB each, until stopped.
	var wrote, failed atomic.Int64
	var worst time.Duration
	write := func(stop func() bool) {
		slots := make(chan struct{}, 32)
		for !stop() {
			slots <- struct{}{}
			w.seq++
			entry := state.Encode([]*statepb.Command{setValue(w.s, w.seq, inos[int(w.seq)%len(inos)], bytes.Repeat([]byte{byte(w.seq)}, 8<<10))})
			started := time.Now()
			leader.Propose(entry, func(err error) {
				if err != nil {
					failed.Add(1) // another one leads; what comes after is refused, but is as large
				}
				worst = max(worst, time.Since(started)) // outcomes come one at a time
				wrote.Add(int64(len(entry)))
				<-slots
			})
		}
		for range cap(slots) {
			slots <- struct{}{}
		}
	}
	total := int64(24 << 20)
	if testing.Short() {
		total = 6 << 20
	}
	write(func() bool { return wrote.Load() > total })
	t.Logf("%d MiB written while %s was away; the slowest of 32 at a time took %v", wrote.Load()>>20, away.name(), worst)

	done := make(chan struct{})
	var all sync.WaitGroup
	worst = 0
	before := wrote.Load()
	all.Go(func() {
		write(func() bool {
			select {
			case <-done:
				return true
			default:
				return false
			}
		})
	})
	started := time.Now()
	away.again()
	back := time.Since(started)
	c.join((*raft.Raft).AddNonvoter)
	index := leader.stateIndex()
	for _, n := range c.nodes {
		eventually(t, n.name()+" catches up", func() bool { return n.stateIndex() >= index })
	}
	caught := time.Since(started)
	close(done)
	all.Wait()
	t.Logf("%s was back after %v, all had caught up after %v, while %d MiB were written; the slowest of 32 at a time took %v", away.name(),
		back.Round(time.Millisecond), caught.Round(time.Millisecond), (wrote.Load()-before)>>20, worst)
	c.agree()
	if failed.Load() > 0 {
		t.Logf("%d proposals failed", failed.Load())
	}
	for _, n := range c.nodes {
		st := n.Status()
		if st.Snapshot == 0 {
			t.Errorf("%s has no snapshot", n.name())
		}
		// As in TestLogIsBounded, and once more what is between two snapshots for a host that is sent one.
		use := diskUse(n.config.Dir)
		if bound := 12*limits.bytes + limits.trailingBytes + 3*limits.segment + 8<<20; use > bound {
			t.Errorf("%s has %d bytes on disk, bound %d: %+v", n.name(), use, bound, st)
		}
		t.Logf("%s: %.1f MiB on disk, log %d to %d, snapshot %d", n.name(), float64(use)/(1<<20), st.First, st.Last, st.Snapshot)
	}
}
