package bench

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/bench/load"
	"github.com/lockfs/lockfs/cmd/exit"
)

type options struct {
	beside    string
	workloads []load.Workload
	dirs      []string
	processes []int
	duration  time.Duration
	rounds    int
	locks     int
	outage    string
	asJSON    bool
	worker    bool
}

// Command returns `lockfs bench`.
func Command() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "bench [FLAGS] [WORKLOAD…] [DIR…]",
		Short: "measure what locks cost",
		Long: `bench lets processes use locks in a directory, which it makes below DIR and removes again, and shows how many times
a second and how long it took. Several DIRs are the same place of one tree on the mounts of several hosts; the processes are
dealt out to them in turns. An argument that is the name of a workload is one, any other is a DIR. Without a workload it does
all but W4 and W5.

` + describe() + `
A round fails, and nothing is shown, if two processes ever had one lock or a value went back. The columns are of a pair of
acquire and release (W1, W2, W6), of the wait for the lock (W3, W4, W5, W8), or of one call. With --beside the calls are made
in another directory too, in turns, and compared: a tmpfs, or another FUSE file system; no lock is expected there.
W5 needs --rounds 1 and --outage, a shell command that takes the leader down; name the DIRs of other hosts.`,
		Example: `  lockfs bench /locks
  lockfs bench W3 W8 /mnt/host1 /mnt/host2 /mnt/host3
  lockfs bench W5 --rounds 1 --outage 'kill -9 4711' /mnt/host2 /mnt/host3
  lockfs bench W1 flock --beside /mnt/loopback --json /locks`,
		Annotations: map[string]string{"exit": `  0    measured
  64   wrong usage
  69   DIR is not in a lockfs mount, or its daemon is gone
  70   a call gave an error, or a lock did not do what it is for`},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.worker {
				load.Settle()
				return load.Work(cmd.InOrStdin(), cmd.OutOrStdout(), load.Files, load.Rest)
			}
			o.sort(args)
			if err := o.check(); err != nil {
				return err
			}
			return o.bench(cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.beside, "beside", "", "make the same calls in `DIR` too, in turns")
	f.IntSliceVar(&o.processes, "processes", nil, "with these numbers `N,…` of processes, instead of each workload's own")
	f.DurationVar(&o.duration, "for", 500*time.Millisecond, "let a round last `DURATION`")
	f.IntVar(&o.rounds, "rounds", 5, "make `N` rounds; what is shown is the round of the middle")
	f.IntVar(&o.locks, "locks", 100000, "W4: hold `N` locks at once")
	f.StringVar(&o.outage, "outage", "", "W5: the shell `COMMAND` that takes the leader down")
	f.BoolVar(&o.asJSON, "json", false, "print JSON for programs")
	f.BoolVar(&o.worker, "worker", false, "")
	f.MarkHidden("worker")
	return cmd
}

func describe() string {
	b := &strings.Builder{}
	for _, w := range load.Workloads {
		fmt.Fprintf(b, "  %-6s %s (%s)\n", w.Name, w.What, strings.Trim(strings.ReplaceAll(fmt.Sprint(w.Clients), " ", ", "), "[]"))
	}
	return b.String()
}

// sort tells workloads from directories.
func (o *options) sort(args []string) {
	for _, arg := range args {
		if w, ok := load.Find(arg); ok {
			o.workloads = append(o.workloads, w)
		} else {
			o.dirs = append(o.dirs, arg)
		}
	}
	if len(o.workloads) > 0 {
		return
	}
	for _, w := range load.Workloads {
		if w.Usual && (o.beside == "" || w.Beside) {
			o.workloads = append(o.workloads, w)
		}
	}
}

// maxProcesses and maxLocks bound what a bench starts and holds.
const (
	maxProcesses = 256
	maxLocks     = 10_000_000
)

