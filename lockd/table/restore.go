package table

import (
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// Restored takes a whole state in place of the changes that led to it: this
// host was so far behind that it was sent a snapshot. What the commands under
// way were answered is lost; what they did is in the state. Tree must
// answer by the view already.
func (t *Table) Restored(v *state.View) {
	session, ok := v.Session(t.session)
	if !ok {
		t.Lost()
		t.replant()
		t.run()
		return
	}
	t.answeredUpTo(session.Seq)
	for r := t.first; r != nil; r = r.next {
		r.host = queue.None
		t.unrecall(r)
		r.answered()
		if r.asks == 0 {
			r.asked, r.asker = queue.None, nil
		}
		t.touch(r)
	}
	for h := range v.AllHostLocks() {
		if h.Session == t.session {
			t.restore(h)
		}
	}
	for r := t.first; r != nil; r = r.next {
		for c := range v.Recalls(r.ino, t.session) {
			t.recall(c)
		}
	}
	t.replant()
	t.run()
}

// answeredUpTo drops the commands that were applied.
func (t *Table) answeredUpTo(seq uint64) {
	for len(t.inflight) > 0 && t.inflight[0].cmd.Seq != 0 && t.inflight[0].cmd.Seq <= seq {
		for _, s := range t.inflight[0].steps {
			s.r.lowers--
			if s.ask {
				s.r.asks--
			}
		}
		t.inflight = t.inflight[1:]
	}
}

// replant brings the hierarchy in line with the tree: first what moved, then what is gone, from the leaves up.
func (t *Table) replant() {
	var known, gone []*resource
	for r := t.first; r != nil; r = r.next {
		known = append(known, r)
	}
	for _, r := range known {
		var old uint64
		if r.parent != nil {
			old = r.parent.ino
		}
		up, ok := t.cfg.Tree.Parent(r.ino)
		switch {
		case r.gone:
		case !ok:
			gone = append(gone, r)
		case up == 0 && old != 0:
			t.orphan(r)
		case up != old:
			t.moved(state.Change{Ino: r.ino, Parent: old, NewParent: up})
		}
		r.ephemeral = ok && t.cfg.Tree.Ephemeral(r.ino)
	}
	slices.SortStableFunc(gone, func(a, b *resource) int { return b.depth() - a.depth() })
	for _, r := range gone {
		if !r.gone {
			t.removed(state.Change{Ino: r.ino})
		}
	}
}

func (r *resource) depth() (n int) {
	for p := r.parent; p != nil; p = p.parent {
		n++
	}
	return n
}

func (t *Table) restore(h state.HostLock) {
	r := t.lookup(h.Ino)
	if r == nil {
		return
	}
	r.host = h.Mode
	if h.Raise != r.raise {
		r.raise, r.count, r.grants, r.foreign = h.Raise, 0, 0, true
	}
	if r.asks == 0 && h.Wanted != queue.None {
		r.asked, r.askTry, r.askConv = h.Wanted, h.Try, h.Convert
	}
	t.touch(r)
}
