package cluster

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
)

// moments is a host that says when each entry was applied.
type moments struct{ applied chan moment }

type moment struct {
	index uint64
	at    time.Time
}

func (m moments) Applied(index uint64, _ []state.Change, _ *state.View) {
	select {
	case m.applied <- moment{index, time.Now()}:
	default:
	}
}
func (moments) Restored(*state.View) {}

func (m moments) drain() {
	for len(m.applied) > 0 {
		<-m.applied
	}
}

// until returns when the entry, or a later one, was applied.
func (m moments) until(b *testing.B, index uint64) time.Time {
	late := time.After(30 * time.Second)
	for {
		select {
		case x := <-m.applied:
			if x.index >= index {
				return x.at
			}
		case <-late:
			b.Fatalf("entry %d was never applied", index)
		}
	}
}

// figures are latencies of one kind.
type figures struct {
	name string
	all  []time.Duration
}

func (f *figures) add(d time.Duration) { f.all = append(f.all, d) }

func (f *figures) report(b *testing.B) {
	slices.Sort(f.all)
	at := func(p int) float64 { return float64(f.all[(len(f.all)-1)*p/100].Microseconds()) }
	b.ReportMetric(at(50), f.name+"-p50-µs")
	b.ReportMetric(at(99), f.name+"-p99-µs")
}

// BenchmarkCluster takes turns, in a cluster of three, with what a change costs, one at a time:
//
//	bare      raft's Apply on the leader
//	told      from that to applied on a follower
//	leader    from Propose on the leader to applied there, which is what a request waits for
//	follower  the same on a follower
//
// The figure that counts is the last beside the first.
func BenchmarkCluster(b *testing.B) {
	c := newTestCluster(b, 3, testOptions{
		config: func(_ int, c *Config) { c.Logger = slog.New(slog.DiscardHandler) },
		host:   func(*testNode) Host { return moments{make(chan moment, 1024)} },
	})
	leader, follower := c.leader(), c.followers()[0]
	here, there := leader.host.(moments), follower.host.(moments)
	must(b, propose(leader.Node, openSession("x", 1)))
	entry := smallEntry()
	var all [4]figures
	for i, name := range []string{"bare", "told", "leader", "follower"} {
		all[i].name = name
	}
	proposed := func(on *testNode, seen moments, index uint64) time.Duration {
		seen.drain()
		started := time.Now()
		on.Propose(entry, nil)
		return seen.until(b, index).Sub(started)
	}
	b.ResetTimer()
	for range b.N {
		there.drain()
		started := time.Now()
		f := leader.raft.Apply(entry, 0)
		must(b, f.Error())
		all[0].add(time.Since(started))
		all[1].add(there.until(b, f.Index()).Sub(started))
		all[2].add(proposed(leader, here, f.Index()+1))
		there.until(b, f.Index()+1)
		all[3].add(proposed(follower, there, f.Index()+2))
		here.until(b, f.Index()+2)
	}
	b.StopTimer()
	for i := range all {
		all[i].report(b)
	}
}
