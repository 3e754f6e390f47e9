package lockd_test

import (
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
)

// converting lets a goroutine convert a lock.
func (r *rig) converting(l *lockd.Lock, pid uint32, mode queue.Mode, flags queue.Flags) *asking {
	return r.asks(pid, l, func(c *lockd.Call, l *lockd.Lock) error { return r.h.Convert(c, l, mode, flags, 0) })
}

// twoShared gives two processes PR on one file.
func (r *rig) twoShared() (first, second *lockd.Lock) {
	ino := r.make("/a")
	first = &lockd.Lock{Listener: &recorder{}}
	second = &lockd.Lock{Listener: &recorder{}}
	for i, l := range []*lockd.Lock{first, second} {
		if err := r.h.Lock(call(uint32(i+1)), l, lockd.Request{Ino: ino, Mode: queue.PR}); err != nil {
			r.Fatal(err)
		}
	}
	return first, second
}

// TestConversionDeadlock: the youngest wait gets EDEADLK at once, the other goes on when that one lets go.
func TestConversionDeadlock(t *testing.T) {
	bubble(t, func(r *rig) {
		first, second := r.twoShared()
		start := time.Now()
		a := r.converting(first, 1, queue.EX, 0).waits()
		b := r.converting(second, 2, queue.EX, 0).ends(lockd.ErrDeadlock)
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v", d)
		}
		a.waits()
		r.mode(b.l, queue.PR)
		if got := b.l.Listener.(*recorder).kinds(); got != "blocking:EX deadlock:EX" {
			t.Errorf("the victim is told %q", got)
		}
		if got := a.l.Listener.(*recorder).kinds(); got != "blocking:EX deadlock:EX" {
			t.Errorf("the other is told %q", got)
		}
		r.h.Release(second)
		a.ends(nil)
		r.h.Release(first)
		if n := r.h.Status().Deadlocks; n != 1 {
			t.Errorf("%d verdicts", n)
		}
		r.empty()
	})
}

// TestConversionDeadlockThreads: where another thread could let go, the cycle has to stand for a while.
func TestConversionDeadlockThreads(t *testing.T) {
	bubble(t, func(r *rig) {
		first, second := r.twoShared()
		r.procs.set(func(p *processes) { p.busy[1] = true })
		start := time.Now()
		a := r.converting(first, 1, queue.EX, 0).waits()
		r.converting(second, 2, queue.EX, 0).ends(lockd.ErrDeadlock)
		if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("it took %v", d)
		}
		r.h.Release(second)
		a.ends(nil)
	})
}

