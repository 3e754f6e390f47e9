package load

import (
	"encoding/binary"
	"fmt"
	"time"
)

// valueSize is the size of W7's value: its number, when it was written, and room.
const valueSize = 64

// changeEvery is the time between two values of W7; newsLimit bounds how long a reader waits for the second one.
const (
	changeEvery = 100 * time.Millisecond
	newsLimit   = 30 * time.Second
)

// prepareReaders is W7. The last worker writes a number that grows, the others read it, see that it never goes back, and
// measure how long after the beginning of its write they first read each.
func prepareReaders(t *turn) (act, error) {
	v, err := t.client.Value(t.Name)
	if err != nil {
		return act{}, err
	}
	if t.Worker < t.Workers-1 {
		return act{run: func(o *outcome) error { return t.readValue(o, v) }, undo: func() {}}, nil
	}
	return act{run: func(o *outcome) error { return t.writeValue(o, v) }, undo: func() { v.Remove() }}, nil
}

func (t *turn) writeValue(o *outcome, v Value) error {
	p := make([]byte, valueSize)
	began := time.Now()
	for n := uint64(1); n <= 2 || time.Since(began) < t.For; n++ {
		now := clock()
		binary.LittleEndian.PutUint64(p, n)
		binary.LittleEndian.PutUint64(p[8:], uint64(now))
		if err := v.Write(p); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		o.Changes++
		time.Sleep(changeEvery - time.Duration(clock()-now))
	}
	o.Elapsed = time.Since(began)
	return nil
}

func (t *turn) readValue(o *outcome, v Value) error {
	p := make([]byte, valueSize)
	began := time.Now()
	seen, last := uint64(0), time.Duration(0)
	for last < t.For || seen < 2 {
		n, err := v.Read(p)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		now := time.Since(began)
		if last < t.For {
			o.add(uint64(now - last))
			o.Elapsed = now
		}
		last = now
		number := uint64(0) // nothing is written yet
		if n == valueSize {
			number = binary.LittleEndian.Uint64(p)
		}
		switch {
		case number < seen:
			return fmt.Errorf("the value went back from number %d to %d", seen, number)
		case number > seen:
			seen = number
			o.Second.add(uint64(max(0, clock()-int64(binary.LittleEndian.Uint64(p[8:])))))
		case last > t.For+newsLimit:
			return fmt.Errorf("the reader has seen number %d of the value and no later one", seen)
		}
	}
	return nil
}
