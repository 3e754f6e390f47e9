package lockd_test

import (
	"context"
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

// TestRenewalsKeepStep: hosts that came at different times renew at the same, so that their leader has one entry for all.
func TestRenewalsKeepStep(t *testing.T) {
	bubble(t, func(r *rig) {
		members := []*lockdtest.Member{r.m}
		for i := range 4 {
			time.Sleep(430 * time.Millisecond)
			_, m := r.start(lockd.Config{Name: string(rune('b' + i))})
			members = append(members, m)
		}
		time.Sleep(10 * time.Second)
		was := map[*lockdtest.Member]int{}
		for _, m := range members {
			was[m] = m.Renewals()
		}
		rounds := 0
		for range 1000 {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			renewed := 0
			for _, m := range members {
				if n := m.Renewals(); n != was[m] {
					was[m] = n
					renewed++
				}
			}
			if renewed != 0 {
				rounds++
			}
			if renewed != 0 && renewed != len(members) {
				t.Errorf("%d of %d hosts renewed", renewed, len(members))
			}
		}
		if rounds < 4 || rounds > 6 {
			t.Errorf("renewed %d times in 10 s", rounds)
		}
	})
}

// TestLease walks through renewal, jeopardy, safe, jeopardy and the end.
func TestLease(t *testing.T) {
	bubble(t, func(r *rig) {
		ino, cold := r.make("/a"), r.make("/b")
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		if err := r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX}); err != nil {
			t.Fatal(err)
		}
		r.h.Release(r.lock(cold, queue.EX, 2))
		time.Sleep(time.Minute)
		if n := r.m.Renewals(); n < 27 || n > 35 {
			t.Errorf("%d renewals in a minute", n)
		}
		first := r.h.Session()
		r.m.SetDeaf(true) // renewals get there, but their answers do not
		time.Sleep(6 * time.Second)
		if got := rec.kinds(); got != "jeopardy" {
			t.Errorf("half-way: told %q", got)
		}
		if err := r.h.Check(l); err != nil {
			t.Errorf("half-way: %v", err)
		}
		warm := r.ask(3, lockd.Request{Ino: cold, Mode: queue.EX}).waits() // cached, but nothing is granted
		r.m.SetDeaf(false)
		warm.ends(nil)
		if got := rec.kinds(); got != "safe" {
			t.Errorf("renewed: told %q", got)
		}
		r.h.Release(warm.l)
		var lost atomic.Int32
		r.m.SetDeaf(true)
		start := time.Now()
		waiting := r.ask(4, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		for r.h.Check(l) == nil {
			time.Sleep(10 * time.Millisecond)
		}
		if d := time.Since(start); d < 7500*time.Millisecond || d > 9800*time.Millisecond {
			t.Errorf("the lease ended after %v", d)
		}
		synctest.Wait()
		time.Sleep(50 * time.Millisecond)
		if l.Err() != lockd.ErrLost || r.h.Fresh() == nil || r.h.LeaseLeft() != 0 || r.h.Session() != 0 {
			t.Errorf("after the end: %v, fresh %v, left %v, session %d", l.Err(), r.h.Fresh(), r.h.LeaseLeft(), r.h.Session())
		}
		if got := rec.kinds(); got != "blocking:EX jeopardy lost" {
			t.Errorf("at the end: told %q", got)
		}
		waiting.waits()
		r.m.SetDeaf(false)
		waiting.ends(nil)
		if r.h.Session() == first || r.h.Session() == 0 || r.h.Fresh() != nil {
			t.Errorf("session %d after %d, fresh %v", r.h.Session(), first, r.h.Fresh())
		}
		if !r.h.View().Node(ino).Invalid {
			t.Error("the value that was held EX is valid")
		}
		r.h.Release(l)
		r.h.Release(waiting.l)
		r.empty()
		_ = lost.Load()
	})
}

