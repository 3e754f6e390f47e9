package state

import (
	"cmp"

	"github.com/tidwall/btree"

	"github.com/lockfs/lockfs/lockd/queue"
)

// graph finds reports by what the search for deadlocks asks of them. It follows from the reports and is no part of a snapshot.
type graph struct {
	at     *btree.BTreeG[*Report] // waits by where they are held up, by session and order there
	owners *btree.BTreeG[*Report] // all whose process is known, by session and process, what is held first
	heirs  *btree.BTreeG[heir]    // waits by what their processes inherited
}

// heir is a wait of a process that inherited a lock, or that converts it.
type heir struct {
	hold ReportKey
	wait *Report
}

func newGraph() graph {
	options := btree.Options{NoLocks: true, Degree: degree}
	return graph{
		at:     btree.NewBTreeGOptions(func(a, b *Report) bool { return a.compareAt(b) < 0 }, options),
		owners: btree.NewBTreeGOptions(func(a, b *Report) bool { return a.compareOwner(b) < 0 }, options),
		heirs: btree.NewBTreeGOptions(func(a, b heir) bool {
			return cmp.Or(a.hold.compare(b.hold), a.wait.compare(b.wait.ReportKey)) < 0
		}, options),
	}
}

// graphOf returns the graph of what is reported.
func graphOf(v *View) graph {
	g := newGraph()
	for r := range v.AllReports() {
		g.add(r)
	}
	return g
}

func (r *Report) compareAt(x *Report) int {
	return cmp.Or(cmp.Compare(r.At, x.At), cmp.Compare(r.Session, x.Session), -compareBool(r.First, x.First),
		cmp.Compare(r.Rank, x.Rank), cmp.Compare(r.ID, x.ID), cmp.Compare(r.Ino, x.Ino))
}

func (r *Report) compareOwner(x *Report) int {
	return cmp.Or(cmp.Compare(r.Session, x.Session), cmp.Compare(r.Tgid, x.Tgid), compareBool(r.Waits(), x.Waits()),
		cmp.Compare(r.ID, x.ID), cmp.Compare(r.Ino, x.Ino))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (g *graph) add(r *Report) {
	if r.Tgid != 0 {
		g.owners.Set(r)
	}
	if !r.Waits() {
		return
	}
	if r.Kind != ReportRange { // which is in a queue of its own
		g.at.Set(r)
	}
	for _, k := range r.Holds {
		g.heirs.Set(heir{k, r})
	}
}

func (g *graph) remove(r *Report) {
	if r.Tgid != 0 {
		g.owners.Delete(r)
	}
	if !r.Waits() {
		return
	}
	if r.Kind != ReportRange {
		g.at.Delete(r)
	}
	for _, k := range r.Holds {
		g.heirs.Delete(heir{k, r})
	}
}

// waitsOf returns the waits of those who have a lock: of its owner and of the processes that inherited it.
func (g *graph) waitsOf(h *Report) (waits []*Report) {
	waits = g.waitsBy(h.Session, h.Tgid)
	g.heirs.Ascend(heir{hold: h.ReportKey, wait: &Report{}}, func(x heir) bool {
		if x.hold != h.ReportKey {
			return false
		}
		if h.Tgid == 0 || x.wait.Tgid != h.Tgid {
			waits = append(waits, x.wait)
		}
		return true
	})
	return waits
}

// waitsBy returns the waits of a process.
func (g *graph) waitsBy(session uint64, tgid uint32) (waits []*Report) {
	if tgid == 0 {
		return nil
	}
	first := &Report{ReportKey: ReportKey{Session: session}, Kind: ReportWait, Tgid: tgid}
	g.owners.Ascend(first, func(r *Report) bool {
		if r.Session != session || r.Tgid != tgid {
			return false
		}
		waits = append(waits, r)
		return true
	})
	return waits
}

// heldBy calls f with what the process of a wait has, its own and inherited, until f returns false.
func (g *graph) heldBy(v *View, w *Report, f func(*Report) bool) {
	more := true
	if w.Tgid != 0 {
		first := &Report{ReportKey: ReportKey{Session: w.Session}, Kind: ReportHeld, Tgid: w.Tgid}
		g.owners.Ascend(first, func(r *Report) bool {
			if r.Session != w.Session || r.Tgid != w.Tgid || r.Waits() {
				return false
			}
			more = f(r)
			return more
		})
	}
	for _, k := range w.Holds {
		if h := v.Report(k); more && h != nil && !h.Waits() && (h.Tgid != w.Tgid || w.Tgid == 0) {
			more = f(h)
		}
	}
}

// head returns the first wait of a session that is held up somewhere, or nil.
func (g *graph) head(at, session uint64) (head *Report) {
	g.from(at, session, func(r *Report) bool {
		head = r
		return false
	})
	return head
}

// from calls f with the waits of a session that are held up somewhere, in their order, until f returns false.
func (g *graph) from(at, session uint64, f func(*Report) bool) {
	first := &Report{ReportKey: ReportKey{Session: session}, At: at, First: true, Rank: -1 << 63}
	g.at.Ascend(first, func(r *Report) bool { return r.At == at && r.Session == session && f(r) })
}

// ahead calls f with the waits ahead of one in the same queue of its host, the nearest first, until f returns false.
func (g *graph) ahead(w *Report, f func(*Report) bool) {
	g.at.Descend(w, func(r *Report) bool {
		return r == w || r.At == w.At && r.Session == w.Session && f(r)
	})
}

// first says whether nothing in the queue of its host holds a wait up.
func (g *graph) first(w *Report) bool {
	first := true
	g.ahead(w, func(a *Report) bool {
		first = w.Tgid != 0 && a.Tgid == w.Tgid || a.Flags&queue.NoDlckBlk != 0
		return first
	})
	return first
}

// awaited says whether anybody waits at a resource.
func (g *graph) awaited(at uint64) bool {
	found := false
	g.at.Ascend(&Report{At: at, First: true, Rank: -1 << 63}, func(r *Report) bool {
		found = r.At == at
		return false
	})
	return found
}

// followed says whether another wait may be held up by this one: it is behind it, or of another host where this one is the
// first of its own.
func (g *graph) followed(w *Report) bool {
	found := false
	g.at.Ascend(w, func(r *Report) bool {
		if r == w {
			return true
		}
		found = r.At == w.At && r.Session == w.Session
		return false
	})
	if found || g.head(w.At, w.Session) != w {
		return found
	}
	g.at.Ascend(&Report{At: w.At, First: true, Rank: -1 << 63}, func(r *Report) bool {
		found = r.At == w.At && r.Session != w.Session
		return false
	})
	if found {
		return true
	}
	g.at.Descend(&Report{ReportKey: ReportKey{Session: 1<<64 - 1}, At: w.At}, func(r *Report) bool {
		found = r.At == w.At && r.Session != w.Session
		return false
	})
	return found
}