// TestConversionDeadlockSoon: the other thread comes to wait as well.
func TestConversionDeadlockSoon(t *testing.T) {
	bubble(t, func(r *rig) {
		first, second := r.twoShared()
		r.procs.set(func(p *processes) { p.busy[1] = true })
		r.converting(first, 1, queue.EX, 0).waits()
		b := r.converting(second, 2, queue.EX, 0).waits()
		time.Sleep(3 * time.Second)
		b.waits()
		r.procs.set(func(p *processes) { p.busy[1] = false })
		start := time.Now()
		b.ends(lockd.ErrDeadlock)
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// TestConversionDeadlockLetGo: the other thread lets go after 2 s, and nobody gets a verdict.
func TestConversionDeadlockLetGo(t *testing.T) {
	bubble(t, func(r *rig) {
		first, second := r.twoShared()
		r.procs.set(func(p *processes) { p.busy[1] = true })
		a := r.converting(first, 1, queue.EX, 0).waits()
		b := r.converting(second, 2, queue.EX, 0).waits()
		time.Sleep(2 * time.Second)
		close(a.cancel)
		a.ends(lockd.ErrInterrupted)
		b.waits()
		r.h.Release(first)
		b.ends(nil)
		if n := r.h.Status().Deadlocks; n != 0 {
			t.Errorf("%d verdicts", n)
		}
	})
}

func TestDeadlockWaitNever(t *testing.T) {
	bubbleWith(t, lockd.Config{DeadlockWait: -1}, func(r *rig) {
		first, second := r.twoShared()
		r.procs.set(func(p *processes) { p.busy[1] = true })
		a := r.converting(first, 1, queue.EX, 0).waits()
		b := r.converting(second, 2, queue.EX, 0).waits()
		time.Sleep(time.Hour)
		a.waits()
		b.waits()
		close(b.cancel)
		b.ends(lockd.ErrInterrupted)
		r.h.Release(second)
		a.ends(nil)
	})
}

// TestNoDlckWt: a wait with it is no victim and no part of a cycle.
func TestNoDlckWt(t *testing.T) {
	bubble(t, func(r *rig) {
		first, second := r.twoShared()
		a := r.converting(first, 1, queue.EX, queue.NoDlckWt).waits()
		b := r.converting(second, 2, queue.EX, 0).waits()
		time.Sleep(time.Minute)
		a.waits()
		b.waits()
		close(a.cancel)
		a.ends(lockd.ErrInterrupted)
		r.h.Release(first)
		b.ends(nil)
	})
}

// TestThreeConvert: three in one resource; one victim a cycle, and the last one gets the lock.
func TestThreeConvert(t *testing.T) {
	bubble(t, func(r *rig) {
		first, second := r.twoShared()
		ino := r.make("/a")
		third := r.lock(ino, queue.PR, 3)
		a := r.converting(first, 1, queue.EX, 0).waits()
		r.converting(second, 2, queue.EX, 0).ends(lockd.ErrDeadlock)
		r.converting(third, 3, queue.EX, 0).ends(lockd.ErrDeadlock)
		a.waits()
		r.h.Release(second)
		a.waits()
		r.h.Release(third)
		a.ends(nil)
	})
}

// TestSelfDeadlock is `exec 9<>M/a; echo x > M/a`: only its own descriptor is in the way, and nobody else can let go.
func TestSelfDeadlock(t *testing.T) {
	for _, test := range []struct {
		name   string
		pid    uint32
		set    func(p *processes)
		queued bool // another process waits in front
	}{
		{name: "one process", pid: 1},
		{name: "a thread of it", pid: 7, set: func(p *processes) { p.of[7] = 1 }},
		{name: "an heir", pid: 8, set: func(p *processes) { p.heirs[1] = []uint32{8} }},
		{name: "behind another", pid: 1, queued: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(r *rig) {
				ino := r.make("/a")
				l := r.lock(ino, queue.EX, 1)
				if test.set != nil {
					r.procs.set(test.set)
				}
				var other *asking
				if test.queued {
					other = r.ask(50, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
				}
				start := time.Now()
				r.ask(test.pid, lockd.Request{Ino: ino, Mode: queue.PW}).ends(lockd.ErrDeadlock)
				if d := time.Since(start); d > 10*time.Millisecond {
					t.Errorf("it took %v", d)
				}
				r.h.Release(l)
				if other != nil {
					other.ends(nil)
					r.h.Release(other.l)
				}
				r.empty()
			})
		})
	}
}

// TestSelfDeadlockThreads: another thread lets go after a while.
func TestSelfDeadlockThreads(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		l := r.lock(ino, queue.EX, 1)
		r.procs.set(func(p *processes) { p.of[2], p.busy[1] = 1, true })
		a := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		time.Sleep(2 * time.Second)
		a.waits()
		r.h.Release(l)
		a.ends(nil)
		r.h.Release(a.l)
		l = r.lock(ino, queue.EX, 1)
		a = r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		time.Sleep(time.Hour) // a thread may work under a lock for long
		a.waits()
		r.procs.set(func(p *processes) { p.busy[1] = false })
		start := time.Now()
		a.ends(lockd.ErrDeadlock)
		if d := time.Since(start); d > time.Second {
			t.Errorf("it took %v", d)
		}
		r.h.Release(l)
	})
}

// TestNoSelfDeadlockForStrangers: unrelated processes wait, for ever if need be.
func TestNoSelfDeadlockForStrangers(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		l := r.lock(ino, queue.EX, 1)
		a := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		b := r.ask(0, lockd.Request{Ino: ino, Mode: queue.EX}).waits() // of a foreign pid namespace
		time.Sleep(time.Hour)
		a.waits()
		b.waits()
		r.h.Release(l)
		a.ends(nil)
		r.h.Release(a.l)
		b.ends(nil)
		r.h.Release(b.l)
		r.empty()
	})
}
