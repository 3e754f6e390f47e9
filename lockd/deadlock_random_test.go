package lockd_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// crowd are processes on several hosts that take and let go of locks at random, and what the test knows of each.
type crowd struct {
	*many
	mu      sync.Mutex
	inos    []uint64 // the directory, files in it, a file elsewhere; byte ranges are locked on the last
	dir     uint64
	ordered bool // everybody asks in one order and converts nothing: there can be no deadlock
	end     time.Time
	people  []*person
	seen    uint64            // the last deadlock looked at
	stuck   map[int]time.Time // waits on a cycle, by number, since when
	waits   int
	found   int
	over    chan struct{} // closed when the test has failed: nobody waits any more
}

// fail fails the test and lets all go home. Called with mu held.
func (c *crowd) fail(format string, args ...any) {
	if c.over == nil {
		return
	}
	c.Errorf(format, args...)
	c.end = time.Time{}
	close(c.over)
	c.over = nil
}

// goesOn reports whether the test does.
func (c *crowd) goesOn(until time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over != nil && time.Now().Before(until)
}

// person is one process, with one thread.
type person struct {
	host  int
	pid   uint32
	rng   *rand.Rand
	held  []*stay // there now
	waits *stay   // nil: does not wait
	past  []*stay
}

// stay is a lock or a wait, from when to when.
type stay struct {
	n          int
	ino        uint64
	mode       queue.Mode
	ranged     bool
	lock       *lockd.Lock
	begin, end time.Time // no end: still
}

func (s *stay) at(t time.Time) bool {
	return !s.begin.After(t) && (s.end.IsZero() || !s.end.Before(t))
}

// conflict reports whether a wait is held up by a lock of another process.
func (c *crowd) conflict(w, h *stay) bool {
	if w.ranged || h.ranged {
		return w.ranged && h.ranged
	}
	mode, wanted := h.mode, w.mode
	switch {
	case w.ino == h.ino:
	case w.ino == c.dir && slices.Contains(c.inos[1:4], h.ino):
		mode = mode.Intent()
	case h.ino == c.dir && slices.Contains(c.inos[1:4], w.ino):
		wanted = wanted.Intent()
	default:
		return false
	}
	return mode != queue.None && wanted != queue.None && !queue.Compatible(mode, wanted)
}

func (p *person) sleep(most time.Duration) { time.Sleep(time.Duration(p.rng.Int64N(int64(most)))) }

// live is what a process does until its time is over.
func (c *crowd) live(p *person) {
	end := c.end
	for c.goesOn(end) {
		p.sleep(150 * time.Millisecond)
		switch n := p.rng.IntN(10); {
		case len(p.held) == 4 || n < 3 && len(p.held) > 0:
			c.letGo(p, p.rng.IntN(len(p.held)))
		case n < 5 && len(p.held) > 0 && !c.ordered:
			c.convert(p, p.held[p.rng.IntN(len(p.held))])
		default:
			c.take(p)
		}
	}
	for len(p.held) > 0 {
		c.letGo(p, 0)
	}
}

// begins notes a wait.
func (c *crowd) begins(p *person, w *stay) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits++
	w.n, w.begin = c.waits, time.Now()
	p.waits = w
	p.past = append(p.past, w)
}

// ends notes its outcome; a process that is told of a deadlock or loses patience lets go of all.
func (c *crowd) ends(p *person, err error) {
	c.mu.Lock()
	w := p.waits
	w.end, p.waits = time.Now(), nil
	if errors.Is(err, lockd.ErrDeadlock) {
		c.found++
	}
	if err == nil {
		h := *w
		h.begin, h.end = w.end, time.Time{}
		p.held, p.past = append(p.held, &h), append(p.past, &h)
	}
	c.mu.Unlock()
	switch {
	case err == nil || errors.Is(err, lockd.ErrDeadlock) || errors.Is(err, lockd.ErrTimeout) || errors.Is(err, lockd.ErrInterrupted) || errors.Is(err, lockd.ErrBusy):
	default:
		c.Errorf("host %d, process %d: %v", p.host+1, p.pid, err)
	}
	for err != nil && len(p.held) > 0 {
		c.letGo(p, 0)
	}
}

