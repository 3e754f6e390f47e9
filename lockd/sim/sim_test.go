package sim

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"testing"
)

// seeds is how many seeds a plain `go test` runs.
const seeds = 150

func TestSim(t *testing.T) {
	if one := os.Getenv("LOCKFS_SIM_SEED"); one != "" {
		seed, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			t.Fatalf("LOCKFS_SIM_SEED: %v", err)
		}
		runSeed(t, seed, true)
		return
	}
	n := uint64(seeds)
	if testing.Short() {
		n /= 10
	}
	if many := os.Getenv("LOCKFS_SIM_SEEDS"); many != "" {
		var err error
		if n, err = strconv.ParseUint(many, 10, 64); err != nil {
			t.Fatalf("LOCKFS_SIM_SEEDS: %v", err)
		}
	}
	var total counts
	var first uint64
	if from := os.Getenv("LOCKFS_SIM_FROM"); from != "" {
		first, _ = strconv.ParseUint(from, 10, 64)
	}
	for seed := first; seed < first+n; seed++ {
		if os.Getenv("LOCKFS_SIM_PROGRESS") != "" {
			fmt.Fprintln(os.Stderr, "seed", seed)
		}
		s := runSeed(t, seed, false)
		if t.Failed() {
			return
		}
		total.add(&s.counts)
	}
	t.Logf("%d seeds: %s", n, total.String())
	if n >= seeds {
		total.everything(t)
	}
}

func runSeed(t *testing.T, seed uint64, verbose bool) *sim {
	s := newSim(seed)
	s.verbose = verbose
	defer func() {
		if p := recover(); p != nil {
			failed, ok := p.(failure)
			if !ok {
				s.dump(t)
				t.Logf("seed %d: panic at %s; LOCKFS_SIM_SEED=%d shows all", seed, s.clock(), seed)
				panic(p)
			}
			s.dump(t)
			t.Errorf("seed %d, at %s: %s\nrun it again: LOCKFS_SIM_SEED=%d go test ./lockd/sim -run TestSim -v",
				seed, s.clock(), failed, seed)
		}
	}()
	s.run()
	return s
}

// failure is a broken invariant.
type failure string

func (s *sim) failf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

// dump shows the last things that happened.
func (s *sim) dump(t *testing.T) {
	if s.verbose {
		return
	}
	for i := range len(s.trace) {
		if line := s.trace[(s.traced+i)%len(s.trace)]; line != "" {
			t.Log(line)
		}
	}
}

func (s *sim) clock() string { return fmt.Sprintf("%.6fs", float64(s.now)/1e9) }

func (s *sim) tracef(format string, args ...any) {
	line := s.clock() + " " + fmt.Sprintf(format, args...)
	if s.verbose {
		fmt.Println(line)
		return
	}
	s.trace[s.traced%len(s.trace)] = line
	s.traced = (s.traced + 1) % len(s.trace)
}

// counts are what the runs did, to see that they do something.
type counts struct {
	Events, Entries, Grants, Cached, Waits, Refused, Lost, Deadlocks, Cancels, Commits, Removals, Moves int

	Crashes, Forgotten, Partitions, Pauses, LeaderPauses, Deafened, Silent, Elections, Survived, Stale, Snapshots int
	Renewals, Expired, Digests, Suspicions, Verdicts, Selfs                                                       int
}

func (c *counts) add(d *counts) {
	to, from := reflect.ValueOf(c).Elem(), reflect.ValueOf(d).Elem()
	for i := range to.NumField() {
		to.Field(i).SetInt(to.Field(i).Int() + from.Field(i).Int())
	}
}

// everything complains of what never happened: then the simulation shows less than it says.
func (c *counts) everything(t *testing.T) {
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if v.Field(i).Int() == 0 {
			t.Errorf("%s: none", v.Type().Field(i).Name)
		}
	}
	if c.Events < 500_000 {
		t.Errorf("only %d steps", c.Events)
	}
}

func (c *counts) String() string { return fmt.Sprintf("%+v", *c) }
