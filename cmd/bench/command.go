package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
)

type options struct {
	beside    string
	workloads []string
	processes []int
	duration  time.Duration
	rounds    int
	held      int
	asJSON    bool
	worker    bool
}

// Command returns `lockfs bench`.
func Command() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "bench [FLAGS] [DIR]",
		Short: "measure what the calls of a lock's user cost",
		Long: `bench lets processes make the calls of a lock's user in a directory of a mount, which it makes below DIR and removes
again, and shows how long a call took and how many there were a second. Workloads:

` + describe() + `
With --beside the same calls are made in another directory too, in turns, and compared: a tmpfs, or another FUSE file
system. With --held N, N locks are held at once at the end, and the daemon's memory for each is shown.`,
		Example: `  lockfs bench /locks
  lockfs bench --workload open,flock --beside /mnt/loopback --json /locks`,
		Annotations: map[string]string{"exit": `  0    measured
  64   wrong usage
  69   DIR is not in a lockfs mount, or its daemon is gone
  70   a call gave an error`},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.worker {
				return work(cmd.InOrStdin(), cmd.OutOrStdout())
			}
			if len(args) > 1 {
				return exit.Usagef("bench", "%q is one argument too many", args[1])
			}
			return o.bench(slices.Concat(args, []string{""})[0], cmd.OutOrStdout())
		},
	}
	names := make([]string, len(workloads))
	for i, w := range workloads {
		names[i] = w.name
	}
	f := cmd.Flags()
	f.StringVar(&o.beside, "beside", "", "make the same calls in `DIR` too, in turns")
	f.StringSliceVar(&o.workloads, "workload", names, "make the calls of these `WORKLOADS`")
	f.IntSliceVar(&o.processes, "processes", []int{1, 8}, "with these numbers `N,…` of processes")
	f.DurationVar(&o.duration, "for", 500*time.Millisecond, "let a round last `DURATION`")
	f.IntVar(&o.rounds, "rounds", 5, "make `N` rounds; what is shown is the round of the middle")
	f.IntVar(&o.held, "held", 0, "hold `N` locks at once and show the daemon's memory for each")
	f.BoolVar(&o.asJSON, "json", false, "print JSON for programs")
	f.BoolVar(&o.worker, "worker", false, "")
	f.MarkHidden("worker")
	return cmd
}

func describe() string {
	b := &strings.Builder{}
	for _, w := range workloads {
		fmt.Fprintf(b, "  %-6s %s\n", w.name, w.what)
	}
	return b.String()
}

// maxProcesses bounds the crew.
const maxProcesses = 256

func (o *options) check() error {
	for _, name := range o.workloads {
		if _, ok := find(name); !ok {
			return exit.Usagef("bench", "%q is no workload", name)
		}
	}
	for _, n := range o.processes {
		if n < 1 || n > maxProcesses {
			return exit.Usagef("bench", "%d processes: want 1 to %d", n, maxProcesses)
		}
	}
	if o.duration <= 0 || o.duration > time.Minute || o.rounds < 1 || o.rounds > 1000 || o.held < 0 || len(o.processes) == 0 {
		return exit.Usagef("bench", "--for up to 1m, --rounds 1 to 1000, --held at least 0, --processes not empty")
	}
	return nil
}

// result is one row of the report.
type result struct {
	Workload  string   `json:"workload"`
	Processes int      `json:"processes"`
	Mount     figures  `json:"mount"`
	Beside    *figures `json:"beside,omitempty"`
	// Ratio is the median over the rounds of this mount's p50 to that of the directory beside.
	Ratio float64 `json:"ratio,omitempty"`
}

// figures are of the round in the middle, by p50.
type figures struct {
	OpsPerSecond float64 `json:"ops_per_second"`
	P50          uint64  `json:"p50_ns"`
	P90          uint64  `json:"p90_ns"`
	P99          uint64  `json:"p99_ns"`
	Max          uint64  `json:"max_ns"`
}

func figuresOf(t outcome) figures {
	return figures{
		OpsPerSecond: float64(t.Ops) / t.Elapsed.Seconds(),
		P50:          t.quantile(0.50), P90: t.quantile(0.90), P99: t.quantile(0.99), Max: t.Max,
	}
}

// report is all that was measured.
type report struct {
	Results []result     `json:"results"`
	Held    *heldFigures `json:"held,omitempty"`
}

func (o *options) bench(path string, w io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	m, rel, err := client.Find("bench", path)
	if err != nil {
		return err
	}
	dir, remove, err := scratch(m.Below(rel))
	if err != nil {
		return exit.Of("bench", m.Below(rel), err)
	}
	defer remove()
	beside := ""
	if o.beside != "" {
		var removeBeside func()
		if beside, removeBeside, err = scratch(o.beside); err != nil {
			return exit.Of("bench", o.beside, err)
		}
		defer removeBeside()
	}
	c, err := hire(slices.Max(o.processes))
	if err != nil {
		return exit.Of("bench", "start processes", err)
	}
	defer c.dismiss()
	var r report
	for _, name := range o.workloads {
		for _, n := range o.processes {
			row, err := o.row(c, name, n, dir, beside)
			if err != nil {
				return &exit.Error{Op: "bench", Path: dir, What: err.Error(), Code: exit.Software}
			}
			r.Results = append(r.Results, row)
		}
	}
	if o.held > 0 {
		if r.Held, err = hold(m, dir, o.held); err != nil {
			return &exit.Error{Op: "bench", Path: dir, What: err.Error(), Code: exit.Software}
		}
	}
	if o.asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	return r.print(w)
}

// scratch makes a directory that is removed again.
func scratch(in string) (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(in, "bench.")
	return dir, func() { os.RemoveAll(dir) }, err
}

// row measures one workload with one number of processes.
func (o *options) row(c *crew, name string, n int, dir, beside string) (result, error) {
	var here, there []figures
	var ratios []float64
	for range o.rounds {
		t, err := c.measure(n, round{Workload: name, Dir: dir, For: o.duration})
		if err != nil {
			return result{}, err
		}
		here = append(here, figuresOf(t))
		if beside == "" {
			continue
		}
		if t, err = c.measure(n, round{Workload: name, Dir: beside, For: o.duration}); err != nil {
			return result{}, err
		}
		there = append(there, figuresOf(t))
		ratios = append(ratios, float64(here[len(here)-1].P50)/float64(max(1, there[len(there)-1].P50)))
	}
	r := result{Workload: name, Processes: n, Mount: middle(here)}
	if beside != "" {
		m := middle(there)
		slices.Sort(ratios)
		r.Beside, r.Ratio = &m, ratios[len(ratios)/2]
	}
	return r, nil
}

// middle is the round with the median p50.
func middle(rounds []figures) figures {
	slices.SortFunc(rounds, func(a, b figures) int { return int(int64(a.P50) - int64(b.P50)) })
	return rounds[len(rounds)/2]
}

func (r report) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	beside := len(r.Results) > 0 && r.Results[0].Beside != nil
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
	if r.Held != nil {
		return r.Held.print(w)
	}
	return nil
}

func micros(ns uint64) string { return fmt.Sprintf("%.1f", float64(ns)/1000) }