// take asks for a lock that the process has not.
func (c *crowd) take(p *person) {
	i := p.rng.IntN(len(c.inos))
	for _, h := range p.held {
		at := slices.Index(c.inos, h.ino)
		if at == i || c.ordered && (at > i || h.ino == c.dir && i < 4) { // two who share the directory exclude each other below
			return
		}
	}
	modes := []queue.Mode{queue.EX, queue.EX, queue.PW, queue.PR, queue.PR, queue.CW, queue.CR}
	w := &stay{ino: c.inos[i], mode: modes[p.rng.IntN(len(modes))], ranged: i == len(c.inos)-1}
	h := c.hosts[p.host]
	cancel := make(chan struct{})
	call := &lockd.Call{PID: p.pid, UID: 1000, Cancel: cancel}
	c.mu.Lock()
	over := c.over
	c.mu.Unlock()
	patience := time.Hour
	if p.rng.IntN(4) == 0 {
		patience = time.Duration(p.rng.Int64N(int64(3 * time.Second)))
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-over:
			close(cancel)
		case <-time.After(patience):
			close(cancel)
		case <-done:
		}
	}()
	c.begins(p, w)
	if w.ranged {
		_, err := h.LockRange(call, w.ino, p.wholeRange(), true)
		c.ends(p, err)
		return
	}
	w.lock = new(lockd.Lock)
	r := lockd.Request{Ino: w.ino, Mode: w.mode}
	if p.rng.IntN(4) == 0 {
		r.Wait = time.Duration(p.rng.Int64N(int64(3 * time.Second)))
	}
	if p.rng.IntN(10) == 0 {
		r.Flags = queue.NoQueue
	}
	c.ends(p, h.Lock(call, w.lock, r))
}

func (p *person) wholeRange() lockd.Range {
	return lockd.Range{Owner: uint64(p.pid), Write: true, Start: 0, End: 9, PID: p.pid}
}

// convert asks for a stronger mode of what the process has, or gives some of it up.
func (c *crowd) convert(p *person, s *stay) {
	mode := []queue.Mode{queue.EX, queue.PR, queue.CR}[p.rng.IntN(3)]
	if s.ranged || mode == s.mode {
		return
	}
	w := &stay{ino: s.ino, mode: mode, lock: s.lock}
	c.begins(p, w)
	err := c.hosts[p.host].Convert(&lockd.Call{PID: p.pid, UID: 1000}, s.lock, mode, 0, 3*time.Second)
	if err == nil {
		c.mu.Lock()
		s.end = time.Now()
		p.held = slices.DeleteFunc(p.held, func(x *stay) bool { return x == s })
		c.mu.Unlock()
	}
	c.ends(p, err)
}

func (c *crowd) letGo(p *person, i int) {
	c.mu.Lock()
	s := p.held[i]
	s.end = time.Now()
	p.held = slices.Delete(p.held, i, i+1)
	c.mu.Unlock()
	if s.ranged {
		if err := c.hosts[p.host].UnlockRange(nil, s.ino, p.wholeRange()); err != nil {
			c.Error(err)
		}
		return
	}
	c.hosts[p.host].Release(s.lock)
}

// look checks what all are doing at this moment: no deadlock stands for longer than a second, no verdict was wrong.
func (c *crowd) look() {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	edges := make([][]int, len(c.people))
	for i, p := range c.people {
		for j, q := range c.people {
			holdsUp := func(h *stay) bool { return c.conflict(p.waits, h) && (h.ino != p.waits.ino || !c.above(p)) }
			if i != j && p.waits != nil && slices.ContainsFunc(q.held, holdsUp) {
				edges[i] = append(edges[i], j)
			}
		}
	}
	stuck := make(map[int]time.Time)
	for i, p := range c.people {
		if !reaches(edges, i, i, make([]bool, len(edges))) {
			continue
		}
		since, ok := c.stuck[p.waits.n]
		if !ok {
			since = time.Now()
		}
		stuck[p.waits.n] = since
		if d := time.Since(since); d > time.Second {
			c.fail("host %d, process %d is in a deadlock for %v:\n%s", p.host+1, p.pid, d, c.describe())
		}
	}
	c.stuck = stuck
	for _, x := range c.hosts[0].View().Cycles() {
		if x.Index > c.seen {
			c.seen = x.Index
			c.judge(x)
		}
	}
}

// above reports whether a wait is held up at the directory still, perhaps by somebody who waits for nothing.
func (c *crowd) above(p *person) bool {
	for r := range c.hosts[0].View().Reports(p.waits.ino) {
		if r.Waits() && r.Tgid == p.pid && r.At != r.Ino {
			return true
		}
	}
	return false
}

func reaches(edges [][]int, from, to int, seen []bool) bool {
	return slices.ContainsFunc(edges[from], func(i int) bool {
		if i == to {
			return true
		}
		if seen[i] {
			return false
		}
		seen[i] = true
		return reaches(edges, i, to, seen)
	})
}

