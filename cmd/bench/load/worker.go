package load

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// round is what a worker is to do next.
type round struct {
	Workload string        `json:"workload"`
	Name     string        `json:"name"`     // begins the names of the round's locks
	Address  string        `json:"address"`  // of the service, for this worker
	Beside   string        `json:"beside"`   // of the service, for the next worker: another host's where there are several
	Worker   int           `json:"worker"`   // from 0
	Workers  int           `json:"workers"`  // how many there are
	For      time.Duration `json:"for"`      // how long to run
	Locks    int           `json:"locks"`    // W4: of this worker
	Arena    string        `json:"arena"`    // the file to map
	Unlocked bool          `json:"unlocked"` // the service is not expected to exclude: the calls are measured, not the locks
}

// outcome is what a worker did.
type outcome struct {
	Error     string        `json:"error,omitempty"`
	Elapsed   time.Duration `json:"elapsed,omitempty"`
	histogram               // of what the workload counts: pairs, waits, reads
	Second    histogram     `json:"second"`             // W3, W8: from release to grant; W7: from write to first read
	Changes   int           `json:"changes,omitempty"`  // W7: of the value
	Until     time.Duration `json:"until,omitempty"`    // W5: from the outage to the first new lock
	Gap       time.Duration `json:"gap,omitempty"`      // W5: longest time without a grant of the warm lock
	Failures  int           `json:"failures,omitempty"` // W5: calls that gave an error and were made again
}

// act is a workload that is prepared for one worker: its steps, which all workers take together. A nil step is nothing.
type act struct {
	run   func(o *outcome) error
	grip  func() error // hold what check looks at
	check func() error // what another worker holds must not be had
	undo  func()
}

// turn is what an act works with.
type turn struct {
	round
	client Client
	dial   Dial
	arena  *arena
}

// Work is the life of a worker: it does one round after another until its input ends. between is called after each.
func Work(in io.Reader, out io.Writer, dial Dial, between func()) error {
	w := worker{bufio.NewReader(in), json.NewEncoder(out)}
	for {
		var r round
		if err := w.read(&r); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := w.play(r, dial); err != nil {
			if err := w.answers.Encode(outcome{Error: err.Error()}); err != nil {
				return err
			}
		}
		between()
	}
}

type worker struct {
	lines   *bufio.Reader
	answers *json.Encoder
}

func (w worker) read(v any) error {
	line, err := w.lines.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// play does one round. An error is answered in place of the step that gave it, and ends the round.
func (w worker) play(r round, dial Dial) error {
	load, ok := find(r.Workload)
	if !ok {
		return fmt.Errorf("no such workload: %s", r.Workload)
	}
	t := &turn{round: r, dial: dial}
	var err error
	var unmap func()
	if t.arena, unmap, err = mapArena(r.Arena); err != nil {
		return err
	}
	defer unmap()
	if t.client, err = dial(r.Address); err != nil {
		return err
	}
	defer t.client.Close()
	a, err := load.prepare(t)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Workload, err)
	}
	undo := sync.OnceFunc(a.undo)
	defer undo()
	var o outcome
	if a.check == nil || r.Unlocked {
		a.grip, a.check = nil, nil
	}
	for _, step := range []func() error{
		func() error { return a.run(&o) },
		a.grip,
		a.check,
	} {
		if err := w.answers.Encode(outcome{}); err != nil {
			return err
		}
		if _, err := w.lines.ReadBytes('\n'); err != nil {
			return err
		}
		if step == nil {
			continue
		}
		if err := step(); err != nil {
			return fmt.Errorf("%s: client %d: %w", r.Workload, r.Worker, err)
		}
	}
	o.pack()
	o.Second.pack()
	if err := w.answers.Encode(o); err != nil {
		return err
	}
	if _, err := w.lines.ReadBytes('\n'); err != nil {
		return err
	}
	undo()
	return w.answers.Encode(outcome{})
}

var errGranted = errors.New("the lock does not exclude: granted while another client holds it")
