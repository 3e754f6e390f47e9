package cluster

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Run these beside each other: what a commit costs on this disk (Fsync), in raft-wal (WAL), in raft as it comes (BareRaft), and
// here (Propose); Applied is until the host is told, which is what a request waits for.

// latencies reports p50 and p99 of what f takes.
func latencies(b *testing.B, f func()) {
	var all []time.Duration
	for b.Loop() {
		started := time.Now()
		f()
		all = append(all, time.Since(started))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(all[len(all)*99/100].Nanoseconds()), "p99-ns")
}

func smallEntry() []byte {
	return state.Encode([]*statepb.Command{{TimeUnixNs: 1, Op: &statepb.Command_Renew{Renew: &statepb.Renew{
		Renewals: []*statepb.Renewal{{Session: 1, Stamp: 1 << 60}},
	}}}})
}

func BenchmarkFsync(b *testing.B) {
	path := filepath.Join(b.TempDir(), "f")
	must(b, os.WriteFile(path, nil, 0o600))
	must(b, extend(path, 64<<20))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(b, err)
	defer f.Close()
	at := int64(0)
	latencies(b, func() {
		f.WriteAt(smallEntry(), at)
		at += 128
		must(b, f.Sync())
	})
}

func BenchmarkWAL(b *testing.B) {
	w, err := wal.Open(b.TempDir(), wal.WithLogger(&raftLog{to: slog.New(slog.DiscardHandler)}))
	must(b, err)
	defer w.Close()
	index := uint64(0)
	latencies(b, func() {
		index++
		must(b, w.StoreLog(&raft.Log{Index: index, Term: 1, Data: smallEntry()}))
	})
}

// countingFSM does nothing.
type countingFSM struct{}

func (countingFSM) Apply(*raft.Log) any                 { return nil }
func (countingFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, io.EOF }
func (countingFSM) Restore(io.ReadCloser) error         { return nil }

// bareRaft is raft with raft-wal as both come, alone in its cluster.
func bareRaft(b *testing.B) *raft.Raft {
	b.Helper()
	dir := b.TempDir()
	silent := &raftLog{to: slog.New(slog.DiscardHandler)}
	w, err := wal.Open(dir, wal.WithLogger(silent))
	must(b, err)
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = "a", silent
	trans, err := raft.NewTCPTransportWithLogger("127.0.0.1:0", nil, 1, time.Second, silent)
	must(b, err)
	snaps := raft.NewDiscardSnapshotStore()
	must(b, raft.BootstrapCluster(c, w, w, snaps, trans,
		raft.Configuration{Servers: []raft.Server{{ID: "a", Address: trans.LocalAddr()}}}))
	r, err := raft.NewRaft(c, countingFSM{}, w, w, snaps, trans)
	must(b, err)
	b.Cleanup(func() { r.Shutdown().Error(); trans.Close(); w.Close() })
	for leads := range r.LeaderCh() {
		if leads {
			return r
		}
	}
	return nil
}

func BenchmarkBareRaft(b *testing.B) {
	r := bareRaft(b)
	latencies(b, func() { must(b, r.Apply(smallEntry(), 0).Error()) })
}

func BenchmarkBareRaft64(b *testing.B) {
	r := bareRaft(b)
	parallel(b, func() { must(b, r.Apply(smallEntry(), 0).Error()) })
}

func benchNode(b *testing.B) (*Node, *testHost) {
	c := testConfig(b, filepath.Join(b.TempDir(), "data"))
	c.Logger = slog.New(slog.DiscardHandler)
	n, h := start(b, c)
	session(b, n, h, 1)
	b.ResetTimer()
	return n, h
}

func proposeEntry(b *testing.B, n *Node) {
	done := make(chan error, 1)
	n.Propose(smallEntry(), func(err error) { done <- err })
	must(b, <-done)
}

func BenchmarkPropose(b *testing.B) {
	n, _ := benchNode(b)
	latencies(b, func() { proposeEntry(b, n) })
}

// BenchmarkPropose64 has 64 entries under way at a time.
func BenchmarkPropose64(b *testing.B) {
	n, _ := benchNode(b)
	parallel(b, func() { proposeEntry(b, n) })
}

func parallel(b *testing.B, f func()) {
	b.ResetTimer()
	var all sync.WaitGroup
	work := make(chan struct{}, 64)
	for range 64 {
		all.Go(func() {
			for range work {
				f()
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	all.Wait()
}

// appliedHost says when an entry was applied and keeps nothing.
type appliedHost struct{ ch chan struct{} }

func (h appliedHost) Applied(uint64, []state.Change, *state.View) {
	select {
	case h.ch <- struct{}{}:
	default:
	}
}
func (h appliedHost) Restored(*state.View) {}

func BenchmarkApplied(b *testing.B) {
	c := testConfig(b, filepath.Join(b.TempDir(), "data"))
	c.Logger = slog.New(slog.DiscardHandler)
	n, err := Open(c)
	must(b, err)
	defer n.Close()
	h := appliedHost{make(chan struct{}, 1)}
	must(b, n.Start(h))
	<-n.ready
	must(b, propose(n, openSession("a", 1)))
	select {
	case <-h.ch:
	default:
	}
	b.ReportAllocs()
	latencies(b, func() {
		n.Propose(smallEntry(), nil)
		<-h.ch
	})
}

// BenchmarkBeside takes turns between raft as it comes and this package, so that both see the same disk and machine.
func BenchmarkBeside(b *testing.B) {
	r := bareRaft(b)
	n, _ := benchNode(b)
	var took [2][]time.Duration
	for b.Loop() {
		started := time.Now()
		must(b, r.Apply(smallEntry(), 0).Error())
		between := time.Now()
		proposeEntry(b, n)
		took[0] = append(took[0], between.Sub(started))
		took[1] = append(took[1], time.Since(between))
	}
	for i, name := range []string{"bare", "propose"} {
		slices.Sort(took[i])
		b.ReportMetric(float64(took[i][len(took[i])/2].Microseconds()), name+"-p50-us")
		b.ReportMetric(float64(took[i][len(took[i])*99/100].Microseconds()), name+"-p99-us")
	}
}

func BenchmarkRoom(b *testing.B) {
	n, _ := benchNode(b)
	for b.Loop() {
		n.Room()
	}
}
