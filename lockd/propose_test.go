package lockd_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// appendTo is a commit that shows how often it was applied.
func appendTo(ino uint64, text string) *statepb.Command {
	return &statepb.Command{Op: &statepb.Command_Commit{Commit: &statepb.Commit{
		Ino: ino, Posix: true, Change: &statepb.Commit_Append{Append: []byte(text)},
	}}}
}

func (r *rig) value(ino uint64) string { return string(r.h.View().Node(ino).Value) }

// TestFailedProposalsAreAppliedOnce lets proposals fail in every way while many callers work; each of their commands is
// applied once, and in the order in which one caller gave them.
func TestFailedProposalsAreAppliedOnce(t *testing.T) {
	seed := seedOf(t, 0)
	bubble(t, func(r *rig) {
		const callers, commands = 8, 50
		var inos [callers]uint64
		for i := range inos {
			inos[i] = r.make(fmt.Sprintf("/f%d", i))
		}
		var mu sync.Mutex
		rnd := rand.New(rand.NewPCG(seed, 0))
		fates := map[lockdtest.Fate]int{}
		r.m.SetFate(func([]byte) lockdtest.Fate {
			mu.Lock()
			defer mu.Unlock()
			fate := []lockdtest.Fate{lockdtest.Commit, lockdtest.Commit, lockdtest.Drop, lockdtest.CommitFail}[rnd.IntN(4)]
			fates[fate]++
			return fate
		})
		r.m.SetDelay(time.Millisecond)
		var work sync.WaitGroup
		for i, ino := range inos {
			work.Go(func() {
				for n := range commands {
					if _, err := r.h.Do(nil, appendTo(ino, fmt.Sprintf("%d,", n))); err != nil {
						t.Errorf("caller %d, command %d: %v", i, n, err)
					}
				}
			})
		}
		work.Wait()
		want := ""
		for n := range commands {
			want += fmt.Sprintf("%d,", n)
		}
		for i, ino := range inos {
			if got := r.value(ino); got != want {
				t.Errorf("caller %d: %s", i, got)
			}
		}
		t.Logf("fates %v", fates)
	})
}

// TestBatching: what is asked while a proposal is under way goes in one.
func TestBatching(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		before := r.m.Proposals()
		var work sync.WaitGroup
		gate := make(chan struct{})
		for range 100 {
			work.Go(func() {
				<-gate
				r.h.Do(nil, appendTo(ino, "x"))
			})
		}
		synctest.Wait()
		close(gate)
		work.Wait()
		if got := len(r.value(ino)); got != 100 {
			t.Errorf("%d applied", got)
		}
		t.Logf("%d proposals for 100 commands", r.m.Proposals()-before)
	})
}

// TestNoQuorum: operations end in time; what was never sent is never applied.
func TestNoQuorum(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		warm := r.lock(ino, queue.EX, 1)
		r.m.SetCut(true)
		start := time.Now()
		a := r.asks(1, nil, func(c *lockd.Call, _ *lockd.Lock) error {
			_, err := r.h.Do(c, appendTo(ino, "lost"))
			return err
		}).waits()
		a.ends(lockd.ErrNoQuorum)
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("it took %v", d)
		}
		if err := r.h.Check(warm); err != nil {
			t.Errorf("a lock within the lease: %v", err)
		}
		r.m.SetCut(false)
		if _, err := r.h.Do(nil, appendTo(ino, "kept")); err != nil {
			t.Fatal(err)
		}
		if got := r.value(ino); got != "kept" {
			t.Errorf("value %q", got)
		}
	})
}

// TestNoQuorumTries: a try for a cold lock is EAGAIN within a second, a wait waits.
func TestNoQuorumTries(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.m.SetCut(true)
		start := time.Now()
		r.ask(1, lockd.Request{Ino: ino, Mode: queue.EX, Flags: queue.NoQueue}).ends(lockd.ErrBusy)
		if d := time.Since(start); d > 1100*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		a := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		time.Sleep(time.Minute)
		a.waits()
		r.m.SetCut(false)
		a.ends(nil)
		r.h.Release(a.l)
		r.empty()
	})
}

func TestCodes(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		res, err := r.h.Do(nil, &statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{Parent: state.Root, Name: []byte("a")}}})
		if err != state.Exists || res.Ino != ino {
			t.Errorf("make again: %+v, %v", res, err)
		}
		if _, err := r.h.Commit(nil, nil, &statepb.Commit{Ino: ino, Change: &statepb.Commit_Whole{Whole: []byte("x")}}); err != state.NotHolder {
			t.Errorf("commit without a lock: %v", err)
		}
		if _, err := r.h.Remove(nil, &statepb.Remove{Parent: state.Root, Name: []byte("b")}); err != state.NotFound {
			t.Errorf("remove of nothing: %v", err)
		}
		if _, err := r.h.Barrier(nil); err != nil {
			t.Errorf("barrier: %v", err)
		}
	})
}

