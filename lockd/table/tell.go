package table

import (
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
)

// This file holds the blocking ASTs: who is told that it holds somebody up.

// tell tells those who hold l up at r.
func (t *Table) tell(l *Lock, r *resource) {
	mode := l.needs(r)
	for b := range r.q.Blockers(l) {
		switch {
		case b.Shared:
			for o := range t.under(r) {
				if n := o.intentAt(r); n[intentIndex(b.Mode)] > 0 && !slices.Contains(l.own(), o) {
					t.emit(Event{Kind: Blocking, Lock: o, Mode: mode, By: l, Ino: r.ino})
				}
			}
		case !b.Ceiling && !b.Waiting:
			t.emit(Event{Kind: Blocking, Lock: b.Holder, Mode: mode, By: l, Ino: r.ino})
		}
	}
}

// tellElsewhere tells those who hold up a request of another host.
func (t *Table) tellElsewhere(r *resource, wanted queue.Mode, by Asker) {
	for e := range r.q.All() {
		if e.Mode != queue.None && !queue.Compatible(e.Mode, wanted) {
			t.emit(Event{Kind: Blocking, Lock: e.Holder, Mode: wanted, Asker: by, Ino: r.ino})
		}
	}
	for i := range 2 {
		m := queue.CR + queue.Mode(i)
		if r.q.Shared(m) == 0 || queue.Compatible(m, wanted) {
			continue
		}
		for o := range t.under(r) {
			if o.intentAt(r)[i] > 0 {
				t.emit(Event{Kind: Blocking, Lock: o, Mode: wanted, Asker: by, Ino: r.ino})
			}
		}
	}
}

// blocks tells a lock that was just granted whom it holds up: the first who waits.
func (t *Table) blocks(l *Lock) {
	if w := l.res; w.wanted != queue.None && !queue.Compatible(l.Mode, w.wanted) {
		t.emit(Event{Kind: Blocking, Lock: l, Mode: w.wanted, Asker: w.told.by, Ino: w.ino})
	}
	if l.res.q.Waiters() > 0 {
		if blocked := l.res.q.Blocked(l); len(blocked) > 0 {
			t.emit(Event{Kind: Blocking, Lock: l, Mode: blocked[0].needs(l.res), By: blocked[0], Ino: l.res.ino})
		}
	}
	intent := l.Mode.Intent()
	if intent == queue.None {
		return
	}
	for a := l.res.parent; a != nil; a = a.parent {
		if a.wanted != queue.None && !queue.Compatible(intent, a.wanted) {
			t.emit(Event{Kind: Blocking, Lock: l, Mode: a.wanted, Asker: a.told.by, Ino: a.ino})
		}
		if a.q.Waiters() == 0 {
			continue
		}
		if blocked := a.q.BlockedShared(intent); len(blocked) > 0 {
			t.emit(Event{Kind: Blocking, Lock: l, Mode: blocked[0].needs(a), By: blocked[0], Ino: a.ino})
		}
	}
}

// Blocks returns the join of the modes that others wait for because of l, here
// or on other hosts, and None if nobody does.
func (t *Table) Blocks(l *Lock) (wanted queue.Mode) {
	if l.res == nil || l.Mode == queue.None {
		return queue.None
	}
	see := func(r *resource, m queue.Mode, waiting []*Lock) {
		if r.wanted != queue.None && !queue.Compatible(m, r.wanted) {
			wanted = queue.Join(wanted, r.wanted)
		}
		for _, w := range waiting {
			wanted = queue.Join(wanted, w.needs(r))
		}
	}
	see(l.res, l.Mode, l.res.q.Blocked(l))
	if intent := l.Mode.Intent(); intent != queue.None {
		for a := l.res.parent; a != nil; a = a.parent {
			see(a, intent, a.q.BlockedShared(intent))
		}
	}
	return wanted
}