func (o *options) check() error {
	for _, n := range o.processes {
		if n < 1 || n > maxProcesses {
			return exit.Usagef("bench", "%d processes: want 1 to %d", n, maxProcesses)
		}
	}
	if o.duration <= 0 || o.duration > time.Minute || o.rounds < 1 || o.rounds > 1000 || o.locks < 1 || o.locks > maxLocks {
		return exit.Usagef("bench", "--for up to 1m, --rounds 1 to 1000, --locks 1 to %d", maxLocks)
	}
	for _, w := range o.workloads {
		switch {
		case w.Name == "W5" && o.outage == "":
			return exit.Usagef("bench", "W5 needs --outage COMMAND, which takes the leader down")
		case w.Name == "W5" && o.rounds > 1:
			return exit.Usagef("bench", "W5 takes the leader down once: --rounds 1")
		case o.beside != "" && !w.Beside:
			return exit.Usagef("bench", "%s is about locks: not with --beside", w.Name)
		}
	}
	for _, dir := range o.dirs {
		if _, err := os.Stat(dir); os.IsNotExist(err) && !strings.Contains(dir, "/") {
			return exit.Usagef("bench", "%q is no workload and no directory", dir)
		}
	}
	return nil
}

// clients is with how many clients each workload is measured.
func (o *options) clients(w load.Workload) []int {
	if len(o.processes) == 0 || w.Fixed {
		return w.Clients
	}
	return o.processes
}

func (o *options) bench(w io.Writer) error {
	p, err := find(o.dirs)
	if err != nil {
		return err
	}
	defer p.remove()
	beside := ""
	if o.beside != "" {
		if beside, err = os.MkdirTemp(o.beside, "bench."); err != nil {
			return exit.Of("bench", o.beside, err)
		}
		defer os.RemoveAll(beside)
	}
	hired := 0
	for _, w := range o.workloads {
		for _, n := range o.clients(w) {
			hired = max(hired, load.Job{Workload: w.Name, Clients: n}.Workers())
		}
	}
	c, err := load.Processes(hired, "bench", "--worker")
	if err != nil {
		return exit.Of("bench", "start processes", err)
	}
	defer c.Dismiss()
	var r report
	for _, workload := range o.workloads {
		for _, n := range o.clients(workload) {
			row, err := o.row(c, workload, n, p, beside)
			if err != nil {
				return &exit.Error{Op: "bench", Path: p.dirs[0], What: err.Error(), Code: exit.Software}
			}
			r.Results = append(r.Results, row)
		}
	}
	if o.asJSON {
		return r.json(w)
	}
	return r.print(w)
}

// row measures one workload with one number of processes.
func (o *options) row(c *load.Crew, w load.Workload, n int, p places, beside string) (result, error) {
	j := load.Job{Workload: w.Name, Clients: n, Addresses: p.addresses(), For: o.duration, Locks: o.locks}
	var held *memoryOfLocks
	switch w.Name {
	case "W4":
		before, err := p.memory()
		if err != nil {
			return result{}, err
		}
		j.Held = func() error {
			after, err := p.memory()
			held = &memoryOfLocks{BytesPerLock: float64(after-before) / float64(o.locks)}
			return err
		}
	case "W5":
		j.Outage = func() error { return shell(o.outage) }
	}
	var here, there []load.Figures
	var ratios []float64
	for range o.rounds {
		f, err := c.Measure(j)
		if err != nil {
			return result{}, err
		}
		here = append(here, f)
		if beside == "" {
			continue
		}
		k := j
		k.Addresses, k.Unlocked = []string{"open:" + beside}, true
		if f, err = c.Measure(k); err != nil {
			return result{}, err
		}
		there = append(there, f)
		ratios = append(ratios, float64(here[len(here)-1].P50)/float64(max(1, f.P50)))
	}
	r := result{Workload: w.Name, Processes: n, Mount: load.Middle(here), Held: held}
	if beside != "" {
		m := load.Middle(there)
		slices.Sort(ratios)
		r.Beside, r.Ratio = &m, ratios[len(ratios)/2]
	}
	return r, nil
}
