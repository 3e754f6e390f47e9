package lockd_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

var modes = []queue.Mode{queue.NL, queue.CR, queue.CW, queue.PR, queue.PW, queue.EX}

// TestTryIsTheMatrix tries every mode while every mode is held.
func TestTryIsTheMatrix(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		for _, held := range modes {
			for _, asked := range modes {
				l := r.lock(ino, held, 1)
				var m lockd.Lock
				err := r.h.Lock(call(2), &m, lockd.Request{Ino: ino, Mode: asked, Flags: queue.NoQueue})
				want := error(nil)
				if !queue.Compatible(held, asked) {
					want = lockd.ErrBusy
				}
				if err != want {
					t.Errorf("%v held, %v tried: %v, want %v", held, asked, err, want)
				}
				r.h.Release(&m)
				r.h.Release(l)
			}
		}
		r.empty()
	})
}

func TestWaitAndRelease(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		first := r.lock(ino, queue.EX, 1)
		second := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		third := r.ask(3, lockd.Request{Ino: ino, Mode: queue.PR}).waits()
		r.mode(second.l, queue.None)
		r.h.Release(first)
		second.ends(nil)
		third.waits()
		r.mode(second.l, queue.EX)
		if first.Token() != 0 || second.l.Token() == 0 {
			t.Errorf("tokens %d, %d", first.Token(), second.l.Token())
		}
		r.h.Release(second.l)
		third.ends(nil)
		r.h.Release(third.l)
		r.empty()
	})
}

// TestPark: what is granted or refused at once never parks; what looks at processes does.
func TestPark(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.h.Release(r.lock(ino, queue.EX, 1))
		warm := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
		if warm.parked != 0 {
			t.Errorf("a warm lock parked %d times", warm.parked)
		}
		try := r.ask(3, lockd.Request{Ino: ino, Mode: queue.EX, Flags: queue.NoQueue}).ends(lockd.ErrBusy)
		if try.parked != 0 || r.procs.looks != 0 {
			t.Errorf("a try of what is held parked %d times, with %d process look-ups", try.parked, r.procs.looks)
		}
		above := r.ask(4, lockd.Request{Ino: state.Root, Mode: queue.EX, Flags: queue.NoQueue}).ends(lockd.ErrBusy)
		if above.parked != 1 || r.procs.looks != 1 {
			t.Errorf("a try that had to look at processes parked %d times, with %d look-ups", above.parked, r.procs.looks)
		}
		r.h.Release(warm.l)
	})
}

func TestTimeout(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		l := r.lock(ino, queue.EX, 1)
		start := time.Now()
		r.ask(2, lockd.Request{Ino: ino, Mode: queue.PR, Wait: 5 * time.Second}).ends(lockd.ErrTimeout)
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("it took %v", d)
		}
		r.h.Release(l)
		r.empty()
	})
}

// TestInterruptedNextNotHeldUp: whoever is withdrawn holds nobody up any more.
func TestInterruptedNextNotHeldUp(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		l := r.lock(ino, queue.PR, 1)
		second := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		third := r.ask(3, lockd.Request{Ino: ino, Mode: queue.PR}).waits() // FIFO behind the EX
		close(second.cancel)
		second.ends(lockd.ErrInterrupted)
		third.ends(nil)
		r.h.Release(second.l) // nothing to do, and harmless
		r.h.Release(third.l)
		r.h.Release(l)
		r.empty()
	})
}

