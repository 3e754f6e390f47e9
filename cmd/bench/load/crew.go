package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// stepLimit bounds a step of the workers beyond the time that the round lasts; a step that takes longer is taken for a
// lock that is never granted.
const stepLimit = 3 * time.Minute

// Crew is a number of workers, hired for one measurement after another until one fails.
type Crew struct {
	workers []*hand
	seq     int
	who     string
}

// hand is one worker as its parent sees it.
type hand struct {
	in      io.WriteCloser
	out     *json.Decoder
	quit    func() // makes it end, whatever it waits for
	dismiss func() // waits until it has ended
}

// Processes hires n processes of this program, started with these arguments; see Work.
func Processes(n int, args ...string) (*Crew, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &Crew{who: fmt.Sprint(os.Getpid())}
	for range n {
		cmd := exec.Command(self, args...)
		cmd.Stderr = os.Stderr
		// The runtime's signals to its own threads would interrupt an open that waits, and withdraw its request.
		cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2); err != nil {
			c.Dismiss()
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			c.Dismiss()
			return nil, err
		}
		c.workers = append(c.workers, &hand{in, json.NewDecoder(out), func() { cmd.Process.Kill() }, func() { cmd.Wait() }})
	}
	return c, nil
}

// Goroutines hires n goroutines, whose clients dial makes.
func Goroutines(n int, dial Dial) *Crew {
	c := &Crew{who: fmt.Sprint(os.Getpid())}
	for range n {
		r, in := io.Pipe()
		out, w := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.CloseWithError(Work(r, w, dial, func() {}))
		}()
		quit := func() { r.CloseWithError(io.ErrClosedPipe); out.CloseWithError(io.ErrClosedPipe) }
		c.workers = append(c.workers, &hand{in, json.NewDecoder(out), quit, func() { out.Close(); waitFor(done) }})
	}
	return c
}

// quitLimit bounds how long Dismiss waits for a worker: a goroutine cannot be killed.
const quitLimit = 10 * time.Second

func waitFor(done <-chan struct{}) {
	select {
	case <-done:
	case <-time.After(quitLimit):
	}
}

// Dismiss ends the workers.
func (c *Crew) Dismiss() {
	for _, w := range c.workers {
		w.in.Close()
	}
	for _, w := range c.workers {
		late := time.AfterFunc(quitLimit, w.quit)
		w.dismiss()
		late.Stop()
	}
}

// Job is one measurement.
type Job struct {
	Workload  string
	Clients   int
	Addresses []string      // of the hosts; clients are dealt out to them in turns
	For       time.Duration // how long it lasts
	Locks     int           // W4: held at once, over all clients; as many more as it takes to be the same for each
	Unlocked  bool          // the service is not expected to exclude
	Outage    func() error  // W5: takes the leader down
	Held      func() error  // W4: called while the locks are held; may be nil
}

// Workers is how many workers a job takes: W7 has one that writes.
func (j Job) Workers() int {
	if strings.EqualFold(j.Workload, "W7") {
		return j.Clients + 1
	}
	return j.Clients
}

// each is how many locks a client of W4 holds.
func (j Job) each() int { return (j.Locks + j.Clients - 1) / j.Clients }

// Measure does one measurement. After an error the crew is of no more use.
func (c *Crew) Measure(j Job) (Figures, error) {
	n := j.Workers()
	if n > len(c.workers) || n < 1 || len(j.Addresses) == 0 {
		return Figures{}, fmt.Errorf("%d clients for %d workers, %d addresses", n, len(c.workers), len(j.Addresses))
	}
	workers := c.workers[:n]
	shared, path, drop, err := makeArena()
	if err != nil {
		return Figures{}, err
	}
	defer drop()
	c.seq++
	name := fmt.Sprintf("%s-%s-%d-", strings.ToLower(j.Workload), c.who, c.seq)
	limit := j.For + stepLimit
	if _, err := take(workers, limit, func(i int) any { return j.round(i, n, name, path) }); err != nil {
		return Figures{}, err
	}
	os.Remove(path) // all have it mapped: nothing is left if this process is killed
	outage := make(chan error, 1)
	if j.Outage != nil {
		stop := time.AfterFunc(j.For, func() { outage <- takeDown(shared, j.Outage) })
		defer stop.Stop()
	} else {
		outage <- nil
	}
	// ran, gripped, checked
	if _, err := take(workers, limit, goOn); err != nil {
		return Figures{}, err
	}
	if err := <-outage; err != nil {
		return Figures{}, err
	}
	if j.Held != nil {
		if err := j.Held(); err != nil {
			return Figures{}, err
		}
	}
	if _, err := take(workers, limit, goOn); err != nil {
		return Figures{}, err
	}
	outcomes, err := take(workers, limit, goOn)
	if err != nil {
		return Figures{}, err
	}
	f, err := figuresOf(j, outcomes, shared)
	if err != nil {
		return Figures{}, fmt.Errorf("%s: %w", j.Workload, err)
	}
	_, err = take(workers, limit, goOn)
	return f, err
}

func goOn(int) any { return "go on" }

// takeDown takes the leader down and tells the workers when.
func takeDown(a *arena, outage func() error) error {
	a.outage[0].Store(clock())
	if err := outage(); err != nil {
		return fmt.Errorf("take the leader down: %w", err)
	}
	a.outage[1].Store(clock())
	return nil
}

// round is what worker i of n is to do.
func (j Job) round(i, n int, name, path string) round {
	host := func(i int) string {
		if strings.EqualFold(j.Workload, "W5") {
			i /= 2 // both of its kinds of client on each host
		}
		return j.Addresses[i%len(j.Addresses)]
	}
	return round{Workload: j.Workload, Name: name, Address: host(i), Beside: host(i + 1), Worker: i, Workers: n, For: j.For,
		Locks: j.each(), Arena: path, Unlocked: j.Unlocked}
}

// take sends each worker a line and gathers their answers, so that all of them take a step together.
func take(workers []*hand, limit time.Duration, line func(i int) any) ([]outcome, error) {
	late := time.AfterFunc(limit, func() {
		for _, w := range workers {
			w.quit()
		}
	})
	defer func() { late.Stop() }()
	sent := make(chan error, 1)
	go func() { // while answers are read: the end of the last one, a line's end, may not have been taken from its pipe yet
		for i, w := range workers {
			if err := json.NewEncoder(w.in).Encode(line(i)); err != nil {
				sent <- fmt.Errorf("client %d: %w", i, err)
				return
			}
		}
		sent <- nil
	}()
	outcomes := make([]outcome, len(workers))
	for i, w := range workers {
		if err := w.out.Decode(&outcomes[i]); err != nil {
			if !late.Stop() {
				return nil, fmt.Errorf("client %d has not answered within %v: a lock that is never granted?", i, limit)
			}
			return nil, fmt.Errorf("client %d: %w", i, err)
		}
	}
	if err := <-sent; err != nil {
		return nil, err
	}
	for _, o := range outcomes {
		if o.Error != "" {
			return nil, errors.New(o.Error)
		}
	}
	return outcomes, nil
}
