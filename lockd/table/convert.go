package table

import (
	"fmt"

	"github.com/lockfs/lockfs/lockd/queue"
)

// Convert changes the mode of a lock that is held and does not wait. A mode
// that the present one covers is given at once. Else it keeps what it has while it
// waits. The answer is an event.
func (t *Table) Convert(l *Lock, mode queue.Mode, flags queue.Flags, own []*Lock) {
	t.convertible(l)
	switch {
	case t.lowered(l, mode):
		l.Flags = flags
		t.emit(Event{Kind: Granted, Lock: l, Mode: mode, Token: l.Token, Converted: true})
	case t.waits >= t.cfg.MaxWaiters:
		t.emit(Event{Kind: Refused, Lock: l, Reason: NoLocks})
	default:
		t.begin(l, mode, flags, own, true)
	}
	t.run()
}

// TryConvert converts a lock here and now or changes nothing and returns false.
// It emits no event but Blocking.
func (t *Table) TryConvert(l *Lock, mode queue.Mode, flags queue.Flags) bool {
	t.convertible(l)
	if t.lowered(l, mode) {
		l.Flags = flags
		t.run()
		return true
	}
	r, old, intent := l.res, l.Mode.Intent(), mode.Intent()
	climb := intent != queue.None && !old.Covers(intent)
	if t.frozen || climb && !t.tryIntents(l, r, intent) {
		return false
	}
	req := queue.Request[*Lock]{Holder: l, Mode: mode, Flags: queue.NoQueue | flags&(queue.QueCvt|deadlockFlags)}
	out, _, grants := r.q.Convert(req)
	t.follow(r, grants)
	if out != queue.Granted {
		if climb {
			t.undoIntents(r, nil, intent)
		}
		return false
	}
	l.Flags = flags
	t.become(l, mode, climb)
	t.spent(r, mode)
	t.let(r)
	t.blocks(l)
	t.run()
	return true
}

func (t *Table) convertible(l *Lock) {
	if l.res == nil || l.Mode == queue.None || l.at() != nil {
		panic(fmt.Sprintf("table: conversion of inode %d: the lock is not held, or waits", l.Ino))
	}
}

// lowered does a down-conversion and reports whether it was one.
func (t *Table) lowered(l *Lock, mode queue.Mode) bool {
	if !l.Mode.Covers(mode) || mode == queue.None {
		return false
	}
	r := l.res
	t.become(l, mode, false)
	t.follow(r, r.q.Lower(l, mode))
	t.let(r)
	return true
}

// become makes mode what l holds, and replaces its intents by those of mode;
// taken says that these were taken already. The order matters to those of its owner who wait
// and need not mind its intents: what is there is counted before it is
// exempted, and exempted no more before it goes. Else an intent of somebody
// else would pass for their own.
func (t *Table) become(l *Lock, mode queue.Mode, taken bool) {
	old, now := l.Mode.Intent(), mode.Intent()
	if old != now && now != queue.None && !taken {
		for a := l.res.parent; a != nil; a = a.parent {
			a.q.AddShared(now)
		}
	}
	t.holds(l, mode)
	if old == now || old == queue.None {
		return
	}
	for a := l.res.parent; a != nil; a = a.parent {
		t.follow(a, a.q.ReleaseShared(old))
		t.let(a)
	}
}