// TestStoppedClock: the process was stopped for longer than its lease. The first thing that it does is not done by what it
// knew before, though no goroutine has looked at the clock yet.
func TestStoppedClock(t *testing.T) {
	for _, test := range []struct {
		name string
		f    func(r *rig, l, m *lockd.Lock, ino uint64) error
		want error
	}{
		{"check", func(r *rig, l, m *lockd.Lock, ino uint64) error { return r.h.Check(l) }, lockd.ErrLost},
		{"fresh", func(r *rig, l, m *lockd.Lock, ino uint64) error { return r.h.Fresh() }, lockd.ErrNoQuorum},
		{"convert", func(r *rig, l, m *lockd.Lock, ino uint64) error { return r.h.Convert(call(1), l, queue.EX, 0, 0) }, lockd.ErrLost},
		{"try", func(r *rig, l, m *lockd.Lock, ino uint64) error {
			return r.h.Lock(call(1), m, lockd.Request{Ino: ino, Mode: queue.PR, Flags: queue.NoQueue})
		}, lockd.ErrBusy},
		{"commit", func(r *rig, l, m *lockd.Lock, ino uint64) error {
			_, err := r.h.Commit(nil, l, &statepb.Commit{Ino: ino, Change: &statepb.Commit_Whole{}})
			return err
		}, lockd.ErrLost},
	} {
		t.Run(test.name, func(t *testing.T) {
			var ahead atomic.Int64
			synctest.Test(t, func(t *testing.T) {
				log := lockdtest.New()
				defer log.Close()
				h, m, err := log.Start(lockd.Config{Now: func() int64 { return time.Now().UnixNano() + ahead.Load() }})
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				r := &rig{T: t, log: log, h: h, m: m, procs: newProcesses()}
				ino := r.make("/a")
				l, other := r.lock(ino, queue.PR, 1), new(lockd.Lock)
				m.SetCut(true)
				ahead.Store(int64(time.Hour))
				if err := test.f(r, l, other, ino); err != test.want {
					t.Errorf("%v, want %v", err, test.want)
				}
				m.SetCut(false)
				h.Release(l)
			})
		})
	}
}

// TestStoppedRelease: a RELEASE read after the lease's end hands nothing on.
func TestStoppedRelease(t *testing.T) {
	var ahead atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		log := lockdtest.New()
		defer log.Close()
		h, m, err := log.Start(lockd.Config{Now: func() int64 { return time.Now().UnixNano() + ahead.Load() }})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		r := &rig{T: t, log: log, h: h, m: m, procs: newProcesses()}
		ino := r.make("/a")
		l := r.lock(ino, queue.EX, 1)
		waiting := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		m.SetCut(true)
		ahead.Store(int64(time.Hour))
		h.Release(l)
		waiting.waits()
		old := waiting.l.Token()
		m.SetCut(false)
		waiting.ends(nil)
		if waiting.l.Token() <= old || h.Check(waiting.l) != nil {
			t.Errorf("token %d, %v", waiting.l.Token(), h.Check(waiting.l))
		}
		h.Release(waiting.l)
	})
}

// TestProbe: a part of the daemon that does not answer costs the session.
func TestProbe(t *testing.T) {
	bubble(t, func(r *rig) {
		var alive atomic.Bool
		alive.Store(true)
		remove := r.h.AddProbe(alive.Load)
		l := r.lock(r.make("/a"), queue.EX, 1)
		time.Sleep(time.Minute)
		if err := r.h.Check(l); err != nil {
			t.Fatal(err)
		}
		if s := r.h.Silent(); s > time.Second {
			t.Errorf("all answer, silent for %v", s)
		}
		alive.Store(false)
		time.Sleep(11 * time.Second)
		if s := r.h.Silent(); s < 10*time.Second {
			t.Errorf("one does not answer, silent for %v", s)
		}
		if err := r.h.Check(l); err != lockd.ErrLost {
			t.Errorf("nobody answers: %v", err)
		}
		remove()
		r.h.Release(l)
		time.Sleep(time.Minute)
		l = r.lock(r.make("/a"), queue.EX, 1)
		time.Sleep(time.Minute)
		if err := r.h.Check(l); err != nil {
			t.Errorf("without the probe: %v", err)
		}
	})
}

// TestOnLost is called once a loss, and a waiting conversion is lost with its lock.
func TestOnLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := lockdtest.New()
		defer log.Close()
		m := log.Member()
		h := lockd.New(lockd.Config{Name: "host1", Log: m, Now: func() int64 { return time.Now().UnixNano() }})
		m.Attach(h)
		var lost, entries int
		h.OnLost(func() { lost++ })
		h.OnChange(func(index uint64, changes []state.Change, _ []any) {
			if h.View().Index() != index {
				t.Errorf("told of %d while the view is at %d", index, h.View().Index())
			}
			entries++
		})
		r := &rig{T: t, log: log, h: h, m: m, procs: newProcesses()}
		if err := h.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		ino := r.make("/a")
		l, other := r.lock(ino, queue.PR, 1), r.lock(ino, queue.PR, 2)
		up := r.converting(l, 1, queue.EX, 0).waits()
		log.EndSession(h.Session())
		up.ends(lockd.ErrLost)
		synctest.Wait()
		if lost != 1 || entries == 0 || other.Err() != lockd.ErrLost {
			t.Errorf("lost %d, entries %d, %v", lost, entries, other.Err())
		}
	})
}

