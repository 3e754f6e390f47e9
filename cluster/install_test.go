package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestDeposedWithLongTail: a leader that was cut off has entries that nobody else has, and more of them than the others
// wrote since. It gets a snapshot of an entry in the midst of these.
func TestDeposedWithLongTail(t *testing.T) {
	c := newTestCluster(t, 3, testOptions{config: func(_ int, c *Config) {
		c.limits = tinyLog
		c.limits.entries = 1 << 20 // snapshots when they are wanted
	}})
	w := newWriter(c)
	w.files(20)
	c.agree()
	old := c.leader()
	common, err := old.journal.LastIndex()
	must(t, err)
	c.net.freeze(old.ip())
	for i := range 500 {
		old.Propose(state.Encode([]*statepb.Command{openSession(fmt.Sprint("lost", i), uint64(i))}), nil)
	}
	eventually(t, "the tail", func() bool { last, _ := old.journal.LastIndex(); return last > common+300 })
	w.values(100) // several segments, of which those before the snapshot go
	now := c.leader()
	must(t, now.Snapshot())
	last, err := old.journal.LastIndex()
	must(t, err)
	if s := now.Status(); s.Snapshot >= last || s.First <= common+1 {
		t.Fatalf("the case is another one: common %d, tail to %d; %+v", common, last, s)
	}
	c.net.thaw(old.ip())
	w.files(3)
	c.agree()
	w.files(500)
	c.agree()
	old.stop()
	old.again()
	c.agree()
}

// snapshotBytes is a node's newest snapshot and its description.
func snapshotBytes(t testing.TB, n *testNode) (*raft.SnapshotMeta, []byte) {
	t.Helper()
	must(t, n.Snapshot())
	list, err := n.snaps.List()
	must(t, err)
	meta, r, err := n.snaps.Open(list[0].ID)
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	must(t, err)
	return meta, b
}

// TestBadSnapshotIsRefused has a member send another one snapshots that are damaged, cut off, of something else and endless:
// it keeps the one that it has, says no, and goes on.
func TestBadSnapshotIsRefused(t *testing.T) {
	c := newTestCluster(t, 2, testOptions{config: func(_ int, c *Config) { c.limits.segment, c.limits.entries, c.limits.bytes = 64<<10, 1<<20, 1<<40 }})
	w := newWriter(c)
	w.files(200)
	c.agree()
	leader, victim := c.leader(), c.followers()[0]
	must(t, victim.Snapshot())
	meta, good := snapshotBytes(t, leader)
	have := glob(t, victim.config.Dir, snapsName, "*")
	before, digest := fingerprint(t, have[0]), victim.view().Digest()
	flipped := func(at int) []byte { return flip(at)(bytes.Clone(good)) }
	for _, x := range []struct {
		name string
		size int64
		body io.Reader
		dist uint64 // what is taken off the index
	}{
		{"a bit", int64(len(good)), bytes.NewReader(flipped(len(good) / 2)), 0},
		{"the trailer", int64(len(good)), bytes.NewReader(flipped(len(good) - 1)), 0},
		{"cut off", int64(len(good)) - 100, bytes.NewReader(good[:len(good)-100]), 0},
		{"more than there is", int64(len(good)) + 1, bytes.NewReader(append(bytes.Clone(good), 0)), 0},
		{"nothing", 0, bytes.NewReader(nil), 0},
		{"zeros", 1 << 20, io.LimitReader(zeroReader{}, 1<<20), 0},
		{"a negative size", -1, bytes.NewReader(nil), 0},
		{"of a later entry than it says", int64(len(good)), bytes.NewReader(good), 100},
	} {
		req := installRequest(leader, meta)
		req.LastLogIndex, req.Size = meta.Index-x.dist, x.size
		var resp raft.InstallSnapshotResponse
		err := leader.trans.InstallSnapshot(victim.id, raft.ServerAddress(victim.address), req, &resp, x.body)
		if err == nil && resp.Success {
			t.Errorf("%s: it was taken", x.name)
		}
		t.Log(x.name, ": ", err)
		if now := glob(t, victim.config.Dir, snapsName, "*"); len(have) != 1 || !slices.Equal(now, have) {
			t.Errorf("%s: there are %v, and were %v", x.name, now, have)
		}
		if fingerprint(t, have[0]) != before || victim.view().Digest() != digest {
			t.Errorf("%s: something was changed", x.name)
		}
	}
	w.files(10)
	c.agree()
	victim.stop()
	victim.again()
	c.agree()
}

// TestStalledSnapshot: a leader that stops in the middle of a snapshot does not hold up the host that it is for.
func TestStalledSnapshot(t *testing.T) {
	c := newTestCluster(t, 2, testOptions{opened: func(n *testNode) { n.snaps.stall = 100 * time.Millisecond }})
	w := newWriter(c)
	w.files(50)
	c.agree()
	leader, victim := c.leader(), c.followers()[0]
	meta, good := snapshotBytes(t, leader)
	body, more := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		req := installRequest(leader, meta)
		var resp raft.InstallSnapshotResponse
		sent <- leader.trans.InstallSnapshot(victim.id, raft.ServerAddress(victim.address), req, &resp, body)
	}()
	_, err := more.Write(good[:len(good)/2])
	must(t, err)
	eventually(t, "it has begun", func() bool {
		begun, _ := filepath.Glob(filepath.Join(victim.config.Dir, snapsName, "*"+tmpSuffix))
		return len(begun) > 0
	})
	w.files(3) // for which both are needed
	c.agree()
	more.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-sent; err == nil {
		t.Error("half a snapshot was taken")
	}
}

// installRequest is that of a leader which sends a snapshot.
func installRequest(leader *testNode, meta *raft.SnapshotMeta) *raft.InstallSnapshotRequest {
	return &raft.InstallSnapshotRequest{
		RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.id), Addr: []byte(leader.address)},
		SnapshotVersion: meta.Version, Term: leader.raft.CurrentTerm(), LastLogIndex: meta.Index, LastLogTerm: meta.Term,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex, Size: meta.Size,
	}
}

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestSinkBounds: what has no room is refused before the disk is full, and nothing is left.
func TestSinkBounds(t *testing.T) {
	n, _ := start(t, testConfig(t, filepath.Join(t.TempDir(), "data")))
	begin := func() *snapshotSink {
		sink, err := n.snaps.Create(1, 1000, 1, raft.Configuration{}, 1, n.trans)
		must(t, err)
		return sink.(*snapshotSink)
	}
	n.snaps.room = func() error { return ErrNoSpace }
	sink := begin()
	if _, err := sink.Write(make([]byte, roomStep)); !errors.Is(err, ErrNoSpace) {
		t.Error(err)
	}
	must(t, sink.Cancel())
	n.snaps.room = n.roomToInstall
	sink = begin()
	sink.size = maxInstalled
	if _, err := sink.Write(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
	must(t, sink.Cancel())
	if left, _ := os.ReadDir(filepath.Join(n.config.Dir, snapsName)); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
