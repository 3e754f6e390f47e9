package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

func init() { runtime.LockOSThread() } // see launch

type options struct {
	bin, dir, out   string
	only, workloads string
	rounds, outages int
	locks           int
	duration, limit time.Duration
}

func main() {
	log.SetFlags(log.Ltime)
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "etcd":
			if err := serveEtcd(os.Args[2:]); err != nil {
				log.Fatal(err)
			}
			return
		case "worker":
			load.Settle()
			if err := load.Work(os.Stdin, os.Stdout, load.Files, load.Rest); err != nil {
				log.Fatal(err)
			}
			return
		}
	}
	var o options
	short := flag.Bool("short", false, "small and quick: whether it works, not what it costs")
	flag.StringVar(&o.bin, "bin", ".", "`DIR` of the programs lockfs and loopback")
	flag.StringVar(&o.dir, "dir", ".", "`DIR` for the servers' data, on a real disk; a directory is made there and removed")
	flag.StringVar(&o.out, "out", ".", "`DIR` for the results")
	flag.StringVar(&o.only, "only", "", "measure these `SERVICES`, separated by commas")
	flag.StringVar(&o.workloads, "workloads", "W1,W2,W3,W4,W5,W6,W7,W8,flock", "measure these `WORKLOADS`")
	flag.IntVar(&o.rounds, "rounds", 5, "make `N` rounds; what is shown is the one in the middle")
	flag.IntVar(&o.outages, "outages", 3, "take each leader down `N` times (W5)")
	flag.IntVar(&o.locks, "locks", 100000, "hold `N` locks (W4)")
	flag.DurationVar(&o.duration, "for", 2*time.Second, "let a round last `DURATION`")
	flag.DurationVar(&o.limit, "limit", 40*time.Minute, "begin no measurement after `DURATION`")
	flag.Parse()
	if *short {
		o.rounds, o.outages, o.locks, o.duration = 1, 1, 2000, 300*time.Millisecond
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := o.run(ctx)
	cancel()
	if err != nil {
		log.Fatal(err)
	}
}

// missing is what to install for a service that is not there.
type missing struct{ what string }

func (m *missing) Error() string { return m.what + " is not installed" }

// lookFor finds a program, or says what it is part of.
func lookFor(program, of string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", &missing{of}
	}
	return path, nil
}

func (o options) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(o.dir, "peers.")
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var all []*service
	defer func() {
		for _, s := range all {
			s.stop()
		}
	}()
	r := newResults(o)
	for _, s := range services(o.bin) {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), s.Name) {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Printf("start %s", s.Name)
		all = append(all, s) // what fails half-way is stopped too
		err := s.start(s, dir)
		var gone *missing
		if errors.As(err, &gone) {
			log.Printf("%s is left out: %v", s.Name, err)
			all = all[:len(all)-1]
			continue
		}
		if err != nil {
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
		r.add(s)
	}
	if err := o.measureAll(ctx, r, all); err != nil {
		return err
	}
	return r.write(o.out)
}

// measureAll measures every workload on every service, round by round, each round on every service in turn; who begins
// changes from round to round.
func (o options) measureAll(ctx context.Context, r *results, all []*service) error {
	began := time.Now()
	for _, name := range strings.Split(o.workloads, ",") {
		w, ok := load.Find(name)
		if !ok {
			return fmt.Errorf("%q is no workload", name)
		}
		counts, rounds := w.Clients, o.rounds
		switch w.Name {
		case "W4":
			rounds = 1
		case "W5":
			rounds = o.outages
		case "flock":
			counts = []int{1}
		}
		for _, n := range counts {
			for round := range rounds {
				for i := range all {
					s := all[(i+round)%len(all)]
					if reason, not := s.cannot(w); not {
						r.leave(w.Name, n, s, reason)
						continue
					}
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if time.Since(began) > o.limit {
						r.leave(w.Name, n, s, "out of time")
						continue
					}
					m, err := o.measure(w, n, s)
					if err != nil {
						log.Printf("%s %d %s: %v", w.Name, n, s.Name, err)
						r.fail(w.Name, n, s, err)
						continue
					}
					log.Printf("%s %d %s: %s", w.Name, n, s.Name, m)
					r.put(w.Name, n, s, m)
				}
			}
		}
	}
	return nil
}

// cannot says why a workload is not measured on a service.
func (s *service) cannot(w load.Workload) (reason string, not bool) {
	if reason, not = s.not[w.Name]; not {
		return reason, true
	}
	if w.Files && s.dial != nil {
		return "no file system", true
	}
	return "", false
}

// measure does one measurement.
func (o options) measure(w load.Workload, n int, s *service) (m measured, err error) {
	j := load.Job{Workload: w.Name, Clients: n, Addresses: s.addresses, For: o.duration, Locks: o.locks, Unlocked: s.Name == "loopback"}
	switch w.Name {
	case "W4":
		before, err := s.memory()
		if err != nil {
			return m, err
		}
		j.Held = func() error {
			after, err := s.memory()
			m.BytesPerLock = float64(after-before) / float64(o.locks)
			return err
		}
	case "W5":
		if j.Outage, j.Addresses, err = s.leader(s); err != nil {
			return m, err
		}
		defer func() { err = errors.Join(err, s.recover(s)) }()
	}
	var c *load.Crew
	if s.dial != nil {
		c = load.Goroutines(j.Workers(), s.dial)
	} else if c, err = load.Processes(j.Workers(), "worker"); err != nil {
		return m, err
	}
	defer c.Dismiss()
	m.Figures, err = c.Measure(j)
	return m, err
}
