package table

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestNaive drives one host whose state grants everything, at its leisure, and
// compares what is granted with the rules written down naively: pairs of locks
// on the tree, without queues, intents' counts or ceilings.
func TestNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &naive{t: t, tree: small{1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4}}
		m.tab = New(Config{Tree: m.tree, CohortN: -1, MaxLocks: 12})
		m.tab.Session(7, 0)
		t.Repeat(map[string]func(*rapid.T){
			"open": m.open, "convert": m.convert, "release": m.release, "cancel": m.cancel,
			"answer": m.answer, "pin": m.pin, "": m.check,
		})
		m.drain()
	})
}

type naive struct {
	t      *rapid.T
	tree   small
	tab    *Table
	seq    uint64
	queued []*statepb.Command
	locks  []*Lock // in the table
	order  []*Lock // that wait, by time of the request
	pinned uint64
}

var someModes = rapid.SampledFrom([]queue.Mode{queue.NL, queue.CR, queue.CW, queue.PR, queue.PW, queue.EX})

func (m *naive) pick(t *rapid.T, what string, ok func(*Lock) bool) *Lock {
	var some []*Lock
	for _, l := range m.locks {
		if ok(l) {
			some = append(some, l)
		}
	}
	if len(some) == 0 {
		t.Skip("none to " + what)
	}
	return rapid.SampledFrom(some).Draw(t, what)
}

// own are the rivals with the same PID: the owner.
func own(l *Lock, rivals []*Lock) []*Lock {
	return slices.DeleteFunc(rivals, func(r *Lock) bool { return r.PID != l.PID })
}

func (m *naive) open(t *rapid.T) {
	l := &Lock{Ino: rapid.Uint64Range(1, 6).Draw(t, "ino"), PID: rapid.Uint32Range(1, 4).Draw(t, "owner")}
	mode := someModes.Draw(t, "mode")
	if m.tab.Try(l, mode, 0) {
		m.locks = append(m.locks, l)
	} else {
		flags := rapid.SampledFrom([]queue.Flags{0, 0, 0, queue.NoQueue, queue.AltPR}).Draw(t, "flags")
		m.locks = append(m.locks, l)
		m.order = append(m.order, l)
		m.tab.Request(l, mode, flags, own(l, m.tab.Rivals(l, mode)))
	}
	m.take()
}

func (m *naive) convert(t *rapid.T) {
	// A process of which another thread waits may convert past it, and that one is not looked at again.
	waits := func(l *Lock) bool {
		return slices.ContainsFunc(m.locks, func(o *Lock) bool { return o.PID == l.PID && o.Waits() })
	}
	l := m.pick(t, "convert", func(l *Lock) bool { return l.Held() && !waits(l) })
	mode := someModes.Draw(t, "mode")
	if !m.tab.TryConvert(l, mode, 0) {
		m.order = append(m.order, l)
		m.tab.Convert(l, mode, 0, own(l, m.tab.Rivals(l, mode)))
	}
	m.take()
}

func (m *naive) gone(l *Lock) {
	is := func(x *Lock) bool { return x == l }
	m.locks = slices.DeleteFunc(m.locks, is)
	m.order = slices.DeleteFunc(m.order, is)
}

func (m *naive) release(t *rapid.T) {
	l := m.pick(t, "release", func(l *Lock) bool { return true })
	m.gone(l)
	m.tab.Release(l)
	m.take()
}

func (m *naive) cancel(t *rapid.T) {
	l := m.pick(t, "cancel", (*Lock).Waits)
	m.order = slices.DeleteFunc(m.order, func(x *Lock) bool { return x == l })
	if !m.tab.Cancel(l) {
		m.gone(l)
	}
	m.take()
}

func (m *naive) pin(t *rapid.T) {
	if m.pinned != 0 {
		m.tab.Unpin(m.pinned)
		m.pinned = 0
	} else if ino := rapid.Uint64Range(2, 6).Draw(t, "pin"); m.tab.Pin(ino) {
		m.pinned = ino
	}
	m.take()
}

// take takes the output: refusals and grants of what is in order.
func (m *naive) take() {
	for m.tab.Pending() {
		out := m.tab.Take()
		for _, cmd := range out.Proposals {
			m.seq++
			cmd.Session, cmd.Seq = 7, m.seq
		}
		m.queued = append(m.queued, out.Proposals...)
		for _, e := range out.Events {
			m.event(e)
		}
	}
}

func (m *naive) event(e Event) {
	i := slices.Index(m.order, e.Lock)
	switch e.Kind {
	case Granted, Refused:
		if i < 0 {
			m.t.Fatalf("%+v of %s, which asked for nothing", e, describe(e.Lock))
		}
		m.order = slices.Delete(m.order, i, i+1)
		if e.Kind == Refused && !e.Lock.Held() {
			m.gone(e.Lock)
		}
	case Waiting:
		if i >= 0 && e.Lock.Waits() {
			m.tab.SetOwn(e.Lock, own(e.Lock, m.tab.Rivals(e.Lock, e.Lock.Wanted)))
		}
	}
}

