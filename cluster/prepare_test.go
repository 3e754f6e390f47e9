package cluster

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// tinyLog makes snapshots come so often that a host that was away for a moment needs one.
var tinyLog = logLimits{entries: 50, bytes: 1 << 40, trailing: 5, trailingBytes: 1 << 30, segment: 64 << 10}

// writer makes files one after another on whoever leads.
type writer struct {
	c    *testCluster
	s    uint64 // its session
	seq  uint64
	made []string
}

func newWriter(c *testCluster) *writer {
	n := c.leader()
	return &writer{c: c, s: session(c.t, n.Node, n.host.(*testHost), 1)}
}

// proposes has a command applied, whoever leads by then.
func (w *writer) proposes(cmd *statepb.Command) {
	w.c.t.Helper()
	insist(w.c.t, func() error { return propose(w.c.leader().Node, cmd) })
}

func (w *writer) files(n int) {
	w.c.t.Helper()
	for range n {
		w.seq++
		name := fmt.Sprintf("f%d", w.seq)
		w.proposes(makeFile(w.s, w.seq, name))
		w.made = append(w.made, name)
	}
}

// values stores a large value in the first file so many times.
func (w *writer) values(n int) {
	w.c.t.Helper()
	ino := w.c.leader().view().Lookup(state.Root, w.made[0]).Ino
	for range n {
		w.seq++
		w.proposes(setValue(w.s, w.seq, ino, bytes.Repeat([]byte{byte(w.seq)}, 4<<10)))
	}
}

// segmentEntries is how many entries a node's directory has on disk, as a start after a crash would find it.
func segmentEntries(t testing.TB, dir string) int {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "data")
	copyDir(t, dir, copied)
	c := &contents{values: map[string][]byte{}}
	must(t, c.readStore(filepath.Join(copied, storeName)))
	must(t, c.readSegments(filepath.Join(copied, logName)))
	return int(c.entries)
}

// TestNonvoterInMemory has a host that is no voter follow, restart and become a voter.
func TestNonvoterInMemory(t *testing.T) {
	c := newTestCluster(t, 1, testOptions{
		config: func(_ int, c *Config) { c.limits, c.Voters = tinyLog, 1 },
		opened: func(n *testNode) {
			if n.name() == "b" {
				must(t, n.keepInMemory())
			}
		},
	})
	w := newWriter(c)
	b := c.join((*raft.Raft).AddNonvoter)
	w.files(200)
	c.agree()
	if b.durable() || segmentEntries(t, b.config.Dir) != 0 {
		t.Fatalf("durable %v, %d entries on disk", b.durable(), segmentEntries(t, b.config.Dir))
	}
	eventually(t, "a log that is bounded", func() bool {
		s := b.Status()
		return s.Snapshot > 0 && s.Last-s.First < 3*tinyLog.entries
	})

	b.crash()
	w.files(3) // which it has in nobody's log but the leader's
	b.again()
	c.agree()
	if b.durable() {
		t.Fatal("durable after a restart")
	}
	w.files(100)

	// It goes to disk while it is written to, from several sides at once.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := b.prepare(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	w.files(100)
	all.Wait()
	if !b.durable() {
		t.Fatal("not durable")
	}
	must(t, c.leader().raft.AddVoter(b.id, raft.ServerAddress(b.address), 0, 0).Error())
	w.files(20)
	c.agree()
	digest, index := b.view().Digest(), b.stateIndex()

	// As a voter it has all that was acknowledged on its disk.
	b.crash()
	<-b.gone
	was, err := verify(b.config.Dir)
	must(t, err)
	if was.inMemory() || max(was.last, was.snapshot.Index) < index {
		t.Fatalf("in memory %v, the log ends with entry %d and the snapshot is of %d, and %d was acknowledged",
			was.inMemory(), was.last, was.snapshot.Index, index)
	}
	b.again() // it and the leader are a quorum
	must(t, b.keepInMemory())
	if !b.durable() {
		t.Fatal("a host that kept its log on disk was turned back")
	}
	c.agree()
	if b.stateIndex() == index && b.view().Digest() != digest {
		t.Error("its state is another one")
	}
	for _, name := range w.made {
		if b.view().Lookup(state.Root, name) == nil {
			t.Fatalf("%s was made and is not there", name)
		}
	}
	b.stop()
	b.again()
	c.agree()
}

// TestMemoryRefusesAndRecovers: while no snapshot can be written the log in memory fills up and takes no more; then it goes on.
func TestMemoryRefusesAndRecovers(t *testing.T) {
	m := newMemory(&snapper{limits: logLimits{entries: 20, trailing: 5, bytes: 4000, trailingBytes: 1000}})
	for i := uint64(1); ; i++ {
		if err := m.append(entries(i, 1, 1, 'a')); err != nil {
			if i != memorySlack*25+1 {
				t.Fatalf("refused at entry %d: %v", i, err)
			}
			break
		}
	}
	m.drop(1, 100)
	for i := uint64(101); ; i++ {
		if err := m.append(entries(i, 1, 1000-entryOverhead, 'a')); err != nil {
			if i != 101+memorySlack*5 {
				t.Fatalf("refused at entry %d: %v", i, err)
			}
			break
		}
	}
}
