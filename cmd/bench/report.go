package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

// report is all that was measured.
type report struct {
	Results []result `json:"results"`
}

// result is one row of the report.
type result struct {
	Workload  string         `json:"workload"`
	Processes int            `json:"processes"`
	Mount     load.Figures   `json:"mount"`
	Held      *memoryOfLocks `json:"held,omitempty"` // W4
	Beside    *load.Figures  `json:"beside,omitempty"`
	// Ratio is the median over the rounds of this mount's p50 to that of the directory beside.
	Ratio float64 `json:"ratio,omitempty"`
}

// memoryOfLocks is what held locks cost the daemons together.
type memoryOfLocks struct {
	BytesPerLock float64 `json:"bytes_per_lock"` // of live heap
}

func (r report) json(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

func (r report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	beside := slices.ContainsFunc(r.Results, func(row result) bool { return row.Beside != nil })
	fmt.Fprint(t, "workload\tprocesses\tops/s\tp50 µs\tp90 µs\tp99 µs\tmax µs\t")
	if beside {
		fmt.Fprint(t, "beside ops/s\tbeside p50 µs\tratio of p50\t")
	}
	fmt.Fprintln(t)
	for _, row := range r.Results {
		m := row.Mount
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%s\t%s\t%s\t%s\t", row.Workload, row.Processes, m.OpsPerSecond, micros(m.P50), micros(m.P90),
			micros(m.P99), micros(m.Max))
		if row.Beside != nil {
			fmt.Fprintf(t, "%.0f\t%s\t%.2f\t", row.Beside.OpsPerSecond, micros(row.Beside.P50), row.Ratio)
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, row := range r.Results {
		if err := row.more(w); err != nil {
			return err
		}
	}
	return nil
}

// more prints what only one kind of workload has.
func (r result) more(w io.Writer) (err error) {
	if h := r.Mount.HandOff; h != nil {
		_, err = fmt.Fprintf(w, "%s: %.0f hand-offs/s, from release to grant p50 %s µs, p99 %s µs; longest wait %.1f times the fair one; "+
			"shares from %.2f to %.2f\n", r.Workload, h.PerSecond, micros(h.P50), micros(h.P99), h.WaitToFair, h.LeastShare, h.MostShare)
	}
	if h := r.Held; h != nil {
		_, err = fmt.Fprintf(w, "%s: %d locks held at once after %.1f s: %.0f bytes of the daemons' memory a lock\n", r.Workload, r.Mount.Ops,
			r.Mount.Elapsed.Seconds(), h.BytesPerLock)
	}
	if o := r.Mount.Outage; o != nil {
		_, err = fmt.Fprintf(w, "%s: a new lock %.2f s after the outage; longest time without a warm lock %.3f s; %d calls failed\n",
			r.Workload, o.NewLock.Seconds(), o.WarmGap.Seconds(), o.Failures)
	}
	if n := r.Mount.News; n != nil {
		_, err = fmt.Fprintf(w, "%s: %d values, first read p50 %s µs, at most %s µs after their write began\n", r.Workload, n.Changes,
			micros(n.P50), micros(n.Max))
	}
	return err
}

func micros(ns uint64) string { return fmt.Sprintf("%.1f", float64(ns)/1000) }
