package queue

import (
	"errors"
	"fmt"
	"slices"
)

// ErrCorrupt is wrapped by the errors of [Restore].
var ErrCorrupt = errors.New("corrupt lock queue")

// Restore makes a queue of what All, Shared and Ceiling told of another: a
// snapshot's. The entries come in the order of All. Input that no queue could
// have told gives an error that wraps ErrCorrupt.
//
// It is for queues whose requests name no own entries (the state's): that two
// incompatible locks are one owner's is nothing that an Entry tells.
func Restore[H comparable](ceiling Mode, shared [2]uint32, entries []Entry[H]) (Queue[H], error) {
	q := New[H](ceiling)
	if int(ceiling) >= modes {
		return Queue[H]{}, fmt.Errorf("%w: ceiling %d", ErrCorrupt, ceiling)
	}
	q.shared = shared
	for k, n := range shared {
		if n > 0 {
			q.count[CR+Mode(k)] = n
			q.present |= (CR + Mode(k)).bit()
		}
	}
	var waiting []Entry[H]
	for i := range entries {
		e := &entries[i]
		if err := e.check(); err != nil {
			return Queue[H]{}, err
		}
		if e.Mode != None {
			if q.position(e.Holder) >= 0 {
				return Queue[H]{}, fmt.Errorf("%w: %v has two locks", ErrCorrupt, e.Holder)
			}
			w := waiter[H]{holder: e.Holder, flags: e.HeldFlags}
			q.grant(&w, e.Mode)
			q.granted[len(q.granted)-1].own = false
		}
		if e.Wanted != None {
			waiting = append(waiting, *e)
		}
	}
	slices.SortFunc(waiting, func(a, b Entry[H]) int { return a.Place - b.Place })
	for i, e := range waiting {
		if e.Place != i+1 || e.Convert && q.conversions() < i {
			return Queue[H]{}, fmt.Errorf("%w: %v waits in place %d", ErrCorrupt, e.Holder, e.Place)
		}
		q.insert(i, waiter[H]{
			holder: e.Holder, mode: e.Wanted, flags: e.Flags, shared: e.Shared, conv: e.Convert,
			exact: e.Exact, own: slices.Clone(e.Own), ownShared: e.OwnShared,
		})
	}
	if err := q.Check(); err != nil {
		return Queue[H]{}, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return q, nil
}

// check reports what no entry of a queue looks like.
func (e *Entry[H]) check() error {
	waits := e.Wanted != None
	switch {
	case e.Mode != None && !e.Mode.Valid(), waits && !e.Wanted.Valid(), e.Mode == None && !waits:
		return fmt.Errorf("%w: %v has mode %d and wants %d", ErrCorrupt, e.Holder, e.Mode, e.Wanted)
	case e.Shared && e.Wanted != CR && e.Wanted != CW:
		return fmt.Errorf("%w: %v wants an intent %v", ErrCorrupt, e.Holder, e.Wanted)
	case (e.Flags|e.HeldFlags)&^allFlags != 0:
		return fmt.Errorf("%w: %v has flags %v", ErrCorrupt, e.Holder, e.Flags)
	case !waits && (e.Convert || e.Exact || e.Shared || e.Place != 0):
		return fmt.Errorf("%w: %v waits for nothing", ErrCorrupt, e.Holder)
	}
	return nil
}
