package lockd_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
	"github.com/lockfs/lockfs/lockd/queue"
)

// many is a rig with several hosts, each with processes of its own, whose threads only wait where it can be seen.
type many struct {
	*rig
	hosts   []*lockd.Host
	members []*lockdtest.Member
	procs   []*processes
}

// hosts runs a test with so many hosts in fake time.
func hosts(t *testing.T, n int, f func(m *many)) {
	t.Helper()
	bubble(t, func(r *rig) {
		m := &many{rig: r, hosts: []*lockd.Host{r.h}, members: []*lockdtest.Member{r.m}, procs: []*processes{r.procs}}
		r.procs.strict = true
		for i := 1; i < n; i++ {
			p := newProcesses()
			p.strict = true
			h, member := r.start(lockd.Config{Name: fmt.Sprintf("host%d", i+1), Processes: p})
			m.hosts, m.members, m.procs = append(m.hosts, h), append(m.members, member), append(m.procs, p)
		}
		f(m)
		if err := r.log.View().Check(); err != nil {
			t.Error(err)
		}
	})
}

// has lets a process of a host have a lock.
func (m *many) has(host int, pid uint32, ino uint64, mode queue.Mode) *lockd.Lock {
	m.Helper()
	l := &lockd.Lock{Listener: &recorder{}}
	if err := m.hosts[host].Lock(call(pid), l, lockd.Request{Ino: ino, Mode: mode}); err != nil {
		m.Fatalf("host %d, process %d: %v", host+1, pid, err)
	}
	return l
}

// wants lets a process of a host ask for a lock.
func (m *many) wants(host int, pid uint32, req lockd.Request) *asking {
	time.Sleep(time.Millisecond) // no two waits are of one age
	l := &lockd.Lock{Listener: &recorder{}}
	return m.asks(pid, l, func(c *lockd.Call, l *lockd.Lock) error { return m.hosts[host].Lock(c, l, req) })
}

// converts lets a process of a host convert a lock.
func (m *many) converts(host int, pid uint32, l *lockd.Lock, mode queue.Mode) *asking {
	time.Sleep(time.Millisecond)
	return m.asks(pid, l, func(c *lockd.Call, l *lockd.Lock) error { return m.hosts[host].Convert(c, l, mode, 0, 0) })
}

// locksRange lets a process of a host ask for a byte range.
func (m *many) locksRange(host int, pid uint32, ino uint64) *asking {
	time.Sleep(time.Millisecond)
	return m.asks(pid, nil, func(c *lockd.Call, _ *lockd.Lock) error {
		_, err := m.hosts[host].LockRange(c, ino, lockd.Range{Owner: uint64(pid), Write: true, Start: 0, End: 9, PID: pid}, true)
		return err
	})
}

// oneVictim waits until one of several requests is refused for a deadlock, at most for a second, and returns the others.
func (m *many) oneVictim(all ...*asking) (victim *asking, others []*asking) {
	m.Helper()
	for range 40 {
		time.Sleep(25 * time.Millisecond)
		for i, a := range all {
			select {
			case <-a.done:
				if !errors.Is(a.err, lockd.ErrDeadlock) {
					m.Fatalf("process %d: %v", a.c.PID, a.err)
				}
				return a, slices.Delete(slices.Clone(all), i, i+1)
			default:
			}
		}
	}
	m.Fatal("no deadlock was found within a second")
	return nil, nil
}

// stands fails the test if one of several requests is answered in the next minute.
func (m *many) stands(all ...*asking) {
	m.Helper()
	time.Sleep(time.Minute)
	for _, a := range all {
		a.waits()
	}
}

// verdicts returns how many there were, as all hosts must have it.
func (m *many) verdicts() int {
	m.Helper()
	synctest.Wait()
	n := len(m.hosts[0].View().Cycles())
	for _, h := range m.hosts[1:] {
		if k := len(h.View().Cycles()); k != n {
			m.Errorf("%d deadlocks on %s, %d on %s", n, m.hosts[0].Name(), k, h.Name())
		}
	}
	return n
}

