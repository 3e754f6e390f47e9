package load

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Figures are what one measurement gives. The times are of a pair of acquire and release (W1, W2, W6), of an acquire (W3,
// W4, W5, W8), or of one call.
type Figures struct {
	Ops          uint64        `json:"ops"`
	Elapsed      time.Duration `json:"elapsed_ns"`
	OpsPerSecond float64       `json:"ops_per_second"`
	P50          uint64        `json:"p50_ns"`
	P90          uint64        `json:"p90_ns"`
	P99          uint64        `json:"p99_ns"`
	Max          uint64        `json:"max_ns"`
	HandOff      *HandOff      `json:"hand_off,omitempty"` // W3, W8
	Outage       *Outage       `json:"outage,omitempty"`   // W5
	News         *News         `json:"news,omitempty"`     // W7
}

// HandOff is how one lock goes from client to client.
type HandOff struct {
	PerSecond  float64 `json:"per_second"` // grants to another client than the last
	P50        uint64  `json:"p50_ns"`     // from the beginning of the release to the next client's grant
	P99        uint64  `json:"p99_ns"`
	LeastShare float64 `json:"least_share"`  // a client's grants to the mean over all clients
	MostShare  float64 `json:"most_share"`   // likewise
	WaitToFair float64 `json:"wait_to_fair"` // longest wait to that of a queue in strict turns: clients / grants a second
}

// Outage is what clients see of a leader's end.
type Outage struct {
	NewLock  time.Duration `json:"new_lock_ns"` // to the first new lock of the client that got its own last
	WarmGap  time.Duration `json:"warm_gap_ns"` // longest time in which a warm lock was not granted
	Failures int           `json:"failures"`    // calls that gave an error
}

// News is how readers learn of a new value.
type News struct {
	Changes int    `json:"changes"`
	P50     uint64 `json:"p50_ns"` // from the beginning of the write to a client's first read of it
	Max     uint64 `json:"max_ns"`
}

// figuresOf adds up what the workers did, and sees that it does add up.
func figuresOf(j Job, outcomes []outcome, a *arena) (Figures, error) {
	var all, second histogram
	var f Figures
	var sum outcome
	least, most := ^uint64(0), uint64(0)
	for i := range outcomes {
		o := &outcomes[i]
		o.unpack()
		o.Second.unpack()
		all.merge(&o.histogram)
		second.merge(&o.Second)
		least, most = min(least, o.Ops), max(most, o.Ops)
		sum.Elapsed, sum.Until, sum.Gap = max(sum.Elapsed, o.Elapsed), max(sum.Until, o.Until), max(sum.Gap, o.Gap)
		sum.Failures += o.Failures
		sum.Changes += o.Changes
	}
	if all.Ops == 0 || sum.Elapsed <= 0 {
		return f, fmt.Errorf("nothing was done in %v", sum.Elapsed)
	}
	f = Figures{
		Ops: all.Ops, Elapsed: sum.Elapsed, OpsPerSecond: float64(all.Ops) / sum.Elapsed.Seconds(),
		P50: all.quantile(0.50), P90: all.quantile(0.90), P99: all.quantile(0.99), Max: all.Max,
	}
	switch strings.ToUpper(j.Workload) {
	case "W3", "W8":
		if n := uint64(a.grants.Load()); n != all.Ops {
			return f, fmt.Errorf("the lock does not exclude: %d grants by the clients' own counts, %d by the one that the lock guards", all.Ops, n)
		}
		mean := float64(all.Ops) / float64(j.Clients)
		f.HandOff = &HandOff{
			PerSecond: float64(second.Ops) / f.Elapsed.Seconds(), P50: second.quantile(0.50), P99: second.quantile(0.99),
			LeastShare: float64(least) / mean, MostShare: float64(most) / mean,
			WaitToFair: float64(f.Max) / 1e9 * f.OpsPerSecond / float64(j.Clients),
		}
	case "W4":
		if want := uint64(j.each() * j.Clients); all.Ops != want {
			return f, fmt.Errorf("%d locks are held, should be %d", all.Ops, want)
		}
	case "W5":
		f.Outage = &Outage{NewLock: sum.Until, WarmGap: sum.Gap, Failures: sum.Failures}
	case "W7":
		f.News = &News{Changes: sum.Changes, P50: second.quantile(0.50), Max: second.Max}
	}
	return f, nil
}

// Middle returns the measurement in the middle of several of the same, by operations a second; for W5 by the time to
// the new lock.
func Middle(of []Figures) Figures {
	by := func(f Figures) float64 {
		if f.Outage != nil {
			return -float64(f.Outage.NewLock)
		}
		return f.OpsPerSecond
	}
	sorted := slices.SortedFunc(slices.Values(of), func(a, b Figures) int {
		switch {
		case by(a) < by(b):
			return -1
		case by(a) > by(b):
			return 1
		}
		return 0
	})
	return sorted[len(sorted)/2]
}
