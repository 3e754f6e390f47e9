package lockd_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestRestored: the state comes as a snapshot in place of entries.
func TestRestored(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		l := r.lock(ino, queue.EX, 1)
		session := r.h.Session()
		r.m.SetDeaf(true)
		under := r.asks(1, nil, func(c *lockd.Call, _ *lockd.Lock) error {
			_, err := r.h.Do(c, appendTo(ino, "x"))
			return err
		}).waits()
		r.m.Restore()
		under.ends(lockd.ErrNoQuorum) // it was applied, but what was answered is not known
		if got := r.value(ino); got != "x" {
			t.Errorf("value %q", got)
		}
		if r.h.Session() != session || r.h.Check(l) != nil {
			t.Errorf("session %d after %d, %v", r.h.Session(), session, r.h.Check(l))
		}
		if _, err := r.h.Do(nil, appendTo(ino, "y")); err != nil || r.value(ino) != "xy" {
			t.Errorf("the next: %v, %q", err, r.value(ino))
		}
		r.m.SetDeaf(true)
		r.log.EndSession(session)
		synctest.Wait()
		r.m.Restore()
		synctest.Wait()
		if l.Err() != lockd.ErrLost {
			t.Errorf("the session is not in the snapshot: %v", l.Err())
		}
		if _, err := r.h.Do(nil, appendTo(ino, "z")); err != nil || r.value(ino) != "xyz" {
			t.Errorf("in the end: %v, %q", err, r.value(ino))
		}
	})
}

// gap has a host miss what f does, and get a snapshot instead.
func (r *rig) gap(f func()) {
	r.Helper()
	r.m.SetDeaf(true)
	f()
	synctest.Wait()
	r.m.Restore()
	synctest.Wait()
}

// TestRestoredTree: what happened to the tree in a gap is told all at once.
func TestRestoredTree(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		dir, moved, value, gone := r.make("/d/"), r.make("/d/moved"), r.make("/value"), r.make("/old/gone")
		all := r.h.Subscribe(lockd.Filter{})
		defer all.Close()
		below := r.h.Subscribe(lockd.Filter{Ino: dir})
		defer below.Close()
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		if err := r.h.Lock(call(1), l, lockd.Request{Ino: value, Mode: queue.CR}); err != nil {
			t.Fatal(err)
		}
		old := r.h.View().Lookup(state.Root, "old").Ino
		lines(all)
		do := func(op *statepb.Command) {
			t.Helper()
			if _, err := host2.Do(nil, op); err != nil {
				t.Fatal(err)
			}
		}
		r.gap(func() {
			do(&statepb.Command{Op: &statepb.Command_Rename{Rename: &statepb.Rename{Parent: dir, Name: []byte("moved"), NewParent: state.Root, NewName: []byte("to")}}})
			do(&statepb.Command{Op: &statepb.Command_Remove{Remove: &statepb.Remove{Parent: old, Name: []byte("gone")}}})
			do(&statepb.Command{Op: &statepb.Command_Remove{Remove: &statepb.Remove{Parent: state.Root, Name: []byte("old"), Dir: true}}})
			do(&statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{Parent: dir, Name: []byte("new")}}})
			do(appendTo(value, "x"))
			do(appendTo(value, "y"))
			host2.Close()
			r.start(lockd.Config{Name: "host3"})
		})
		expect(t, lines(all), "overflow", "host-left by=host2", "host-joined by=host3",
			"removed path=/old dir=1", "removed path=/old/gone", "renamed path=/d/moved to=/to",
			"value path=/value generation=2", "created path=/d/new")
		expect(t, lines(below), "overflow", "renamed path=/d/moved to=/to", "created path=/d/new")
		if got := rec.kinds(); got != "value" {
			t.Errorf("the lock's listener is told %q", got)
		}
		if v := r.h.View(); v.Node(gone) != nil || v.Node(moved).Name != "to" {
			t.Error("the view is not the snapshot's")
		}
		r.h.Release(l)
	})
}