// TestTwoHostsDeadlock is `flock a; flock b` against `flock b; flock a`.
func TestTwoHostsDeadlock(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a, b := m.make("/a"), m.make("/b")
		first, second := m.has(0, 1, a, queue.EX), m.has(1, 2, b, queue.EX)
		x := m.wants(0, 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		m.stands(x)
		y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		victim, others := m.oneVictim(x, y)
		if victim != y {
			t.Error("the older wait was ended")
		}
		for _, l := range []*lockd.Lock{first, second, x.l, y.l} {
			list := l.Listener.(*recorder).take()
			i := slices.IndexFunc(list, func(n lockd.Notice) bool { return n.Kind == lockd.NoticeDeadlock })
			if i < 0 || list[i].By.Host != "host2" || list[i].By.PID != 2 || list[i].Wanted != queue.EX || (list[i].Reason == "victim") != (l == y.l) {
				t.Errorf("told %+v", list)
			}
		}
		if n := m.verdicts(); n != 1 {
			t.Errorf("%d deadlocks", n)
		}
		for _, p := range m.hosts[0].View().Cycles()[0].Parties {
			if p.Wait.Comm == "" || p.Key.Comm == "" || p.Wait.Tgid == p.Key.Tgid || p.Host == p.ByHost {
				t.Errorf("party %+v", p)
			}
		}
		m.stands(others...)
		m.hosts[1].Release(second)
		x.ends(nil)
		if n := m.hosts[0].Status().Deadlocks + m.hosts[1].Status().Deadlocks; n != 1 {
			t.Errorf("%d verdicts", n)
		}
	})
}

// TestThreadDeadlock: a thread that is not the first of its process, and so began later, has taken a lock.
func TestThreadDeadlock(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a, b := m.make("/a"), m.make("/b")
		m.procs[0].set(func(p *processes) { p.of[7] = 1 })
		m.has(0, 7, a, queue.EX)
		m.has(1, 2, b, queue.EX)
		x := m.wants(0, 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		if victim, _ := m.oneVictim(x, y); victim != y {
			t.Error("the older wait was ended")
		}
	})
}

// TestOneHostDeadlock: two resources, one host.
func TestOneHostDeadlock(t *testing.T) {
	hosts(t, 1, func(m *many) {
		a, b := m.make("/a"), m.make("/b")
		first := m.has(0, 1, a, queue.EX)
		m.has(0, 2, b, queue.EX)
		x := m.wants(0, 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		y := m.wants(0, 2, lockd.Request{Ino: a, Mode: queue.PR}).waits()
		if victim, _ := m.oneVictim(x, y); victim != y {
			t.Error("the older wait was ended")
		}
		y = m.wants(0, 2, lockd.Request{Ino: a, Mode: queue.PR}).waits()
		m.oneVictim(y)
		y = m.wants(0, 2, lockd.Request{Ino: a, Mode: queue.CW, Flags: queue.NoDlckWt}).waits()
		m.stands(x, y)
		close(x.cancel)
		x.ends(lockd.ErrInterrupted)
		m.hosts[0].Release(first)
		y.ends(nil)
		if n := m.verdicts(); n != 2 {
			t.Errorf("%d deadlocks", n)
		}
	})
}

// TestRingDeadlock: three hosts in a ring, and the other two go on one after the other.
func TestRingDeadlock(t *testing.T) {
	hosts(t, 3, func(m *many) {
		var inos []uint64
		var held []*lockd.Lock
		for i := range m.hosts {
			inos = append(inos, m.make(fmt.Sprintf("/d/%d", i)))
			held = append(held, m.has(i, uint32(i+1), inos[i], queue.PW))
		}
		var all []*asking
		for i := range m.hosts {
			all = append(all, m.wants(i, uint32(i+1), lockd.Request{Ino: inos[(i+1)%3], Mode: queue.PW}).waits())
		}
		victim, others := m.oneVictim(all...)
		if victim != all[2] {
			t.Error("not the youngest was ended")
		}
		m.stands(others...)
		m.hosts[2].Release(held[2])
		all[1].ends(nil)
		all[0].waits()
		m.hosts[1].Release(all[1].l)
		m.hosts[1].Release(held[1])
		all[0].ends(nil)
		if n := m.verdicts(); n != 1 {
			t.Errorf("%d deadlocks", n)
		}
	})
}

// TestConversionDeadlockAcross: two hosts hold PR and both ask for EX.
func TestConversionDeadlockAcross(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a := m.make("/a")
		first, second := m.has(0, 1, a, queue.PR), m.has(1, 2, a, queue.PR)
		x := m.converts(0, 1, first, queue.EX).waits()
		y := m.converts(1, 2, second, queue.EX).waits()
		if victim, _ := m.oneVictim(x, y); victim != y {
			t.Error("the older wait was ended")
		}
		m.mode(second, queue.PR)
		x.waits()
		m.hosts[1].Release(second)
		x.ends(nil)
	})
}

