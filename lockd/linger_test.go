package lockd_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
)

// interrupted interrupts a request that lingers.
func (a *asking) interrupted() {
	a.r.Helper()
	close(a.cancel)
	a.ends(lockd.ErrInterrupted)
}

// again makes the same request for the same lock.
func (r *rig) again(pid uint32, l *lockd.Lock, req lockd.Request) *asking {
	return r.asks(pid, l, func(c *lockd.Call, l *lockd.Lock) error { return r.h.Lock(c, l, req) })
}

// TestLingerKeepsItsPlace: a process that gets signals all the time is served in its turn.
func TestLingerKeepsItsPlace(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		holder := r.lock(ino, queue.EX, 1)
		req := lockd.Request{Ino: ino, Mode: queue.EX, Linger: 20 * time.Millisecond}
		l := new(lockd.Lock)
		first := r.again(2, l, req).waits()
		second := r.ask(3, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		for range 50 {
			first.interrupted()
			time.Sleep(10 * time.Millisecond)
			first = r.again(2, l, req).waits()
		}
		r.h.Release(holder)
		first.ends(nil)
		second.waits()
		r.h.Release(l)
		second.ends(nil)
		r.h.Release(second.l)
		r.empty()
	})
}

// TestLingerEnds: who does not come again is withdrawn, and the next goes on.
func TestLingerEnds(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		reader := r.lock(ino, queue.PR, 1)
		first := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX, Linger: 20 * time.Millisecond}).waits()
		second := r.ask(3, lockd.Request{Ino: ino, Mode: queue.PR}).waits()
		first.interrupted()
		second.waits()
		start := time.Now()
		second.ends(nil)
		if d := time.Since(start); d != 20*time.Millisecond {
			t.Errorf("held up for %v", d)
		}
		third := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX, Linger: time.Hour}).waits()
		fourth := r.ask(4, lockd.Request{Ino: ino, Mode: queue.PR}).waits()
		third.interrupted()
		r.h.Release(third.l) // the close of a process that dies
		fourth.ends(nil)
		for _, l := range []*lockd.Lock{reader, second.l, fourth.l} {
			r.h.Release(l)
		}
		r.empty()
	})
}

// TestLingerGranted: the grant comes between the interrupt and the next try.
func TestLingerGranted(t *testing.T) {
	for _, claim := range []bool{true, false} {
		bubble(t, func(r *rig) {
			ino := r.make("/a")
			holder := r.lock(ino, queue.EX, 1)
			req := lockd.Request{Ino: ino, Mode: queue.EX, Linger: 20 * time.Millisecond}
			first := r.ask(2, req).waits()
			second := r.ask(3, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
			first.interrupted()
			r.h.Release(holder)
			second.waits()
			r.mode(first.l, queue.None)
			if claim {
				got := r.again(2, first.l, req).ends(nil)
				if got.parked != 0 || first.l.Token() == 0 {
					t.Errorf("parked %d, token %d", got.parked, first.l.Token())
				}
				time.Sleep(time.Second)
				second.waits()
				r.mode(first.l, queue.EX)
				r.h.Release(first.l)
			}
			second.ends(nil)
			r.h.Release(second.l)
			r.mode(first.l, queue.None)
			r.h.Release(first.l)
			r.empty()
		})
	}
}

// TestLingerSomethingElse: another request on the same descriptor ends it.
func TestLingerSomethingElse(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		holder := r.lock(ino, queue.PR, 1)
		a := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX, Linger: time.Hour}).waits()
		a.interrupted()
		if err := r.h.Lock(call(2), a.l, lockd.Request{Ino: ino, Mode: queue.PR}); err != nil {
			t.Errorf("another mode: %v", err)
		}
		r.h.Release(a.l)
		r.h.Release(holder)
		r.empty()
	})
}

// TestLingerConversion keeps what it had and its place among the conversions.
func TestLingerConversion(t *testing.T) {
	for _, claim := range []bool{true, false} {
		bubble(t, func(r *rig) {
			first, second := r.twoShared()
			up := func() *asking {
				return r.asks(1, first, func(c *lockd.Call, l *lockd.Lock) error {
					return r.h.ConvertBy(c, l, lockd.Request{Mode: queue.EX, Linger: 20 * time.Millisecond})
				})
			}
			a := up().waits()
			a.interrupted()
			a = up().waits()
			a.interrupted()
			r.h.Release(second)
			r.mode(first, queue.PR)
			if claim {
				up().ends(nil)
				time.Sleep(time.Second)
				r.mode(first, queue.EX)
			} else {
				time.Sleep(time.Second)
				r.mode(first, queue.PR)
				r.h.Release(r.lock(r.make("/a"), queue.PR, 9))
			}
			r.h.Release(first)
			r.empty()
		})
	}
}

// TestLingerLost: the session ends meanwhile.
func TestLingerLost(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		holder := r.lock(ino, queue.EX, 1)
		req := lockd.Request{Ino: ino, Mode: queue.EX, Linger: time.Second}
		waiting := r.ask(2, req).waits()
		waiting.interrupted()
		r.log.EndSession(r.h.Session())
		synctest.Wait()
		r.again(2, waiting.l, req).ends(nil)
		r.h.Release(waiting.l)
		unclaimed := r.ask(3, lockd.Request{Ino: ino, Mode: queue.NL}).ends(nil)
		r.h.Release(unclaimed.l)
		r.h.Release(holder)

		holder = r.lock(ino, queue.EX, 1)
		waiting = r.ask(2, req).waits()
		waiting.interrupted()
		r.h.Release(holder)
		r.log.EndSession(r.h.Session())
		synctest.Wait()
		if err := waiting.l.Err(); err != nil {
			t.Errorf("what nobody had is lost: %v", err)
		}
		r.again(2, waiting.l, req).ends(nil)
		r.h.Release(waiting.l)
		r.empty()
	})
}