func TestLockErrors(t *testing.T) {
	bubbleWith(t, lockd.Config{Limits: lockd.Limits{Locks: 3, Waiters: 1}}, func(r *rig) {
		a, b, c := r.make("/a"), r.make("/b"), r.make("/c")
		var l lockd.Lock
		req := func(ino uint64, mode queue.Mode, flags queue.Flags) error {
			return r.h.Lock(call(1), &l, lockd.Request{Ino: ino, Mode: mode, Flags: flags})
		}
		for _, test := range []struct {
			name string
			err  error
			want error
		}{
			{"no such node", req(4711, queue.EX, 0), state.NotFound},
			{"no mode", req(a, queue.None, 0), lockd.ErrFlags},
			{"mode past the last", req(a, 77, 0), lockd.ErrFlags},
			{"expedite with EX", req(a, queue.EX, queue.Expedite), lockd.ErrFlags},
			{"quecvt without a conversion", req(a, queue.EX, queue.QueCvt), lockd.ErrFlags},
		} {
			if !errors.Is(test.err, test.want) {
				t.Errorf("%s: %v, want %v", test.name, test.err, test.want)
			}
		}
		for _, ino := range []uint64{b, c} {
			r.h.Release(r.lock(ino, queue.EX, 1)) // so that the host has it
		}
		held := r.lock(a, queue.EX, 1)
		if err := r.h.Lock(call(1), held, lockd.Request{Ino: a, Mode: queue.NL}); err != lockd.ErrBusy {
			t.Errorf("lock of a held lock: %v", err)
		}
		if err := r.h.Convert(call(1), &l, queue.EX, 0, 0); err != lockd.ErrBusy {
			t.Errorf("conversion of nothing: %v", err)
		}
		waiting := r.ask(2, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		r.ask(3, lockd.Request{Ino: a, Mode: queue.EX}).ends(lockd.ErrNoLocks)
		lb := r.lock(b, queue.EX, 4)
		r.ask(5, lockd.Request{Ino: c, Mode: queue.EX}).ends(lockd.ErrNoLocks)
		r.h.Release(lb)
		lc := r.lock(c, queue.EX, 5)
		r.h.Release(held)
		waiting.ends(nil)
		r.h.Release(waiting.l)
		r.h.Release(lc)
		r.empty()
	})
}

func TestConvert(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/d/a")
		l := r.lock(ino, queue.PR, 1)
		other := r.lock(ino, queue.PR, 2)
		if err := r.h.Convert(call(1), l, queue.EX, queue.NoQueue, 0); err != lockd.ErrBusy {
			t.Errorf("try: %v", err)
		}
		r.mode(l, queue.PR)
		up := r.asks(1, l, func(c *lockd.Call, l *lockd.Lock) error { return r.h.Convert(c, l, queue.EX, 0, 0) }).waits()
		newcomer := r.ask(3, lockd.Request{Ino: ino, Mode: queue.CR}).waits() // behind the conversion
		if err := r.h.Convert(call(2), other, queue.NL, 0, 0); err != nil {
			t.Errorf("down: %v", err)
		}
		up.ends(nil)
		r.mode(l, queue.EX)
		newcomer.waits()
		token := l.Token()
		if err := r.h.Convert(call(1), l, queue.NL, 0, 0); err != nil {
			t.Error(err)
		}
		newcomer.ends(nil)
		r.h.Release(newcomer.l)
		if err := r.h.Convert(call(1), l, queue.EX, 0, 0); err != nil || l.Token() <= token {
			t.Errorf("up again: %v, token %d after %d", err, l.Token(), token)
		}
		if err := r.h.Convert(call(1), l, queue.EX, queue.QueCvt, 0); err != lockd.ErrFlags {
			t.Errorf("quecvt to what it has: %v", err)
		}
		r.h.Release(l)
		r.h.Release(other)
		r.empty()
	})
}

// TestConvertWithdrawn: an interrupted or timed out conversion keeps what it had.
func TestConvertWithdrawn(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		l, other := r.lock(ino, queue.PR, 1), r.lock(ino, queue.PR, 2)
		up := r.asks(1, l, func(c *lockd.Call, l *lockd.Lock) error { return r.h.Convert(c, l, queue.EX, 0, 0) }).waits()
		if err := r.h.Convert(call(1), l, queue.NL, 0, 0); err != lockd.ErrBusy {
			t.Errorf("a second conversion meanwhile: %v", err)
		}
		close(up.cancel)
		up.ends(lockd.ErrInterrupted)
		r.mode(l, queue.PR)
		r.asks(1, l, func(c *lockd.Call, l *lockd.Lock) error { return r.h.Convert(c, l, queue.EX, 0, time.Second) }).ends(lockd.ErrTimeout)
		r.mode(l, queue.PR)
		if got := r.lock(ino, queue.PR, 3); got != nil {
			r.h.Release(got)
		}
		r.h.Release(l)
		r.h.Release(other)
		r.empty()
	})
}

// TestTokensGrow: over grants of PW and EX the token grows strictly, whatever else is granted in between.
func TestTokensGrow(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		var last uint64
		for i := range 100 {
			mode := []queue.Mode{queue.EX, queue.PW, queue.PR, queue.CW}[i%4]
			l := r.lock(ino, mode, 1)
			if token := l.Token(); mode.Writes() && token <= last || token < last {
				t.Fatalf("token %d of %v after %d", token, mode, last)
			}
			last = l.Token()
			r.h.Release(l)
		}
	})
}