// TestDirectoryDeadlock: EX on a directory against a lock below it.
func TestDirectoryDeadlock(t *testing.T) {
	hosts(t, 2, func(m *many) {
		dir, x, y := m.make("/d/"), m.make("/d/x"), m.make("/y")
		below := m.has(0, 1, x, queue.PW)
		m.has(1, 2, y, queue.EX)
		a := m.wants(1, 2, lockd.Request{Ino: dir, Mode: queue.EX}).waits()
		b := m.wants(0, 1, lockd.Request{Ino: y, Mode: queue.EX}).waits()
		if victim, _ := m.oneVictim(a, b); victim != b {
			t.Error("the older wait was ended")
		}
		m.hosts[0].Release(below)
		a.ends(nil)
	})
}

// TestBelowDirectoryDeadlock: the one below waits at the directory.
func TestBelowDirectoryDeadlock(t *testing.T) {
	hosts(t, 2, func(m *many) {
		dir, x, y := m.make("/d/"), m.make("/d/x"), m.make("/y")
		above := m.has(0, 1, dir, queue.EX)
		m.has(1, 2, y, queue.EX)
		a := m.wants(1, 2, lockd.Request{Ino: x, Mode: queue.PR}).waits()
		b := m.wants(0, 1, lockd.Request{Ino: y, Mode: queue.EX}).waits()
		if victim, _ := m.oneVictim(a, b); victim != b {
			t.Error("the older wait was ended")
		}
		m.hosts[0].Release(above)
		a.ends(nil)
	})
}

// TestRangeAgainstLock: a byte range against a lock, with either as the victim.
func TestRangeAgainstLock(t *testing.T) {
	for _, rangeFirst := range []bool{true, false} {
		t.Run(fmt.Sprint(rangeFirst), func(t *testing.T) {
			hosts(t, 2, func(m *many) {
				a, b := m.make("/a"), m.make("/b")
				held := m.has(0, 1, a, queue.EX)
				m.locksRange(1, 2, b).ends(nil)
				var x, y *asking
				if rangeFirst {
					x = m.locksRange(0, 1, b).waits()
					y = m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
				} else {
					y = m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
					x = m.locksRange(0, 1, b).waits()
				}
				victim, _ := m.oneVictim(x, y)
				if (victim == y) != rangeFirst {
					t.Error("the older wait was ended")
				}
				if rangeFirst {
					m.hosts[1].UnlockRange(nil, b, lockd.Range{Owner: 2, Start: 0, End: 9})
					x.ends(nil)
				} else {
					m.hosts[0].Release(held)
					y.ends(nil)
				}
				for range m.hosts[0].View().RangeWaits(b) {
					t.Error("a wait is left")
				}
			})
		})
	}
}

// TestNestedDeadlock: the inner flock is the child of the outer one, which waits for it.
func TestNestedDeadlock(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a, b := m.make("/a"), m.make("/b")
		for i := range m.procs {
			m.procs[i].set(func(p *processes) {
				p.heirs[1], p.child[1] = []uint32{2}, 2
			})
		}
		m.has(0, 1, a, queue.EX)
		held := m.has(1, 1, b, queue.EX)
		x := m.wants(0, 2, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		if victim, _ := m.oneVictim(x, y); victim != y {
			t.Error("the older wait was ended")
		}
		m.hosts[1].Release(held)
		x.ends(nil)
	})
}

// TestAskerGoneDeadlock: who asked for the lock has gone since it was told of, as flock(1) of a descriptor of a shell; the shell and its
// child still have it.
func TestAskerGoneDeadlock(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a, b := m.make("/a"), m.make("/b")
		l := &lockd.Lock{Listener: &recorder{}, Opener: 1}
		if err := m.hosts[0].Lock(call(7), l, lockd.Request{Ino: a, Mode: queue.EX}); err != nil {
			t.Fatal(err)
		}
		m.has(1, 3, b, queue.EX)
		time.Sleep(time.Second)
		m.procs[0].set(func(p *processes) {
			p.gone[7], p.heirs[1], p.child[1] = true, []uint32{2}, 2
		})
		x := m.wants(0, 2, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		y := m.wants(1, 3, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		if victim, _ := m.oneVictim(x, y); victim != y {
			t.Error("the older wait was ended")
		}
		m.hosts[0].Release(l)
	})
}

