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
func (m moments) until(index uint64) time.Time {
	for {
		if x := <-m.applied; x.index >= index {
			return x.at
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

// BenchmarkCluster takes turns, in a cluster of three, with what a change costs with and without commit hints, one at a time:
//
//	bare      raft's Apply on the leader
//	told      from Apply on the leader to applied on a follower
//	proposed  from Propose on a follower to applied there, which is what a request waits for
func BenchmarkCluster(b *testing.B) {
	c := newTestCluster(b, 3, testOptions{
		config: func(_ int, c *Config) { c.Logger = slog.New(slog.DiscardHandler) },
		host:   func(*testNode) Host { return moments{make(chan moment, 1024)} },
	})
	leader, follower := c.leader(), c.followers()[0]
	seen := follower.host.(moments)
	must(b, propose(leader.Node, openSession("x", 1)))
	entry := smallEntry()
	var bare figures
	bare.name = "bare"
	told := []*figures{{name: "told-unhinted"}, {name: "told"}}
	proposed := []*figures{{name: "proposed-unhinted"}, {name: "proposed"}}
	b.ResetTimer()
	for range b.N {
		for hinted := range 2 {
			leader.hints.lead(hinted == 1)
			for range 5 {
				seen.drain()
				started := time.Now()
				f := leader.raft.Apply(entry, 0)
				must(b, f.Error())
				bare.add(time.Since(started))
				told[hinted].add(seen.until(f.Index()).Sub(started))

				index := f.Index() + 1
				seen.drain()
				started = time.Now()
				follower.Propose(entry, nil)
				proposed[hinted].add(seen.until(index).Sub(started))
			}
		}
	}
	b.StopTimer()
	bare.report(b)
	for i := range 2 {
		told[i].report(b)
		proposed[i].report(b)
	}
}