// TestHierarchy: a lock on a directory shuts out those below, and they it.
func TestHierarchy(t *testing.T) {
	bubble(t, func(r *rig) {
		file, dir := r.make("/db/t/r"), r.make("/db/")
		top := r.lock(dir, queue.EX, 1)
		below := r.ask(2, lockd.Request{Ino: file, Mode: queue.CR}).waits()
		r.h.Release(top)
		below.ends(nil)
		above := r.ask(3, lockd.Request{Ino: dir, Mode: queue.EX}).waits()
		r.lock(dir, queue.NL, 4)
		r.h.Release(below.l)
		above.ends(nil)
	})
}

// TestOwnIntents is the table of issue 2: P holds db/x, Q waits for db@ex, P opens db/y and then db@ex.
func TestOwnIntents(t *testing.T) {
	bubble(t, func(r *rig) {
		const p, q = 10, 20
		dir, x, y := r.make("/db/"), r.make("/db/x"), r.make("/db/y")
		lx := r.lock(x, queue.EX, p)
		lq := r.ask(q, lockd.Request{Ino: dir, Mode: queue.EX}).waits()
		ly := r.ask(p, lockd.Request{Ino: y, Mode: queue.EX}).ends(nil)
		stranger := r.ask(30, lockd.Request{Ino: y, Mode: queue.NL}).ends(nil)
		blocked := r.ask(40, lockd.Request{Ino: r.h.View().Lookup(dir, "x").Ino, Mode: queue.CR}).waits()
		ld := r.ask(p, lockd.Request{Ino: dir, Mode: queue.EX}).ends(nil)
		r.h.Release(lx)
		r.h.Release(ly.l)
		lq.waits()
		r.h.Release(ld.l)
		lq.ends(nil)
		r.h.Release(lq.l)
		blocked.ends(nil)
		r.h.Release(stranger.l)
		r.h.Release(blocked.l)
		r.empty()
	})
}

// TestOwnIntentsTry: a try looks at processes as well.
func TestOwnIntentsTry(t *testing.T) {
	bubble(t, func(r *rig) {
		dir, x := r.make("/db/"), r.make("/db/x")
		r.lock(x, queue.EX, 10)
		r.procs.set(func(p *processes) { p.heirs[10] = []uint32{11} })
		r.ask(11, lockd.Request{Ino: dir, Mode: queue.EX, Flags: queue.NoQueue}).ends(nil)
		r.ask(12, lockd.Request{Ino: dir, Mode: queue.NL, Flags: queue.NoQueue}).ends(nil)
		r.ask(12, lockd.Request{Ino: dir, Mode: queue.CR, Flags: queue.NoQueue}).ends(lockd.ErrBusy)
	})
}

// TestOwnerSeenLate: a request of P waits behind another's for a directory; meanwhile P gets an intent there.
func TestOwnerSeenLate(t *testing.T) {
	bubble(t, func(r *rig) {
		const p, q = 10, 20
		dir, x, y := r.make("/db/"), r.make("/db/x"), r.make("/db/y")
		lx := r.lock(x, queue.CR, p)
		holder := r.lock(y, queue.EX, 99)
		ly := r.ask(p, lockd.Request{Ino: y, Mode: queue.EX}).waits()
		lq := r.ask(q, lockd.Request{Ino: dir, Mode: queue.EX}).waits()
		r.h.Release(holder)
		ly.ends(nil)
		lq.waits()
		r.h.Release(lx)
		r.h.Release(ly.l)
		lq.ends(nil)
	})
}

// TestReleasedDuringLookup: things happen while the processes are looked at.
func TestReleasedDuringLookup(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		holder := r.lock(ino, queue.EX, 1)
		var once sync.Once
		r.procs.during = func() { once.Do(func() { r.h.Release(holder) }) }
		second := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
		var l lockd.Lock
		r.procs.during = func() { r.h.Release(&l) }
		if err := r.h.Lock(call(3), &l, lockd.Request{Ino: ino, Mode: queue.EX}); err != lockd.ErrInterrupted {
			t.Errorf("released by somebody else: %v", err)
		}
		r.h.Release(second.l)
		r.empty()
	})
}