// TestBehindWaiterDeadlock: 3's PR is compatible with 1's, but behind 2's EX. (Not so where 1 and 2 are of one host: that soon gives the other
// one its PR.)
func TestBehindWaiterDeadlock(t *testing.T) {
	for _, on := range [][3]int{{0, 0, 0}, {0, 1, 2}, {0, 1, 1}, {0, 1, 0}} {
		t.Run(fmt.Sprint(on), func(t *testing.T) {
			hosts(t, 3, func(m *many) {
				a, b := m.make("/a"), m.make("/b")
				held := m.has(on[0], 1, a, queue.PR)
				m.has(on[2], 3, b, queue.EX)
				x := m.wants(on[1], 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
				time.Sleep(time.Second)
				y := m.wants(on[2], 3, lockd.Request{Ino: a, Mode: queue.PR})
				time.Sleep(time.Second)
				y.waits()
				z := m.wants(on[0], 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
				if victim, _ := m.oneVictim(x, y, z); victim != z {
					t.Errorf("%d was ended, not the youngest", victim.c.PID)
				}
				m.hosts[on[0]].Release(held)
				x.ends(nil)
				m.hosts[on[1]].Release(x.l)
				y.ends(nil)
				if n := m.verdicts(); n != 1 {
					t.Errorf("%d deadlocks", n)
				}
			})
		})
	}
}

// TestThreadsDeadlockAcross: where another thread could let go, the cycle has to stand for a while; if that lets go, nobody gets a verdict.
func TestThreadsDeadlockAcross(t *testing.T) {
	for _, lets := range []bool{false, true} {
		t.Run(fmt.Sprint(lets), func(t *testing.T) {
			hosts(t, 2, func(m *many) {
				a, b := m.make("/a"), m.make("/b")
				m.procs[0].set(func(p *processes) { p.busy[1] = true })
				held := m.has(0, 1, a, queue.EX)
				m.has(1, 2, b, queue.EX)
				x := m.wants(0, 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
				y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
				if lets {
					time.Sleep(2 * time.Second)
					m.hosts[0].Release(held)
					y.ends(nil)
					m.stands(x)
					if n := m.verdicts(); n != 0 {
						t.Errorf("%d deadlocks", n)
					}
					return
				}
				start := time.Now()
				y.ends(lockd.ErrDeadlock)
				if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
					t.Errorf("it took %v", d)
				}
				x.waits()
			})
		})
	}
}

// TestLooseCycle: one that somebody could break does not hide one that nobody can.
func TestLooseCycle(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a, b := m.make("/a"), m.make("/b")
		m.procs[0].set(func(p *processes) { p.busy[1] = true })
		m.has(0, 1, a, queue.PR) // loose
		m.has(0, 3, a, queue.PR)
		m.has(1, 2, b, queue.EX)
		x := m.wants(0, 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		time.Sleep(2 * time.Second)
		x.waits()
		y.waits()
		z := m.wants(0, 3, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		if victim, _ := m.oneVictim(x, y, z); victim != z {
			t.Error("not the youngest was ended")
		}
	})
}

// TestDeadlockCutOff: a host that does not answer leaves the suspicion standing until its session ends.
func TestDeadlockCutOff(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a, b := m.make("/a"), m.make("/b")
		m.has(0, 1, a, queue.EX)
		m.has(1, 2, b, queue.EX)
		y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		time.Sleep(time.Second)
		m.members[1].SetDeaf(true)
		m.members[1].SetCut(true)
		session := m.hosts[1].Session()
		x := m.wants(0, 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		time.Sleep(5 * time.Second)
		x.waits()
		if n := len(m.hosts[0].View().Suspicions()); n != 1 {
			t.Errorf("%d suspicions", n)
		}
		m.log.EndSession(session)
		x.ends(nil)
		if n := len(m.hosts[0].View().Suspicions()); n != 0 {
			t.Errorf("%d suspicions are left", n)
		}
		m.members[1].SetCut(false)
		m.members[1].SetDeaf(false)
		y.waits()
	})
}

// TestDeadlockAfterSnapshot: the question comes with a snapshot, or the verdict.
func TestDeadlockAfterSnapshot(t *testing.T) {
	for _, asked := range []bool{true, false} {
		t.Run(fmt.Sprint(asked), func(t *testing.T) {
			hosts(t, 2, func(m *many) {
				a, b := m.make("/a"), m.make("/b")
				m.has(0, 1, a, queue.EX)
				m.has(1, 2, b, queue.EX)
				x := m.wants(0, 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
				y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
				if asked {
					m.members[1].SetDeaf(true)
					time.Sleep(time.Second)
					y.waits()
				} else {
					m.members[1].SetDelay(100 * time.Millisecond)
					for len(m.hosts[0].View().Cycles()) == 0 {
						time.Sleep(time.Millisecond)
					}
					y.waits()
				}
				m.members[1].Restore()
				if victim, _ := m.oneVictim(x, y); victim != y {
					t.Error("the older wait was ended")
				}
			})
		})
	}
}

// TestDeadlockOptOut: what has nodlckblk holds up nobody in a deadlock.
func TestDeadlockOptOut(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a, b := m.make("/a"), m.make("/b")
		l := new(lockd.Lock)
		if err := m.hosts[0].Lock(call(1), l, lockd.Request{Ino: a, Mode: queue.EX, Flags: queue.NoDlckBlk}); err != nil {
			t.Fatal(err)
		}
		m.has(1, 2, b, queue.EX)
		x := m.wants(0, 1, lockd.Request{Ino: b, Mode: queue.EX}).waits()
		y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		m.stands(x, y)
	})
}

