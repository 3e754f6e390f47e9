package lockd_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// hosts adds hosts until there are n, and returns all of them with their members.
func (r *rig) hosts(n int) (hosts []*lockd.Host, members []*lockdtest.Member) {
	r.Helper()
	hosts, members = []*lockd.Host{r.h}, []*lockdtest.Member{r.m}
	for i := 2; i <= n; i++ {
		h, m := r.start(lockd.Config{Name: fmt.Sprintf("host%d", i)})
		hosts, members = append(hosts, h), append(members, m)
	}
	return hosts, members
}

// TestStormBelow: three hosts take and drop CW below a directory without pause, several processes on each. A fourth that
// asks for EX on the directory is granted it, and so is each of the three afterwards.
func TestStormBelow(t *testing.T) {
	bubble(t, func(r *rig) {
		hosts, members := r.hosts(4)
		for _, m := range members {
			m.SetDelay(300 * time.Microsecond)
		}
		dir := r.make("/d/")
		var stop atomic.Bool
		var rounds [3]atomic.Int64
		ended := make(chan struct{})
		storms := 0
		for i, h := range hosts[:3] {
			for k := range 4 {
				ino := r.make(fmt.Sprintf("/d/%d", (i+k)%3))
				storms++
				go func() {
					defer func() { ended <- struct{}{} }()
					for pid := uint32(10*i + k + 1); !stop.Load(); rounds[i].Add(1) {
						var l lockd.Lock
						if err := h.Lock(call(pid), &l, lockd.Request{Ino: ino, Mode: queue.CW}); err != nil {
							t.Errorf("host%d: %v", i+1, err)
							return
						}
						time.Sleep(time.Duration(100+50*k) * time.Microsecond)
						h.Release(&l)
					}
				}()
			}
		}
		time.Sleep(time.Second)
		for range 5 {
			l, start := new(lockd.Lock), time.Now()
			if err := hosts[3].Lock(call(100), l, lockd.Request{Ino: dir, Mode: queue.EX, Wait: 20 * time.Second}); err != nil {
				t.Fatalf("EX on the directory: %v after %v", err, time.Since(start))
			}
			t.Logf("granted after %v", time.Since(start))
			for x := range r.log.View().HostLocks(dir) {
				if x.Mode != queue.None && x.Session != hosts[3].Session() {
					t.Errorf("under EX: %+v", x)
				}
			}
			hosts[3].Release(l)
			var before [3]int64
			for i := range rounds {
				before[i] = rounds[i].Load()
			}
			time.Sleep(500 * time.Millisecond)
			for i := range rounds {
				if rounds[i].Load() == before[i] {
					t.Errorf("host%d got nothing for long after it", i+1)
				}
			}
		}
		stop.Store(true)
		for range storms {
			<-ended
		}
	})
}

// TestFIFOBetweenHosts: hosts are granted in the order in which they asked.
func TestFIFOBetweenHosts(t *testing.T) {
	bubble(t, func(r *rig) {
		hosts, _ := r.hosts(5)
		ino := r.make("/a")
		held := r.lock(ino, queue.EX, 1)
		modes := []queue.Mode{queue.EX, queue.PR, queue.PW, queue.CW}
		var asked []*asking
		for i, h := range hosts[1:] {
			asked = append(asked, r.askOn(h, uint32(i+2), lockd.Request{Ino: ino, Mode: modes[i]}).waits())
		}
		r.h.Release(held)
		for i, a := range asked {
			a.ends(nil)
			for _, later := range asked[i+1:] {
				later.waits()
			}
			hosts[i+1].Release(a.l)
		}
	})
}

