package load

import "time"

// prepareContended is W3 and W8: all clients want the same lock, which they release as soon as they have it. What is
// counted is how long each waited, and, where the lock went to another client, how long from the beginning of the release.
func prepareContended(t *turn) (act, error) {
	lock, err := t.client.Lock(t.Name)
	if err != nil {
		return act{}, err
	}
	turn := func(o *outcome) error {
		asked := clock()
		if err := lock.Acquire(); err != nil {
			return err
		}
		granted := clock()
		since, handOff, err := t.arena.enter(t.Worker, granted)
		if err != nil {
			return err
		}
		o.add(uint64(granted - asked))
		if handOff {
			o.Second.add(uint64(max(0, since)))
		}
		if err := t.arena.leave(t.Worker, clock()); err != nil {
			return err
		}
		return lock.Release()
	}
	held := false
	return act{
		run: func(o *outcome) error {
			for began := time.Now(); o.Elapsed < t.For; o.Elapsed = time.Since(began) {
				if err := turn(o); err != nil {
					return err
				}
			}
			return nil
		},
		grip: func() error {
			if t.Worker > 0 {
				return nil
			}
			held = true
			return lock.Acquire()
		},
		check: func() error {
			if t.Worker == 0 {
				return nil
			}
			return t.refused(t.Name)
		},
		undo: func() {
			if held {
				lock.Release()
			}
			if t.Worker == 0 {
				lock.Remove()
			}
		},
	}, nil
}