// TestFormerSessions: what a restarted daemon does about those of its former self.
func TestFormerSessions(t *testing.T) {
	for _, test := range []struct {
		name string
		boot string
		gone bool
		ends bool
	}{
		{"rebooted", "another boot", false, true},
		{"nobody has the old mount", "boot", true, true},
		{"somebody has the old mount", "boot", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := lockdtest.New()
				defer log.Close()
				log.Command(&statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: "host1", Nonce: 7, BootId: test.boot}}})
				log.Command(&statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: "host2", Nonce: 8, BootId: "x"}}})
				synctest.Wait()
				h, _, err := log.Start(lockd.Config{BootID: "boot", FormerGone: test.gone, Now: func() int64 { return time.Now().UnixNano() }})
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				synctest.Wait()
				_, former := h.View().Session(1)
				_, other := h.View().Session(2)
				if former == test.ends || !other {
					t.Errorf("the former session lives: %v; the other host's: %v", former, other)
				}
			})
		})
	}
}

// TestSessionTTL: the cluster is told how long the session lasts, never less than what the host goes by itself.
func TestSessionTTL(t *testing.T) {
	for _, test := range []struct{ asked, session, lease time.Duration }{
		{0, 10 * time.Second, 9750 * time.Millisecond},
		{4 * time.Second, 4 * time.Second, 3900 * time.Millisecond},
		{100 * time.Millisecond, state.MinTTL, 97500 * time.Microsecond},
		{2 * time.Hour, state.MaxTTL, state.MaxTTL * 39 / 40},
	} {
		synctest.Test(t, func(t *testing.T) {
			log := lockdtest.New()
			defer log.Close()
			opened := time.Now()
			h, m, err := log.Start(lockd.Config{SessionTTL: test.asked, Now: func() int64 { return time.Now().UnixNano() }})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			if s, _ := h.View().Session(h.Session()); s.TTL != test.session {
				t.Errorf("%v asked for: %v", test.asked, s.TTL)
			}
			m.SetCut(true)
			for h.Session() != 0 {
				time.Sleep(test.lease / 1000)
			}
			if lasted := time.Since(opened); lasted < test.lease || lasted > test.lease+test.lease/5+10*time.Millisecond {
				t.Errorf("%v asked for: the lease lasted %v, want %v", test.asked, lasted, test.lease)
			}
		})
	}
}

// TestLateOpen: opening a session takes long; a session opened by an attempt given up is ended, not leaked.
func TestLateOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := lockdtest.New()
		defer log.Close()
		m := log.Member()
		h := lockd.New(lockd.Config{Name: "host1", Log: m, Now: func() int64 { return time.Now().UnixNano() }})
		m.Attach(h)
		m.SetDeaf(true)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		started := make(chan error, 1)
		go func() { started <- h.Start(ctx) }()
		time.Sleep(20 * time.Second)
		m.SetDeaf(false)
		if err := <-started; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(5 * time.Second)
		n := 0
		for s := range h.View().Sessions() {
			if n++; s.ID != h.Session() {
				t.Errorf("session %d is left, the host's is %d", s.ID, h.Session())
			}
		}
		if n != 1 {
			t.Errorf("%d sessions", n)
		}
		h.Close()
	})
}

// TestNoRoomForSession: a session that is refused is asked for again.
func TestNoRoomForSession(t *testing.T) {
	bubble(t, func(r *rig) {
		if _, err := r.h.Do(nil, &statepb.Command{Op: &statepb.Command_SetLimits{SetLimits: &statepb.SetLimits{Sessions: 1}}}); err != nil {
			t.Fatal(err)
		}
		m := r.log.Member()
		h := lockd.New(lockd.Config{Name: "host2", Log: m, Now: func() int64 { return time.Now().UnixNano() }})
		m.Attach(h)
		defer h.Close()
		if err := h.Start(r.ctx(5 * time.Second)); err != context.DeadlineExceeded || h.Session() != 0 {
			t.Fatalf("started: %v, session %d", err, h.Session())
		}
		r.h.Close()
		time.Sleep(time.Second)
		if _, lives := h.View().Session(h.Session()); !lives {
			t.Errorf("session %d", h.Session())
		}
	})
}

// TestSessionOpenedTwice: an opening that was proposed twice, and is applied once more when its session has ended,
// leaves none behind.
func TestSessionOpenedTwice(t *testing.T) {
	bubble(t, func(r *rig) {
		first, _ := r.h.View().Session(r.h.Session())
		again := &statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: "host1", Nonce: first.Nonce}}}
		l := r.lock(r.make("/a"), queue.EX, 1)
		r.log.Command(again)
		synctest.Wait()
		if r.h.Session() != first.ID || r.h.Check(l) != nil {
			t.Errorf("session %d after %d, %v", r.h.Session(), first.ID, r.h.Check(l))
		}
		r.log.EndSession(first.ID)
		r.log.Command(again)
		time.Sleep(time.Second)
		for s := range r.log.View().Sessions() {
			if s.ID != r.h.Session() {
				t.Errorf("session %d is left, the host's is %d", s.ID, r.h.Session())
			}
		}
		r.h.Release(l)
	})
}

func TestStartErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := lockdtest.New()
		defer log.Close()
		if err := lockd.New(lockd.Config{}).Start(context.Background()); err == nil {
			t.Error("started without a log")
		}
		m := log.Member()
		m.SetCut(true)
		h := lockd.New(lockd.Config{Name: "host1", Log: m, Now: func() int64 { return time.Now().UnixNano() }})
		m.Attach(h)
		var l lockd.Lock
		if err := h.Lock(nil, &l, lockd.Request{Ino: 1, Mode: queue.NL}); err != lockd.ErrClosed {
			t.Errorf("lock before Start: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		if err := h.Start(ctx); err != context.DeadlineExceeded {
			t.Errorf("start without a leader: %v", err)
		}
		if err := h.Start(ctx); err != lockd.ErrClosed {
			t.Errorf("second start: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if _, err := h.Do(nil, appendTo(1, "")); err != lockd.ErrClosed {
			t.Errorf("do after close: %v", err)
		}
	})
}

// TestDrain: new requests are refused, holders have time, and what is left is lost.
func TestDrain(t *testing.T) {
	bubble(t, func(r *rig) {
		a, b := r.make("/a"), r.make("/b")
		la, lb := r.lock(a, queue.EX, 1), r.lock(b, queue.EX, 2)
		waiting := r.ask(3, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		done := make(chan struct{})
		start := time.Now()
		go func() { r.h.Drain(r.ctx(10 * time.Second)); close(done) }()
		waiting.ends(lockd.ErrDraining)
		r.ask(4, lockd.Request{Ino: a, Mode: queue.CR}).ends(lockd.ErrDraining)
		if err := r.h.Convert(call(1), la, queue.PR, 0, 0); err != nil {
			t.Errorf("down-conversion while draining: %v", err)
		}
		if err := r.h.Convert(call(1), la, queue.EX, 0, 0); err != lockd.ErrDraining {
			t.Errorf("up-conversion while draining: %v", err)
		}
		if _, err := r.h.Commit(nil, lb, &statepb.Commit{Ino: b, Change: &statepb.Commit_Whole{Whole: []byte("v")}}); err != nil {
			t.Errorf("commit while draining: %v", err)
		}
		r.h.Release(lb)
		<-done
		if d := time.Since(start); d != 10*time.Second {
			t.Errorf("drained for %v", d)
		}
		if la.Err() != lockd.ErrLost {
			t.Errorf("what is left: %v", la.Err())
		}
		if err := r.h.Close(); err != nil {
			t.Error(err)
		}
		if v := r.log.View(); v.Node(b).Invalid || string(v.Node(b).Value) != "v" {
			t.Errorf("value %q, invalid %v", v.Node(b).Value, v.Node(b).Invalid)
		}
		for s := range r.log.View().Sessions() {
			t.Errorf("session %d is left", s.ID)
		}
	})
}

// TestDrainIdle ends as soon as the last lock goes.
func TestDrainIdle(t *testing.T) {
	bubble(t, func(r *rig) {
		l := r.lock(r.make("/a"), queue.EX, 1)
		time.AfterFunc(time.Second, func() { r.h.Release(l) })
		start := time.Now()
		r.h.Drain(r.ctx(10 * time.Second))
		if d := time.Since(start); d != time.Second {
			t.Errorf("drained for %v", d)
		}
	})
}

// TestCloseWithoutQuorum ends all the same.
func TestCloseWithoutQuorum(t *testing.T) {
	bubble(t, func(r *rig) {
		l := r.lock(r.make("/a"), queue.EX, 1)
		r.m.SetCut(true)
		start := time.Now()
		if err := r.h.Close(); err != lockd.ErrNoQuorum {
			t.Errorf("close: %v", err)
		}
		if d := time.Since(start); d != 5*time.Second {
			t.Errorf("it took %v", d)
		}
		if l.Err() != lockd.ErrLost {
			t.Errorf("lock: %v", l.Err())
		}
	})
}

// TestTryOnAnIdleHost: a try has its time from when it is made, however long ago the ticker ran.
func TestTryOnAnIdleHost(t *testing.T) {
	bubbleWith(t, lockd.Config{SessionTTL: time.Minute}, func(r *rig) {
		inos := make([]uint64, 20)
		for i := range inos {
			inos[i] = r.make("/" + string(rune('a'+i)))
		}
		r.start(lockd.Config{Name: "b", SessionTTL: time.Minute})
		r.m.SetDelay(20 * time.Millisecond)
		for i, ino := range inos {
			time.Sleep(4130 * time.Millisecond)
			l := &lockd.Lock{}
			if err := r.h.Lock(call(uint32(i+1)), l, lockd.Request{Ino: ino, Mode: queue.EX, Flags: queue.NoQueue}); err != nil {
				t.Errorf("try %d of a lock that nobody has: %v", i, err)
			}
		}
	})
}
