package load

import (
	"fmt"
	"time"
)

// warmOps and warmFor bound what makes warm what is to be warm before the clock starts.
const (
	warmOps = 200
	warmFor = 50 * time.Millisecond
)

// repeat makes a call for as long as the round lasts and counts how long each took.
func (t *turn) repeat(o *outcome, op func() error) error {
	began := time.Now()
	last := time.Duration(0)
	for last < t.For {
		if err := op(); err != nil {
			return err
		}
		now := time.Since(began)
		o.add(uint64(now - last))
		last = now
	}
	o.Elapsed = last
	return nil
}

// warm makes a call some times.
func warm(op func() error) error {
	for i, began := 0, time.Now(); i < warmOps && time.Since(began) < warmFor; i++ {
		if err := op(); err != nil {
			return err
		}
	}
	return nil
}

// preparePairs is W1 and W2: each client has a lock of its own.
func preparePairs(t *turn) (act, error) {
	lock, err := t.client.Lock(t.own(t.Worker))
	if err != nil {
		return act{}, err
	}
	pair := func() error {
		if err := lock.Acquire(); err != nil {
			return err
		}
		return lock.Release()
	}
	held := false
	a := act{
		run:   func(o *outcome) error { return t.repeat(o, pair) },
		grip:  func() error { held = true; return lock.Acquire() },
		check: func() error { return t.refused(t.own(t.neighbour())) },
		undo: func() {
			if held {
				lock.Release()
			}
			lock.Remove()
		},
	}
	if err := warm(pair); err != nil {
		a.undo()
		return act{}, err
	}
	return a, nil
}

// one names the i-th lock of a worker that uses many. Each worker has a directory of its own, since a kernel makes the files
// of one directory one after the other.
func (t *turn) one(worker, i int) string { return fmt.Sprintf("%s/%d", t.own(worker), i) }

// settle makes the worker's directory before the clock starts.
func (t *turn) settle() error {
	_, err := t.client.Fresh(t.one(t.Worker, 0))
	return err
}

// prepareFresh is W6: every acquire is of a name that nobody used.
func prepareFresh(t *turn) (act, error) {
	var locks []Lock
	held := false
	next := func() (Lock, error) {
		l, err := t.client.Fresh(t.one(t.Worker, len(locks)))
		if err == nil {
			locks = append(locks, l)
			err = l.Acquire()
		}
		return l, err
	}
	return act{
		run: func(o *outcome) error {
			return t.repeat(o, func() error {
				l, err := next()
				if err != nil {
					return err
				}
				return l.Release()
			})
		},
		grip: func() error { // the first lock once more
			held = true
			return locks[0].Acquire()
		},
		check: func() error { return t.refused(t.one(t.neighbour(), 0)) },
		undo: func() {
			if held {
				locks[0].Release()
			}
			for _, l := range locks {
				l.Remove()
			}
		},
	}, t.settle()
}

// sampled is how many of a neighbour's held locks a client of W4 tries to have.
const sampled = 4

// prepareHeld is W4: the clients take locks and keep them.
func prepareHeld(t *turn) (act, error) {
	var locks []Lock
	return act{
		run: func(o *outcome) error {
			began := time.Now()
			last := time.Duration(0)
			for i := range t.Locks {
				l, err := t.client.Fresh(t.one(t.Worker, i))
				if err != nil {
					return err
				}
				if err := l.Acquire(); err != nil {
					return fmt.Errorf("lock %d: %w", i+1, err)
				}
				locks = append(locks, l)
				now := time.Since(began)
				o.add(uint64(now - last))
				last = now
			}
			o.Elapsed = last
			return nil
		},
		check: func() error {
			for i := 0; i < t.Locks; i += max(1, t.Locks/sampled) {
				if err := t.refused(t.one(t.neighbour(), i)); err != nil {
					return err
				}
			}
			return nil
		},
		undo: func() {
			for _, l := range locks {
				l.Release()
			}
			for _, l := range locks {
				l.Remove()
			}
		},
	}, t.settle()
}