// TestCohort: a host whose own processes queue up without end passes the lock on after some of them.
func TestCohort(t *testing.T) {
	const cohort = 5
	bubbleWith(t, lockd.Config{Limits: lockd.Limits{CohortN: cohort, CohortTime: time.Hour}}, func(r *rig) {
		hosts, _ := r.hosts(2)
		ino := r.make("/a")
		held := r.lock(ino, queue.EX, 1)
		var local []*asking
		for i := range 20 {
			local = append(local, r.ask(uint32(i+10), lockd.Request{Ino: ino, Mode: queue.EX}).waits())
		}
		other := r.askOn(hosts[1], 2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		r.h.Release(held)
		granted := func() (n int) {
			synctest.Wait()
			for _, a := range local {
				if a.l.Mode() != queue.None {
					r.h.Release(a.l)
					n++
				}
			}
			return n
		}
		total := 0
		for n := granted(); n > 0; n = granted() {
			total += n
		}
		other.ends(nil)
		if total > cohort+1 {
			t.Errorf("%d of the holder's host went first", total)
		}
		hosts[1].Release(other.l)
		for total < len(local) {
			n := granted()
			if n == 0 {
				t.Fatalf("%d of %d were granted in the end", total, len(local))
			}
			total += n
		}
	})
}

// TestFreshNamesAtOnce: of several hosts that make a name at once one makes it and has EX; the others learn which node it
// is, and wait for it.
func TestFreshNamesAtOnce(t *testing.T) {
	bubble(t, func(r *rig) {
		hosts, members := r.hosts(3)
		for i := range 100 {
			for k, m := range members {
				m.SetDelay(time.Duration((i+k)%3) * time.Millisecond)
			}
			name := fmt.Sprint("n", i)
			type outcome struct {
				res lockd.Result
				err error
			}
			outcomes := make(chan outcome, len(hosts))
			for _, h := range hosts {
				go func() {
					res, err := h.Do(nil, &statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{
						Parent: state.Root, Name: []byte(name), Perm: 0o644, Lock: true,
					}}})
					if n := h.View().Lookup(state.Root, name); n == nil || n.Ino != res.Ino {
						t.Errorf("%s: the answer came before the name", name)
					}
					outcomes <- outcome{res, err}
				}()
			}
			made, ino := 0, uint64(0)
			for range hosts {
				o := <-outcomes
				switch o.err {
				case nil:
					made++
				case state.Exists:
				default:
					t.Fatalf("%s: %v", name, o.err)
				}
				if ino != 0 && ino != o.res.Ino {
					t.Errorf("%s is node %d and node %d", name, ino, o.res.Ino)
				}
				ino = o.res.Ino
			}
			if made != 1 {
				t.Errorf("%s was made %d times", name, made)
			}
			for k, h := range hosts {
				a := r.askOn(h, uint32(k+1), lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
				h.Release(a.l)
			}
		}
	})
}

// TestWithoutQuorum: what needs the log waits, or ends as asked; what is cached goes on until jeopardy.
func TestWithoutQuorum(t *testing.T) {
	bubble(t, func(r *rig) {
		warm, cold := r.make("/warm"), r.make("/cold")
		r.h.Release(r.lock(warm, queue.EX, 1))
		hosts, _ := r.hosts(2)
		hosts[1].Release(r.askOn(hosts[1], 1, lockd.Request{Ino: cold, Mode: queue.EX}).ends(nil).l)
		r.m.SetCut(true)
		r.m.SetDeaf(true)
		r.h.Release(r.lock(warm, queue.EX, 1))
		waits := r.ask(2, lockd.Request{Ino: cold, Mode: queue.EX}).waits()
		timed := func(want error, most time.Duration, f func() error) {
			t.Helper()
			start := time.Now()
			if err := f(); err != want || time.Since(start) > most {
				t.Errorf("%v after %v, want %v", err, time.Since(start), want)
			}
		}
		timed(lockd.ErrBusy, 1100*time.Millisecond, func() error {
			return r.h.Lock(call(3), new(lockd.Lock), lockd.Request{Ino: cold, Mode: queue.PR, Flags: queue.NoQueue})
		})
		timed(lockd.ErrTimeout, 2*time.Second, func() error {
			return r.h.Lock(call(3), new(lockd.Lock), lockd.Request{Ino: cold, Mode: queue.PR, Wait: 2 * time.Second})
		})
		timed(lockd.ErrNoQuorum, 5*time.Second, func() error {
			_, err := r.h.Do(nil, appendTo(cold, "x"))
			return err
		})
		time.Sleep(10 * time.Second) // the session is lost here, and none can be opened
		timed(lockd.ErrBusy, 1100*time.Millisecond, func() error {
			return r.h.Lock(call(3), new(lockd.Lock), lockd.Request{Ino: warm, Mode: queue.PR, Flags: queue.NoQueue})
		})
		timed(lockd.ErrTimeout, 2*time.Second, func() error {
			return r.h.Lock(call(3), new(lockd.Lock), lockd.Request{Ino: warm, Mode: queue.PR, Wait: 2 * time.Second})
		})
		waits.waits()
		r.m.SetCut(false)
		r.m.SetDeaf(false)
		waits.ends(nil)
		r.h.Release(waits.l)
		r.h.Release(r.lock(warm, queue.EX, 1))
		r.empty()
	})
}