// answer applies the first commands that were proposed.
func (m *naive) answer(t *rapid.T) {
	if len(m.queued) == 0 {
		t.Skip("nothing is proposed")
	}
	n := rapid.IntRange(1, len(m.queued)).Draw(t, "n")
	for _, cmd := range m.queued[:n] {
		m.apply(cmd)
	}
	m.queued = m.queued[n:]
	m.take()
}

func (m *naive) apply(cmd *statepb.Command) {
	switch op := cmd.Op.(type) {
	case *statepb.Command_Acquire:
		for _, s := range op.Acquire.Steps {
			m.tab.Applied(state.Change{Kind: state.HostGranted, Session: 7, Ino: s.Ino, Mode: queue.Mode(s.Want), Raise: cmd.Seq})
		}
	case *statepb.Command_Release:
		m.tab.Applied(state.Change{Kind: state.HostLowered, Session: 7, Ino: op.Release.Ino, Mode: queue.Mode(op.Release.Keep)})
	}
	m.tab.Applied(state.Change{Kind: state.Done, Session: 7, Seq: cmd.Seq})
}

// at returns what a mode of a lock means at a node: itself, an intent above, None elsewhere.
func (m *naive) at(l *Lock, mode queue.Mode, node uint64) queue.Mode {
	if node == l.Ino {
		return mode
	}
	for up := m.tree[l.Ino]; up != 0; up = m.tree[up] {
		if up == node {
			return mode.Intent()
		}
	}
	return queue.None
}

// excludes reports whether b, being held, keeps a from holding mode.
func (m *naive) excludes(a *Lock, mode queue.Mode, b *Lock) bool {
	if a == b {
		return false
	}
	for node := range m.tree {
		if a.PID == b.PID && !(node == a.Ino && node == b.Ino) {
			continue
		}
		if !queue.Compatible(m.at(a, mode, node), m.at(b, b.Mode, node)) {
			return true
		}
	}
	return false
}

// check: nobody has what excludes another; and if nothing is under way, the first who waits is
// excluded by somebody who has something, or stands on the path of one who waits.
func (m *naive) check(t *rapid.T) {
	if err := m.tab.Check(); err != nil {
		t.Fatal(err)
	}
	for i, a := range m.locks {
		for _, b := range m.locks[i+1:] {
			if a.Held() && m.excludes(a, a.Mode, b) {
				t.Fatalf("inode %d in %v and inode %d in %v are both granted", a.Ino, a.Mode, b.Ino, b.Mode)
			}
		}
	}
	if len(m.queued) > 0 || m.pinned != 0 {
		return
	}
	for _, l := range m.order {
		if !m.mayWait(l) {
			t.Fatalf("%s waits for nothing", describe(l))
		}
	}
}

// mayWait reports whether somebody who has something is in l's way, or in the
// way of one who waits at the same place.
func (m *naive) mayWait(l *Lock) bool {
	return slices.ContainsFunc(m.locks, func(o *Lock) bool {
		return m.excluded(l, o) || o != l && o.Waits() && o.At() == l.At() &&
			slices.ContainsFunc(m.locks, func(p *Lock) bool { return m.excluded(o, p) })
	})
}

// excluded reports whether o is in l's way: by what it has, or by the intents it
// has while it waits, unless l counts as a conversion.
func (m *naive) excluded(l, o *Lock) bool {
	return m.excludes(l, l.Wanted, o) || o.Waits() && (m.present(o, l.At()) || !l.Converts() && !m.present(l, l.At())) && m.passed(l, o)
}

// passed reports whether an intent of o, which waits further down, is in l's way.
func (m *naive) passed(l, o *Lock) bool {
	for node := m.tree[o.At()]; node != 0; node = m.tree[node] {
		if !queue.Compatible(m.at(o, o.Wanted, node), m.at(l, l.Wanted, node)) {
			return true
		}
	}
	return false
}

// present reports whether l's owner has something at a node: then its request there counts as a conversion, and does
// not wait for the intents of those who wait, but for other conversions'.
func (m *naive) present(l *Lock, node uint64) bool {
	return slices.ContainsFunc(m.locks, func(o *Lock) bool {
		return o.PID == l.PID && m.at(o, o.Mode, node) >= queue.CR && (o == l || o.Ino != node || l.Ino != node)
	})
}

func describe(l *Lock) string {
	return fmt.Sprintf("inode %d, owner %d, %v to %v at %d", l.Ino, l.PID, l.Mode, l.Wanted, l.At())
}

// drain: when all that is held is let go, nobody is left.
func (m *naive) drain() {
	if m.pinned != 0 {
		m.tab.Unpin(m.pinned)
	}
	for range 200 {
		m.take()
		for _, cmd := range m.queued {
			m.apply(cmd)
		}
		m.queued = nil
		m.take()
		for _, l := range slices.Clone(m.locks) {
			if l.Held() {
				m.gone(l)
				m.tab.Release(l)
				m.take()
			}
		}
		if len(m.locks) == 0 && !m.tab.Pending() {
			break
		}
	}
	m.take()
	if m.tab.Len() > 0 || len(m.locks) > 0 {
		m.t.Fatalf("%d are left: %s", m.tab.Len(), describe(m.locks[0]))
	}
	if err := m.tab.Check(); err != nil {
		m.t.Fatal(err)
	}
}