func TestTTL(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		if err := r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX, TTL: 3 * time.Second}); err != nil {
			t.Fatal(err)
		}
		second := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX, TTL: time.Second}).waits()
		start := time.Now()
		second.ends(nil)
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("taken away after %v", d)
		}
		if l.Err() != lockd.ErrLost || r.h.Check(l) != lockd.ErrLost || l.Mode() != queue.None {
			t.Errorf("after its time: %v, mode %v", l.Err(), l.Mode())
		}
		if got := rec.kinds(); got != "blocking:EX lost" {
			t.Errorf("told %q", got)
		}
		if err := r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX}); err != lockd.ErrLost {
			t.Errorf("lock of a lost one: %v", err)
		}
		if err := r.h.Convert(call(1), l, queue.NL, 0, 0); err != lockd.ErrLost {
			t.Errorf("conversion of a lost one: %v", err)
		}
		r.h.Release(l)
		r.h.Release(second.l) // disarms
		if err := r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX}); err != nil || r.h.Check(l) != nil {
			t.Errorf("lock again: %v", err)
		}
		time.Sleep(time.Minute)
		if l.Err() != nil {
			t.Errorf("an old time to live took away a new lock: %v", l.Err())
		}
		r.h.Release(l)
		r.empty()
	})
}

func TestEnqueue(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		rec := [4]*recorder{{}, {}, {}, {}}
		var ls [4]*lockd.Lock
		for i := range ls {
			ls[i] = &lockd.Lock{Listener: rec[i]}
		}
		enqueue := func(i int, flags queue.Flags, want error) {
			t.Helper()
			if err := r.h.Enqueue(call(uint32(i+1)), ls[i], lockd.Request{Ino: ino, Mode: queue.EX, Flags: flags}); err != want {
				t.Errorf("enqueue %d: %v, want %v", i, err, want)
			}
		}
		enqueue(0, 0, nil)
		if got := rec[0].kinds(); got != "granted" {
			t.Errorf("first: %q", got)
		}
		enqueue(1, 0, nil)
		enqueue(2, queue.NoQueue, lockd.ErrBusy)
		enqueue(2, 0, nil)
		enqueue(3, 0, nil)
		if got := rec[0].kinds(); got != "blocking:EX" {
			t.Errorf("the holder is told %q", got)
		}
		r.h.Release(ls[2]) // withdraws
		r.h.Release(ls[0])
		if got := rec[1].kinds(); got != "granted blocking:EX" {
			t.Errorf("second: %q", got)
		}
		r.h.Release(ls[1])
		for i, want := range []string{"", "", "", "granted"} {
			if got := rec[i].kinds(); i != 1 && got != want {
				t.Errorf("in the end %d: %q, want %q", i, got, want)
			}
		}
		r.mode(ls[3], queue.EX)
		r.h.Release(ls[3])
		r.empty()
	})
}

// TestEnqueueFails: an asynchronous request that is refused later says so.
func TestEnqueueFails(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.lock(ino, queue.EX, 1)
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		if err := r.h.Enqueue(call(2), l, lockd.Request{Ino: ino, Mode: queue.EX}); err != nil {
			t.Fatal(err)
		}
		go r.h.Drain(r.ctx(time.Second))
		synctest.Wait()
		list := rec.take()
		if len(list) != 1 || list[0].Kind != lockd.NoticeFailed || list[0].Err != lockd.ErrDraining || list[0].Wanted != queue.EX {
			t.Errorf("told %+v", list)
		}
	})
}

// TestListenerMayCall: a listener may release and ask from within a notice.
func TestListenerMayCall(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		l := new(lockd.Lock)
		l.Listener = listenFunc(func(n lockd.Notice) {
			if n.Kind == lockd.NoticeBlocking {
				r.h.Release(l)
			}
		})
		if err := r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX}); err != nil {
			t.Fatal(err)
		}
		r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
	})
}

type listenFunc func(lockd.Notice)

func (f listenFunc) Notice(n lockd.Notice) { f(n) }