func TestCommit(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		l := r.lock(ino, queue.EX, 1)
		commit := func(base uint64, text string) (uint64, error) {
			return r.h.Commit(call(1), l, &statepb.Commit{Ino: ino, BaseGeneration: base, Change: &statepb.Commit_Whole{Whole: []byte(text)}})
		}
		if gen, err := commit(0, "one"); gen != 1 || err != nil {
			t.Errorf("first: %d, %v", gen, err)
		}
		if _, err := commit(0, "stale"); err != state.Stale {
			t.Errorf("of an old generation: %v", err)
		}
		if err := r.h.Invalidate(call(1), l, ino); err != nil || !r.h.View().Node(ino).Invalid {
			t.Errorf("invalidate: %v, %+v", err, r.h.View().Node(ino))
		}
		if gen, err := commit(1, "two"); gen != 2 || err != nil || r.h.View().Node(ino).Invalid {
			t.Errorf("second: %d, %v", gen, err)
		}
		r.log.SetRoom(errors.New("disk full"))
		if _, err := commit(2, "three"); err != lockd.ErrNoSpace {
			t.Errorf("without room: %v", err)
		}
		if _, err := r.h.Do(nil, &statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{Parent: state.Root, Name: []byte("b")}}}); err != lockd.ErrNoSpace {
			t.Errorf("make without room: %v", err)
		}
		r.h.Release(l)
		other := r.make("/a") // exists: looks only
		l = r.lock(other, queue.PR, 1)
		if _, err := r.h.Commit(nil, nil, &statepb.Commit{Ino: ino, Posix: true, Change: &statepb.Commit_Truncate{}}); err != nil {
			t.Errorf("truncate without room: %v", err)
		}
		if _, err := r.h.Remove(nil, &statepb.Remove{Parent: state.Root, Name: []byte("a")}); err != lockd.ErrBusy {
			t.Errorf("remove while held: %v", err)
		}
		r.h.Release(l)
		if _, err := r.h.Remove(nil, &statepb.Remove{Parent: state.Root, Name: []byte("a")}); err != nil {
			t.Errorf("remove without room: %v", err)
		}
	})
}

// TestCommitUnderLostLock: before, while and after the session is lost.
func TestCommitUnderLostLock(t *testing.T) {
	bubble(t, func(r *rig) {
		ino, other := r.make("/a"), r.make("/b")
		l, m := r.lock(ino, queue.EX, 1), r.lock(other, queue.EX, 2)
		commit := func(l *lockd.Lock, ino uint64) error {
			_, err := r.h.Commit(call(1), l, &statepb.Commit{Ino: ino, Change: &statepb.Commit_Whole{Whole: []byte("late")}})
			return err
		}
		// One is under way when the session ends: nothing gets to the log but the end.
		r.m.SetCut(true)
		under := r.asks(1, l, func(*lockd.Call, *lockd.Lock) error { return commit(l, ino) }).waits2()
		r.log.EndSession(r.h.Session())
		synctest.Wait()
		r.m.SetCut(false)
		under.ends(lockd.ErrLost)
		if err := commit(m, other); err != lockd.ErrLost {
			t.Errorf("after the loss: %v", err)
		}
		if err := r.h.Invalidate(nil, m, other); err != nil {
			t.Errorf("invalidate after the loss: %v", err)
		}
		for _, ino := range []uint64{ino, other} {
			if n := r.h.View().Node(ino); len(n.Value) != 0 || !n.Invalid {
				t.Errorf("value %q, invalid %v", n.Value, n.Invalid)
			}
		}
	})
}

// waits2 is waits for what does not park.
func (a *asking) waits2() *asking {
	a.parked = 1
	return a.waits()
}

// TestNamespaceOutlastsSession: what needs no lock is asked again in the next session, once.
func TestNamespaceOutlastsSession(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.m.SetFate(func([]byte) lockdtest.Fate { return lockdtest.Drop })
		a := r.asks(1, nil, func(c *lockd.Call, _ *lockd.Lock) error {
			_, err := r.h.Do(c, appendTo(ino, "x"))
			return err
		}).waits()
		r.log.EndSession(r.h.Session())
		synctest.Wait()
		r.m.SetFate(nil)
		a.ends(nil)
		if got := r.value(ino); got != "x" {
			t.Errorf("value %q", got)
		}
		if r.h.Status().Losses != 1 {
			t.Errorf("status %+v", r.h.Status())
		}
	})
}
