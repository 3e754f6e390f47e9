package load

import (
	"fmt"
	"time"
)

// outageLimit bounds how long W5 waits for a new lock, retryAfter how long a client waits before the next new lock, or after a
// call that failed.
const (
	outageLimit = 45 * time.Second
	retryAfter  = 2 * time.Millisecond
)

// prepareOutage is W5. Even clients take and release a lock of their own over and over; odd ones take locks that nobody
// used, one after the other. The parent takes the leader down after For; a client goes on for as long again after the
// first new lock was granted whose request began later. Calls that fail meanwhile are made again.
func prepareOutage(t *turn) (act, error) {
	if t.Worker%2 == 1 {
		return prepareNewcomer(t), t.settle()
	}
	lock, err := t.client.Lock(t.own(t.Worker))
	if err != nil {
		return act{}, err
	}
	held := false
	pair := func() (err error) { // a release that failed is made again first
		if !held {
			if err := lock.Acquire(); err != nil {
				return err
			}
		}
		err = lock.Release()
		held = err != nil
		return err
	}
	if err := warm(pair); err != nil {
		return act{}, err
	}
	return act{
		run: func(o *outcome) error {
			began := clock()
			last := began
			for {
				err := pair()
				now := clock()
				o.Gap = max(o.Gap, time.Duration(now-last))
				if err == nil {
					o.add(uint64(now - last))
					last = now
				} else {
					o.Failures++
					time.Sleep(retryAfter)
				}
				if done, late := t.over(now); late {
					return fmt.Errorf("no grant of a warm lock within %v of the outage: %w", outageLimit, err)
				} else if done && err == nil {
					o.Elapsed = time.Duration(now - began)
					return nil
				}
			}
		},
		undo: func() { lock.Remove() },
	}, nil
}

// over says whether a worker of W5 is done: the time is up after the first new lock; or it is far too late.
func (t *turn) over(now int64) (done, late bool) {
	down, granted := t.arena.outage[1].Load(), t.arena.renewed.Load()
	return granted != 0 && now > granted+int64(t.For), down != 0 && now > down+int64(t.For+outageLimit)
}

// prepareNewcomer is W5's client that asks for locks that nobody used.
func prepareNewcomer(t *turn) act {
	var locks []Lock
	fresh := func() error {
		l, err := t.client.Fresh(t.one(t.Worker, len(locks)))
		if err != nil {
			return err
		}
		locks = append(locks, l)
		if err := l.Acquire(); err != nil {
			return err
		}
		return l.Release()
	}
	return act{
		run: func(o *outcome) error {
			began := clock()
			for {
				asked := clock()
				err := fresh()
				now := clock()
				if err != nil {
					o.Failures++
				} else {
					o.add(uint64(now - asked))
					if down := t.arena.outage[1].Load(); down != 0 && asked > down && o.Until == 0 {
						o.Until = time.Duration(now - t.arena.outage[0].Load())
						t.arena.renewed.CompareAndSwap(0, now)
					}
				}
				time.Sleep(retryAfter)
				if done, late := t.over(now); late {
					return fmt.Errorf("no new lock within %v of the outage: %w", outageLimit, err)
				} else if done && o.Until != 0 {
					o.Elapsed = time.Duration(now - began)
					return nil
				}
			}
		},
		undo: func() {
			for _, l := range locks {
				l.Remove()
			}
		},
	}
}