// judge checks that all of a deadlock stood at the time of its verdict.
func (c *crowd) judge(x *state.Cycle) {
	if c.ordered {
		for _, p := range x.Parties {
			c.Logf("wait %+v\nby %d %+v", *p.Wait, p.By, *p.Key)
		}
		for l := range c.hosts[0].View().AllHostLocks() {
			c.Logf("host lock %+v", l)
		}
		c.fail("a verdict where no deadlock can be: %+v\n%s", *x, c.describe())
	}
	t := time.Unix(0, x.Time)
	find := func(host string, pid uint32, r *state.Report) *stay {
		for _, p := range c.people {
			if c.hosts[p.host].Name() != host || p.pid != pid {
				continue
			}
			for _, s := range p.past {
				if s.ino == r.Ino && s.at(t) && (s.mode == r.Mode || s.ranged) {
					return s
				}
			}
		}
		return nil
	}
	for i, p := range x.Parties {
		wait, key := find(p.Host, p.Wait.Tgid, p.Wait), find(p.ByHost, p.Key.Tgid, p.Key)
		next := x.Parties[(i+1)%len(x.Parties)].Wait
		switch {
		case wait == nil || key == nil:
			c.fail("party %d of %+v did not stand: %+v, %+v", i, *x, *p.Wait, *p.Key)
		case p.By == state.ByLock && !c.conflict(wait, key):
			c.fail("%+v is not held up by %+v", *wait, *key)
		case p.Key.Tgid != next.Tgid || p.ByHost != x.Parties[(i+1)%len(x.Parties)].Host:
			c.fail("%+v is not of who waits next, %+v", *p.Key, *next)
		case p.Wait.Since > x.Parties[0].Wait.Since:
			c.fail("%+v is younger than the victim", *p.Wait)
		}
	}
}

func (c *crowd) describe() (text string) {
	for _, p := range c.people {
		text += fmt.Sprintf("host%d:%d", p.host+1, p.pid)
		for _, h := range p.held {
			text += fmt.Sprintf(" has %d %v,", h.ino, h.mode)
		}
		if p.waits != nil {
			text += fmt.Sprintf(" waits for %d %v", p.waits.ino, p.waits.mode)
		}
		text += "\n"
	}
	v := c.hosts[0].View()
	for r := range v.AllReports() {
		text += fmt.Sprintf("report %+v\n", *r)
	}
	for _, x := range v.Suspicions() {
		text += fmt.Sprintf("suspicion %+v\n", *x)
	}
	return text
}

// randomRun lets a crowd live for half a minute, and returns how many deadlocks there were.
func randomRun(t *testing.T, seed uint64, ordered bool) (found int) {
	rng := rand.New(rand.NewPCG(seed, 0))
	hosts(t, 1+int(seed%3), func(m *many) {
		c := &crowd{many: m, ordered: ordered, end: time.Now().Add(20 * time.Second), stuck: map[int]time.Time{}, over: make(chan struct{})}
		c.dir = m.make("/d/")
		c.inos = append(c.inos, c.dir, m.make("/d/a"), m.make("/d/b"), m.make("/d/c"), m.make("/y"), m.make("/r"))
		var work sync.WaitGroup
		for i := range 3 + rng.IntN(7) {
			p := &person{host: i % len(m.hosts), pid: uint32(i + 1), rng: rand.New(rand.NewPCG(seed, uint64(i+1)))}
			c.people = append(c.people, p)
			work.Go(func() { c.live(p) })
		}
		for end := c.end.Add(10 * time.Second); c.goesOn(end); c.look() {
			time.Sleep(20 * time.Millisecond)
		}
		c.mu.Lock()
		for _, p := range c.people {
			if p.waits != nil {
				c.fail("host %d, process %d waits still:\n%s", p.host+1, p.pid, c.describe())
			}
		}
		c.mu.Unlock()
		work.Wait()
		time.Sleep(time.Second)
		if found = c.found; t.Failed() {
			return
		}
		if len(m.hosts[0].View().Suspicions()) > 0 {
			t.Error("suspicions are left")
		}
		for r := range m.hosts[0].View().AllReports() {
			t.Errorf("a report is left: %+v", *r)
		}
	})
	return found
}

// TestRandomDeadlocks runs crowds that get into deadlocks, and crowds that cannot. LOCKFS_DEADLOCK_RUNS is how many of each.
func TestRandomDeadlocks(t *testing.T) {
	runs, first := uint64(12), uint64(1)
	if n, err := strconv.ParseUint(os.Getenv("LOCKFS_DEADLOCK_RUNS"), 10, 64); err == nil {
		runs = n
	}
	if n, err := strconv.ParseUint(os.Getenv("LOCKFS_DEADLOCK_FROM"), 10, 64); err == nil {
		first = n
	}
	found := 0
	for seed := first; seed < first+runs; seed++ {
		for _, ordered := range []bool{false, true} {
			if !t.Run(fmt.Sprintf("%d,ordered=%v", seed, ordered), func(t *testing.T) { found += randomRun(t, seed, ordered) }) {
				return
			}
		}
	}
	t.Logf("%d deadlocks", found)
	if found == 0 {
		t.Error("no deadlock in any run")
	}
}