// TestReportsEndWithSession: what waits goes on in the next session, and is told of there.
func TestReportsEndWithSession(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a := m.make("/a")
		m.has(0, 1, a, queue.EX)
		y := m.wants(1, 2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		time.Sleep(time.Second)
		count := func() (held, waits int) {
			for r := range m.hosts[0].View().Reports(a) {
				if r.Waits() {
					waits++
				} else {
					held++
				}
			}
			return held, waits
		}
		if held, waits := count(); held != 1 || waits != 1 {
			t.Fatalf("%d held, %d wait", held, waits)
		}
		m.log.EndSession(m.hosts[1].Session())
		time.Sleep(time.Second)
		y.waits()
		if held, waits := count(); held != 1 || waits != 1 {
			t.Errorf("in the next session %d held, %d wait", held, waits)
		}
		m.log.EndSession(m.hosts[0].Session())
		y.ends(nil)
		time.Sleep(time.Second)
		if held, waits := count(); held != 1 || waits != 0 {
			t.Errorf("at the end %d held, %d wait", held, waits)
		}
		m.hosts[1].Release(y.l)
		time.Sleep(time.Second)
		if held, waits := count(); held != 0 || waits != 0 {
			t.Errorf("after it %d held, %d wait", held, waits)
		}
	})
}

// TestReportInTime: what is held and awaited shows on any host within 200 ms.
func TestReportInTime(t *testing.T) {
	hosts(t, 2, func(m *many) {
		a := m.make("/a")
		time.Sleep(time.Minute) // nothing goes on
		for range 20 {
			time.Sleep(7 * time.Millisecond)
			l := m.has(0, 1, a, queue.PW)
			x := m.wants(0, 2, lockd.Request{Ino: a, Mode: queue.PR}).waits()
			time.Sleep(200 * time.Millisecond)
			list := m.hosts[1].Locks(a)
			if len(list) != 2 || list[0].Mode != queue.PW || list[0].PID != 1 || list[1].Wanted != queue.PR || list[1].PID != 2 {
				t.Fatalf("%+v", list)
			}
			if err := m.hosts[0].Convert(nil, l, queue.CR, 0, 0); err != nil {
				t.Fatal(err)
			}
			x.ends(nil)
			time.Sleep(200 * time.Millisecond)
			list = m.hosts[1].Locks(a)
			if len(list) != 2 || list[0].Wanted != queue.None || list[1].Wanted != queue.None {
				t.Fatalf("after the conversion %+v", list)
			}
			m.hosts[0].Release(l)
			m.hosts[0].Release(x.l)
			time.Sleep(200 * time.Millisecond)
			if list := m.hosts[1].Locks(a); len(list) != 0 {
				t.Fatalf("after the release %+v", list)
			}
			time.Sleep(3 * time.Second)
		}
	})
}
