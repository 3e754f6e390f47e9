package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

// round is what a worker is to do next.
type round struct {
	Workload string        `json:"workload"`
	Dir      string        `json:"dir"`
	Worker   int           `json:"worker"`
	For      time.Duration `json:"for"`
	Held     int           `json:"held,omitempty"` // instead of a workload: hold so many locks until told to go on
}

// outcome is what it did.
type outcome struct {
	Error   string        `json:"error,omitempty"`
	Held    int           `json:"held,omitempty"`
	Elapsed time.Duration `json:"elapsed,omitempty"`
	histogram
}

// work is the life of a worker process: it does one round after another until its standard input ends.
func work(in io.Reader, out io.Writer) error {
	lines, answers := bufio.NewReader(in), json.NewEncoder(out)
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var r round
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		act := r.run
		if r.Held > 0 {
			act = r.hold
		}
		// Preparing, going and clearing up are steps that all workers take together.
		o := act(func(o outcome) bool {
			if answers.Encode(o) != nil {
				return false
			}
			_, err := lines.ReadBytes('\n')
			return err == nil
		})
		if err := answers.Encode(o); err != nil {
			return err
		}
		runtime.GC()
	}
}

// run does one workload for the time given.
func (r round) run(step func(outcome) bool) (o outcome) {
	w, ok := find(r.Workload)
	if !ok {
		return outcome{Error: "no such workload: " + r.Workload}
	}
	op, undo, err := w.prepare(r.Dir, r.Worker)
	if err != nil {
		return outcome{Error: err.Error()}
	}
	defer undo()
	if r.Workload != "cold" {
		for i := range 200 { // warm what is to be warm
			if errno := op(i); errno != 0 {
				return outcome{Error: fmt.Sprintf("%s in %s: %v", r.Workload, r.Dir, errno)}
			}
		}
	}
	if !step(outcome{}) {
		return o
	}
	began := time.Now()
	last := time.Duration(0)
	for i := 0; last < r.For; i++ {
		if errno := op(i); errno != 0 {
			return outcome{Error: fmt.Sprintf("%s in %s: %v", r.Workload, r.Dir, errno)}
		}
		now := time.Since(began)
		o.add(uint64(now - last))
		last = now
	}
	o.Elapsed = last
	o.pack()
	if !step(o) {
		return o
	}
	return outcome{}
}

// hold opens as many locks as it is asked to, or as it can, and keeps them until the next step.
func (r round) hold(step func(outcome) bool) (o outcome) {
	began := time.Now()
	var fds []int
	defer func() {
		for i, fd := range fds {
			unix.Close(fd)
			unix.Unlink(heldName(r, i))
		}
	}()
	for i := range r.Held {
		fd, err := unix.Open(heldName(r, i), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
		if err != nil {
			o.Error = fmt.Sprintf("open lock %d: %v", i+1, err)
			break
		}
		fds = append(fds, fd)
	}
	o.Held, o.Elapsed = len(fds), time.Since(began)
	step(o)
	return outcome{}
}

func heldName(r round, i int) string { return fmt.Sprintf("%s/held%d.%d", r.Dir, r.Worker, i) }

// crew is a number of worker processes.
type crew struct {
	workers []*worker
}

type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// hire starts n workers, this program again.
func hire(n int) (*crew, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &crew{}
	for range n {
		cmd := exec.Command(self, "bench", "--worker")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			c.dismiss()
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			c.dismiss()
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			c.dismiss()
			return nil, err
		}
		c.workers = append(c.workers, &worker{cmd, in, json.NewDecoder(out)})
	}
	return c, nil
}

// dismiss ends the workers.
func (c *crew) dismiss() {
	for _, w := range c.workers {
		w.in.Close()
	}
	for _, w := range c.workers {
		w.cmd.Wait()
	}
}

// each sends a line to the first n workers and gathers their answers, so that all of them take a step together.
func (c *crew) each(n int, line func(i int) any) ([]outcome, error) {
	for i, w := range c.workers[:n] {
		if err := json.NewEncoder(w.in).Encode(line(i)); err != nil {
			return nil, err
		}
	}
	outcomes := make([]outcome, n)
	for i, w := range c.workers[:n] {
		if err := w.out.Decode(&outcomes[i]); err != nil {
			return nil, fmt.Errorf("worker %d: %w", i, err)
		}
	}
	for _, o := range outcomes {
		if o.Error != "" {
			return outcomes, fmt.Errorf("%s", o.Error)
		}
	}
	return outcomes, nil
}

// measure lets the first n workers do one round together.
func (c *crew) measure(n int, r round) (total outcome, err error) {
	if _, err := c.each(n, func(i int) any { r.Worker = i; return r }); err != nil {
		return total, err
	}
	results, err := c.each(n, func(int) any { return "go" })
	if err != nil {
		return total, err
	}
	for i := range results {
		results[i].unpack()
		total.merge(&results[i].histogram)
		total.Elapsed = max(total.Elapsed, results[i].Elapsed)
	}
	_, err = c.each(n, func(int) any { return "clear up" })
	return total, err
}
