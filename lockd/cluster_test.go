package lockd_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// askOn lets a goroutine ask another host for a lock.
func (r *rig) askOn(h *lockd.Host, pid uint32, req lockd.Request) *asking {
	return r.asks(pid, new(lockd.Lock), func(c *lockd.Call, l *lockd.Lock) error { return h.Lock(c, l, req) })
}

// TestTwoHosts hands a lock over: recalled when idle, announced when in use, with growing tokens.
func TestTwoHosts(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/a")
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		if err := r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX}); err != nil {
			t.Fatal(err)
		}
		token := l.Token()
		start := time.Now()
		r.askOn(host2, 2, lockd.Request{Ino: ino, Mode: queue.EX, Flags: queue.NoQueue}).ends(lockd.ErrBusy)
		if d := time.Since(start); d > time.Second {
			t.Errorf("the try took %v", d)
		}
		rec.take()
		a := r.askOn(host2, 2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		list := rec.take()
		if len(list) != 1 || list[0].Kind != lockd.NoticeBlocking || list[0].By.Host != "host2" || list[0].Wanted != queue.EX {
			t.Errorf("told %+v", list)
		}
		if _, err := r.h.Commit(nil, l, &statepb.Commit{Ino: ino, Change: &statepb.Commit_Whole{Whole: []byte("v1")}}); err != nil {
			t.Fatal(err)
		}
		r.h.Release(l)
		a.ends(nil)
		if a.l.Token() <= token {
			t.Errorf("token %d after %d", a.l.Token(), token)
		}
		if got := string(host2.View().Node(ino).Value); got != "v1" {
			t.Errorf("the grant came with %q", got)
		}
		host2.Release(a.l)
		// Idle on host2 now: a try recalls it.
		r.ask(3, lockd.Request{Ino: ino, Mode: queue.EX, Flags: queue.NoQueue}).ends(nil)
	})
}

// TestRemoveRecalls: what another host merely caches is given up for a removal, what it uses is not.
func TestRemoveRecalls(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, m2 := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/d/a")
		dir := r.make("/d/")
		remove := func() (time.Duration, error) {
			start := time.Now()
			_, err := r.h.Remove(nil, &statepb.Remove{Parent: dir, Name: []byte("a")})
			return time.Since(start), err
		}
		a := r.askOn(host2, 2, lockd.Request{Ino: ino, Mode: queue.EX}).ends(nil)
		if d, err := remove(); err != lockd.ErrBusy || d > 1100*time.Millisecond {
			t.Errorf("in use elsewhere: %v after %v", err, d)
		}
		if err := host2.Check(a.l); err != nil {
			t.Errorf("its lock: %v", err)
		}
		host2.Release(a.l)
		m2.SetDeaf(true)
		m2.SetCut(true)
		if d, err := remove(); err != lockd.ErrBusy || d < 900*time.Millisecond || d > 1100*time.Millisecond {
			t.Errorf("the other host is cut off: %v after %v", err, d)
		}
		m2.SetCut(false)
		m2.SetDeaf(false)
		synctest.Wait()
		if d, err := remove(); err != nil || d > time.Second {
			t.Errorf("idle elsewhere: %v after %v", err, d)
		}
		if r.h.View().Node(ino) != nil {
			t.Error("it is there still")
		}
	})
}

func TestRemoveHere(t *testing.T) {
	bubble(t, func(r *rig) {
		ino, dir := r.make("/d/a"), r.make("/d/")
		remove := func(posix bool) error {
			_, err := r.h.Remove(nil, &statepb.Remove{Parent: dir, Name: []byte("a"), Posix: posix})
			return err
		}
		rename := func() error {
			_, err := r.h.Rename(nil, &statepb.Rename{Parent: state.Root, Name: []byte("d"), NewParent: state.Root, NewName: []byte("e")})
			return err
		}
		for _, mode := range modes {
			l := r.lock(ino, mode, 1)
			if err := remove(false); err != lockd.ErrBusy {
				t.Errorf("held %v: %v", mode, err)
			}
			if err := rename(); err != lockd.ErrBusy {
				t.Errorf("%v held below: %v", mode, err)
			}
			r.h.Release(l)
		}
		l := r.lock(dir, queue.EX, 1)
		a := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		if err := remove(false); err != lockd.ErrBusy {
			t.Errorf("awaited: %v", err)
		}
		close(a.cancel)
		a.ends(lockd.ErrInterrupted)
		r.h.Release(l)
		if err := rename(); err != nil {
			t.Errorf("rename: %v", err)
		}
		l = r.lock(ino, queue.EX, 1)
		if err := remove(true); err != nil {
			t.Errorf("posix: %v", err)
		}
		if n := r.h.View().Node(ino); n == nil || n.Orphan == 0 || r.h.Check(l) != nil {
			t.Errorf("the open file: %+v, %v", n, r.h.Check(l))
		}
		r.h.Release(l)
		r.empty()
	})
}

// TestPinnedRequestsQueue: a request that comes while a removal is under way waits for its outcome.
func TestPinnedRequestsQueue(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.h.Release(r.lock(ino, queue.EX, 1))
		r.m.SetDelay(100 * time.Millisecond)
		rm := r.asks(1, nil, func(c *lockd.Call, _ *lockd.Lock) error {
			_, err := r.h.Remove(c, &statepb.Remove{Parent: state.Root, Name: []byte("a")})
			return err
		}).waits()
		a := r.ask(2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		rm.ends(nil)
		a.ends(state.NotFound)
		r.empty()
	})
}

// TestSessionEndsElsewhere: the waiter of another host is granted when the holder's session ends, not before.
func TestSessionEndsElsewhere(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/a")
		l := r.lock(ino, queue.EX, 1)
		a := r.askOn(host2, 2, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		r.m.SetDeaf(true)
		r.m.SetCut(true)
		session := r.h.Session()
		time.Sleep(9800 * time.Millisecond)
		if err := r.h.Check(l); err != lockd.ErrLost {
			t.Errorf("before the cluster ends the session: %v", err)
		}
		a.waits()
		r.log.EndSession(session)
		a.ends(nil)
		if !host2.View().Node(ino).Invalid {
			t.Error("the value is valid")
		}
	})
}
