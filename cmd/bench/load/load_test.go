package load

import (
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" {
		Settle()
		if err := Work(os.Stdin, os.Stdout, Files, Rest); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// service is a lock service in memory. Each flaw makes it break one promise.
type service struct {
	mu     sync.Mutex
	free   sync.Cond
	held   map[string]bool
	values map[string][]byte

	shares  bool         // grants what is held
	tries   bool         // grants what is held to whoever only tries
	forgets bool         // a read sometimes gives the value before
	reads   atomic.Int64 // counted, for forgets
	before  map[string][]byte
	down    atomic.Bool // every call fails
}

func newService() *service {
	s := &service{held: map[string]bool{}, values: map[string][]byte{}, before: map[string][]byte{}}
	s.free.L = &s.mu
	return s
}

func (s *service) dial(string) (Client, error)      { return s, nil }
func (s *service) Close() error                     { return nil }
func (s *service) Lock(name string) (Lock, error)   { return memoryLock{s, name}, nil }
func (s *service) Fresh(name string) (Lock, error)  { return memoryLock{s, name}, nil }
func (s *service) Value(name string) (Value, error) { return memoryValue{s, name}, nil }
func (s *service) take(name string, wait bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.held[name] && !s.shares {
		if !wait {
			return s.tries
		}
		s.free.Wait()
	}
	s.held[name] = true
	return true
}

var errDown = errors.New("down")

type memoryLock struct {
	s    *service
	name string
}

func (l memoryLock) Acquire() error {
	if l.s.down.Load() {
		return errDown
	}
	l.s.take(l.name, true)
	time.Sleep(10 * time.Microsecond) // or one client of a lock that is not fair is the only one
	return nil
}

func (l memoryLock) Try() (bool, error) { return l.s.take(l.name, false), nil }

func (l memoryLock) Release() error {
	if l.s.down.Load() {
		return errDown
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	delete(l.s.held, l.name)
	l.s.free.Broadcast()
	return nil
}

func (l memoryLock) Remove() error { return nil }

type memoryValue struct {
	s    *service
	name string
}

func (v memoryValue) Read(p []byte) (int, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	if v.s.forgets && v.s.reads.Add(1)%100 == 0 {
		return copy(p, v.s.before[v.name]), nil
	}
	return copy(p, v.s.values[v.name]), nil
}

func (v memoryValue) Write(p []byte) error {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	v.s.before[v.name] = v.s.values[v.name]
	v.s.values[v.name] = append([]byte(nil), p...)
	return nil
}

func (v memoryValue) Remove() error { return nil }

// job is a short one.
func job(name string) Job {
	return Job{Workload: name, Clients: 4, Addresses: []string{"a", "b"}, For: 20 * time.Millisecond, Locks: 100}
}

func measure(t *testing.T, s *service, j Job) (Figures, error) {
	t.Helper()
	c := Goroutines(j.Workers(), s.dial)
	defer c.Dismiss()
	return c.Measure(j)
}

// TestMeasures: every workload gives figures of a service that does what it promises.
func TestMeasures(t *testing.T) {
	for _, w := range Workloads {
		if w.Files {
			continue
		}
		t.Run(w.Name, func(t *testing.T) {
			s, j := newService(), job(w.Name)
			held := 0
			if w.Name == "W4" {
				j.Held = func() error { held = len(s.held); return nil }
			}
			if w.Name == "W5" {
				j.Outage = func() error {
					s.down.Store(true)
					time.AfterFunc(30*time.Millisecond, func() { s.down.Store(false) })
					return nil
				}
			}
			f, err := measure(t, s, j)
			if err != nil {
				t.Fatal(err)
			}
			if f.Ops == 0 || f.OpsPerSecond <= 0 || f.Max < f.P50 {
				t.Errorf("figures: %+v", f)
			}
			if h := f.HandOff; (h != nil) != (w.Name == "W3" || w.Name == "W8") || h != nil && (h.MostShare < 1 || h.LeastShare > 1 || h.WaitToFair <= 0) {
				t.Errorf("hand-off: %+v", h)
			}
			if w.Name == "W4" && (held != 100 || f.Ops != 100) {
				t.Errorf("%d held, %d counted, want 100", held, f.Ops)
			}
			if o := f.Outage; (o != nil) != (w.Name == "W5") || o != nil && (o.NewLock < 30*time.Millisecond || o.WarmGap < 30*time.Millisecond || o.Failures == 0) {
				t.Errorf("outage: %+v", o)
			}
			if n := f.News; (n != nil) != (w.Name == "W7") || n != nil && (n.Changes < 2 || n.Max == 0) {
				t.Errorf("news: %+v", n)
			}
		})
	}
}

// TestBroken: a service that breaks its promise gives an error, not figures.
func TestBroken(t *testing.T) {
	shares := func(s *service) { s.shares = true }
	tries := func(s *service) { s.tries = true }
	for _, c := range []struct {
		workload string
		flaw     func(*service)
		want     string
	}{
		{"W1", tries, "does not exclude"},
		{"W2", shares, "does not exclude"},
		{"W3", shares, "does not exclude"},
		{"W4", tries, "does not exclude"},
		{"W6", shares, "does not exclude"},
		{"W7", func(s *service) { s.forgets = true }, "went back"},
		{"W8", shares, "does not exclude"},
	} {
		t.Run(c.workload, func(t *testing.T) {
			s := newService()
			c.flaw(s)
			_, err := measure(t, s, job(c.workload))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
		})
	}
}

// TestUnlocked: where no exclusion is expected, none is looked for.
func TestUnlocked(t *testing.T) {
	s, j := newService(), job("W2")
	s.shares, j.Unlocked = true, true
	if _, err := measure(t, s, j); err != nil {
		t.Error(err)
	}
}

// TestArena: a lock that is granted twice is seen by one holder or the other.
func TestArena(t *testing.T) {
	var a arena
	if _, handOff, err := a.enter(1, 10); handOff || err != nil {
		t.Fatalf("first: %v, %v", handOff, err)
	}
	if _, _, err := a.enter(2, 11); err == nil {
		t.Error("a second holder is not seen")
	}
	if err := a.leave(1, 20); err != nil {
		t.Fatal(err)
	}
	if since, handOff, err := a.enter(2, 25); since != 5 || !handOff || err != nil {
		t.Fatalf("after another: %d, %v, %v", since, handOff, err)
	}
	if err := a.leave(1, 30); err == nil {
		t.Error("a release by another than the holder is not seen")
	}
}

// TestFiles: the workloads run on a plain directory, whose flocks exclude and whose opens do not; nothing is left behind.
func TestFiles(t *testing.T) {
	c, err := Processes(5, "worker")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, w := range Workloads {
		if w.Name == "W5" {
			continue
		}
		for _, by := range []string{"flock", "open"} {
			j := job(w.Name)
			j.Addresses, j.Unlocked = []string{by + ":" + dir}, by == "open"
			if j.Unlocked && !w.Beside {
				continue
			}
			if f, err := c.Measure(j); err != nil || f.Ops == 0 {
				c.Dismiss()
				t.Fatalf("%s by %s: %v, %d operations", w.Name, by, err, f.Ops)
			}
		}
	}
	c.Dismiss()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if c, err = Processes(4, "worker"); err != nil {
		t.Fatal(err)
	}
	defer c.Dismiss()
	j := job("W3")
	j.Addresses = []string{"open:" + dir}
	if _, err := c.Measure(j); err == nil || !strings.Contains(err.Error(), "does not exclude") {
		t.Errorf("opens of a plain directory pass for locks: %v", err)
	}
}

func TestMiddle(t *testing.T) {
	got := Middle([]Figures{{OpsPerSecond: 3}, {OpsPerSecond: 1}, {OpsPerSecond: 2}})
	if got.OpsPerSecond != 2 {
		t.Errorf("the middle is %v", got.OpsPerSecond)
	}
}