// TestRestoredGrant: what was granted in a gap is granted, with the value and a larger token.
func TestRestoredGrant(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/a")
		held := r.askOn(host2, 2, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
		token := held.l.Token()
		a := r.ask(1, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		r.gap(func() { host2.Release(held.l) })
		a.ends(nil)
		if a.l.Token() <= token {
			t.Errorf("token %d after %d", a.l.Token(), token)
		}
		again := r.askOn(host2, 2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		r.h.Release(a.l)
		again.ends(nil)
		host2.Release(again.l)
		r.empty()
	})
}

// TestRestoredRecall: what was recalled in a gap is given up, or its holder told.
func TestRestoredRecall(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		idle, used := r.make("/idle"), r.make("/used")
		r.h.Release(r.lock(idle, queue.EX, 1))
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		if err := r.h.Lock(call(1), l, lockd.Request{Ino: used, Mode: queue.EX}); err != nil {
			t.Fatal(err)
		}
		var first, second *asking
		r.gap(func() {
			first = r.askOn(host2, 2, lockd.Request{Ino: idle, Mode: queue.EX}).waits()
			second = r.askOn(host2, 3, lockd.Request{Ino: used, Mode: queue.PR}).waits()
		})
		first.ends(nil)
		second.waits()
		if got := rec.kinds(); got != "blocking:PR" {
			t.Errorf("the holder is told %q", got)
		}
		r.h.Release(l)
		second.ends(nil)
	})
}

// TestRestoredTry: the refusal of a try is not seen; it ends all the same.
func TestRestoredTry(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/a")
		held := r.askOn(host2, 2, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
		var try *asking
		start := time.Now()
		r.gap(func() {
			try = r.ask(1, lockd.Request{Ino: ino, Mode: queue.EX, Flags: queue.NoQueue})
			time.Sleep(500 * time.Millisecond)
		})
		try.ends(lockd.ErrBusy)
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("it took %v", d)
		}
		host2.Release(held.l)
		r.ask(1, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
	})
}

// TestRestoredRanges: a range that was granted in a gap is, one that waits goes on waiting.
func TestRestoredRanges(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/a")
		at := func(start uint64) lockd.Range {
			return lockd.Range{Owner: 1, Write: true, Start: start, End: start, PID: 1}
		}
		for start := range uint64(3) {
			if _, err := host2.LockRange(nil, ino, at(start), false); err != nil {
				t.Fatal(err)
			}
		}
		granted, waits := r.lockRange(ino, at(0), true).waits(), r.lockRange(ino, at(1), true).waits()
		var under, free *asking
		r.gap(func() {
			host2.UnlockRange(nil, ino, at(0))
			under, free = r.lockRange(ino, at(2), true), r.lockRange(ino, at(3), true)
		})
		granted.ends(nil)
		free.ends(nil)
		waits.waits()
		under.waits()
		host2.DropRanges(ino, 1)
		waits.ends(nil)
		under.ends(nil)
		var have []uint64
		for x := range r.h.View().Ranges(ino) {
			have = append(have, x.Start, x.End)
		}
		if !slices.Equal(have, []uint64{0, 3}) {
			t.Errorf("locked %v", have)
		}
	})
}

// TestRestoredSession: the host's next session was opened in a gap.
func TestRestoredSession(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		first := r.h.Session()
		r.gap(func() {
			r.log.EndSession(first)
			synctest.Wait()
		})
		second := r.h.Session()
		if second == first || second == 0 {
			t.Fatalf("session %d after %d", second, first)
		}
		r.m.SetCut(true)
		time.Sleep(11 * time.Second)
		if s := r.h.Session(); s != 0 {
			t.Fatalf("session %d of a host that is cut off", s)
		}
		r.gap(func() {
			r.m.SetCut(false)
			time.Sleep(time.Second) // the opening gets through, its answer does not
		})
		third := r.h.Session()
		if _, lives := r.log.View().Session(third); third == 0 || third == second || !lives {
			t.Fatalf("session %d after %d, in the state: %v", third, second, lives)
		}
		n := 0
		for range r.log.View().Sessions() {
			n++
		}
		if n != 1 {
			t.Errorf("%d sessions", n)
		}
		r.h.Release(r.lock(ino, queue.EX, 1))
	})
}