// TestCutOffCaches: a host that is cut off caches locks below a directory. Names there are busy, within their bound, until
// its session ends; new ones are made at once.
func TestCutOffCaches(t *testing.T) {
	bubble(t, func(r *rig) {
		r.log.Lead()
		hosts, members := r.hosts(2)
		dir, file, sub := r.make("/d/"), r.make("/d/f"), r.make("/d/sub/")
		target := r.make("/d/target")
		for _, ino := range []uint64{file, sub, target} {
			hosts[1].Release(r.askOn(hosts[1], 2, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil).l)
		}
		members[1].SetCut(true)
		members[1].SetDeaf(true)
		remove := func(name string, dirs bool) error {
			_, err := r.h.Remove(nil, &statepb.Remove{Parent: dir, Name: []byte(name), Dir: dirs})
			return err
		}
		rename := func(from, to string) error {
			_, err := r.h.Rename(nil, &statepb.Rename{Parent: dir, Name: []byte(from), NewParent: dir, NewName: []byte(to)})
			return err
		}
		timed := func(what string, want error, least, most time.Duration, f func() error) {
			t.Helper()
			start := time.Now()
			if err := f(); err != want || time.Since(start) < least || time.Since(start) > most {
				t.Errorf("%s: %v after %v, want %v", what, err, time.Since(start), want)
			}
		}
		const bound, soon = 1100 * time.Millisecond, 100 * time.Millisecond
		timed("rm", lockd.ErrBusy, 900*time.Millisecond, bound, func() error { return remove("f", false) })
		timed("rmdir", lockd.ErrBusy, 900*time.Millisecond, bound, func() error { return remove("sub", true) })
		timed("mv", lockd.ErrBusy, 900*time.Millisecond, bound, func() error { return rename("f", "g") })
		other := r.make("/d/other")
		timed("mv over", lockd.ErrBusy, 900*time.Millisecond, bound, func() error { return rename("other", "target") })
		timed("mkdir, touch, rm", nil, 0, soon, func() error {
			r.make("/d/new/x")
			return remove("other", false)
		})
		_ = other
		time.Sleep(11 * time.Second)
		timed("rm", nil, 0, soon, func() error { return remove("f", false) })
		timed("mv over", nil, 0, soon, func() error { return rename("new", "sub") })
		if hosts[1].Fresh() == nil {
			t.Error("the host that is cut off still has a lease")
		}
	})
}

// TestLostBeforeGranted: whatever cuts a host off, what it has is lost before another host is granted it.
func TestLostBeforeGranted(t *testing.T) {
	for name, cut := range map[string]func(m *lockdtest.Member){
		"cut off":               func(m *lockdtest.Member) { m.SetCut(true); m.SetDeaf(true) },
		"hears nothing":         func(m *lockdtest.Member) { m.SetDeaf(true) },
		"is not heard":          func(m *lockdtest.Member) { m.SetCut(true) },
		"hears everything late": func(m *lockdtest.Member) { m.SetDelay(3 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				r.log.Lead()
				hosts, members := r.hosts(2)
				for n := range 10 {
					ino := r.make(fmt.Sprintf("/a%d", n))
					rec := &recorder{}
					l := &lockd.Lock{Listener: rec}
					if err := r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(n) * 97 * time.Millisecond)
					cut(members[0])
					begin := time.Now()
					other := &lockd.Lock{}
					if err := hosts[1].Lock(call(2), other, lockd.Request{Ino: ino, Mode: queue.EX}); err != nil {
						t.Fatal(err)
					}
					if r.h.Check(l) == nil {
						t.Fatalf("after %v both have it", time.Since(begin))
					}
					if d := time.Since(begin); d > 30*time.Second {
						t.Errorf("it took %v", d)
					}
					hosts[1].Release(other)
					members[0].SetCut(false)
					members[0].SetDeaf(false)
					members[0].SetDelay(0)
					r.h.Release(l)
					again := r.ask(1, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil) // it is back by itself
					r.h.Release(again.l)
				}
			})
		})
	}
}

// TestLockDelayBetweenHosts: a resource whose holder's session ended is withheld for its lockdelay, but not after a leave.
func TestLockDelayBetweenHosts(t *testing.T) {
	bubble(t, func(r *rig) {
		r.log.Lead()
		hosts, members := r.hosts(3)
		ino := r.make("/a")
		if _, err := r.h.Do(nil, &statepb.Command{Op: &statepb.Command_SetXattr{SetXattr: &statepb.SetXattr{
			Ino: ino, Name: []byte(state.XattrLockDelay), Value: []byte("20"),
		}}}); err != nil {
			t.Fatal(err)
		}
		held := r.askOn(hosts[1], 2, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
		waiting := r.ask(1, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		members[1].SetCut(true)
		members[1].SetDeaf(true)
		for hosts[1].Check(held.l) == nil {
			time.Sleep(10 * time.Millisecond)
		}
		lost := time.Now()
		time.Sleep(20 * time.Second)
		waiting.waits()
		waiting.ends(nil)
		if d := time.Since(lost); d > 25*time.Second {
			t.Errorf("granted %v after the loss", d)
		}
		r.h.Release(waiting.l)
		r.askOn(hosts[2], 3, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
		waiting = r.ask(1, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		left := time.Now()
		hosts[2].Close()
		waiting.ends(nil)
		if d := time.Since(left); d > time.Second {
			t.Errorf("granted %v after the leave", d)
		}
		r.h.Release(waiting.l)
	})
}