// TestInterruptsRaceGrants lets many ask, be interrupted, run out of time, convert and let go at random. At no time two have
// what excludes the other, and in the end nothing is left.
func TestInterruptsRaceGrants(t *testing.T) {
	seed := seedOf(t, 0)
	bubble(t, func(r *rig) {
		files := []uint64{r.make("/d/a"), r.make("/d/b"), r.make("/d/")}
		var users [3][queue.EX + 1]atomic.Int32
		check := func(f int, mode queue.Mode, delta int32) {
			users[f][mode].Add(delta)
			for other := queue.NL; delta > 0 && other <= queue.EX; other++ {
				n := users[f][other].Load()
				if other == mode {
					n--
				}
				if n > 0 && !queue.Compatible(mode, other) {
					t.Errorf("%v and %v at once", mode, other)
				}
			}
		}
		var work sync.WaitGroup
		for g := range uint32(16) {
			work.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(g)))
				for range 200 {
					cancel := make(chan struct{})
					c := &lockd.Call{PID: g + 1, Cancel: cancel}
					if rnd.IntN(2) == 0 {
						time.AfterFunc(time.Duration(rnd.IntN(2000))*time.Microsecond, func() { close(cancel) })
					}
					f, mode := rnd.IntN(3), modes[rnd.IntN(len(modes))]
					req := lockd.Request{Ino: files[f], Mode: mode, Wait: time.Duration(rnd.IntN(3)) * time.Millisecond}
					if rnd.IntN(2) == 0 {
						req.Linger = time.Millisecond
					}
					var l lockd.Lock
					err := r.h.Lock(c, &l, req)
					if err == lockd.ErrInterrupted && rnd.IntN(2) == 0 {
						err = r.h.Lock(&lockd.Call{PID: g + 1}, &l, req)
					}
					if err != nil {
						if l.Mode() != queue.None {
							t.Errorf("%v, and mode %v", err, l.Mode())
						}
						continue
					}
					check(f, mode, 1)
					time.Sleep(time.Duration(rnd.IntN(1500)) * time.Microsecond)
					to := modes[rnd.IntN(len(modes))]
					check(f, mode, -1)
					if err := r.h.Convert(c, &l, to, 0, time.Millisecond); err == nil {
						mode = to
					}
					if l.Mode() != mode {
						t.Errorf("mode %v, want %v", l.Mode(), mode)
					}
					check(f, mode, 1)
					time.Sleep(time.Duration(rnd.IntN(500)) * time.Microsecond)
					check(f, mode, -1)
					r.h.Release(&l)
				}
			})
		}
		work.Wait()
		time.Sleep(time.Second) // for what lingers
		r.empty()
		for _, ino := range files {
			r.h.Release(r.lock(ino, queue.EX, 99))
		}
	})
}

// TestReleaseRacesWait: another thread closes the descriptor while one waits on it.
func TestReleaseRacesWait(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		holder := r.lock(ino, queue.EX, 1)
		waiting := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		r.h.Release(waiting.l)
		waiting.ends(lockd.ErrInterrupted)
		r.h.Release(holder)
		r.empty()
	})
}

func TestWarmPathAllocatesNothing(t *testing.T) {
	h, inos := startBench(t, 1)
	var l lockd.Lock
	c := &lockd.Call{PID: 1}
	n := testing.AllocsPerRun(200, func() {
		if err := h.Lock(c, &l, lockd.Request{Ino: inos[0], Mode: queue.EX}); err != nil {
			t.Fatal(err)
		}
		if err := h.Check(&l); err != nil {
			t.Fatal(err)
		}
		h.Release(&l)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestThreadEnds: the thread that asked is gone, its process still is the owner.
func TestThreadEnds(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.procs.set(func(p *processes) { p.of[5], p.of[6] = 1, 1 })
		l := r.lock(ino, queue.EX, 5)
		time.Sleep(time.Second)
		r.procs.set(func(p *processes) { p.gone[5] = true })
		if list := r.h.Locks(ino); list[0].PID != 5 || list[0].Tgid != 1 || list[0].Comm != "commB" {
			t.Errorf("listed as %+v", list[0])
		}
		r.ask(6, lockd.Request{Ino: ino, Mode: queue.PR}).ends(lockd.ErrDeadlock)
		r.h.Release(l)
		if list := r.h.Locks(ino); len(list) != 0 {
			t.Errorf("left: %+v", list)
		}
	})
}

// TestPendingLimit: commands under way are bounded.
func TestPendingLimit(t *testing.T) {
	bubbleWith(t, lockd.Config{Limits: lockd.Limits{Pending: 1000}}, func(r *rig) {
		ino := r.make("/a")
		r.m.SetDelay(time.Second)
		big := strings.Repeat("x", 600)
		commit := func(c *lockd.Call, _ *lockd.Lock) error {
			_, err := r.h.Do(c, appendTo(ino, big))
			return err
		}
		first := r.asks(1, nil, commit).waits()
		r.asks(2, nil, commit).ends(lockd.ErrNoQuorum)
		first.ends(nil)
		r.asks(2, nil, commit).ends(nil)
	})
}
