package lockd_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
)

// lockRange lets a goroutine lock a range.
func (r *rig) lockRange(ino uint64, want lockd.Range, wait bool) *asking {
	return r.asks(want.PID, nil, func(c *lockd.Call, _ *lockd.Lock) error {
		_, err := r.h.LockRange(c, ino, want, wait)
		return err
	})
}

func TestRanges(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		one := lockd.Range{Owner: 1, Write: true, Start: 0, End: 99, PID: 11}
		two := lockd.Range{Owner: 2, Write: true, Start: 50, End: 149, PID: 12}
		r.lockRange(ino, one, false).ends(nil)
		r.lockRange(ino, two, false).ends(lockd.ErrBusy)
		held, host, ok := r.h.TestRange(ino, two)
		if !ok || host != "host1" || held.PID != 11 || held.Start != 0 || held.End != 99 || !held.Write {
			t.Errorf("in the way: %+v of %s, %v", held, host, ok)
		}
		if _, _, ok := r.h.TestRange(ino, one); ok {
			t.Error("an owner is in its own way")
		}
		waiting := r.lockRange(ino, two, true).waits()
		if err := r.h.UnlockRange(nil, ino, lockd.Range{Owner: 1, Start: 40, End: 99}); err != nil {
			t.Error(err)
		}
		waiting.ends(nil)
		r.h.DropRanges(ino, 2)
		r.h.DropRanges(ino, 77) // has nothing
		r.lockRange(ino, lockd.Range{Owner: 3, Start: 40, End: state.MaxRange, PID: 13}, false).ends(nil)
		r.h.DropRanges(ino, 1)
		r.h.DropRanges(ino, 3)
		synctest.Wait()
		for x := range r.h.View().Ranges(ino) {
			t.Errorf("left: %+v", x)
		}
	})
}

// TestRangeInterrupted: withdrawn, and nobody is held up by it.
func TestRangeInterrupted(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.lockRange(ino, lockd.Range{Owner: 1, Start: 0, End: 9}, false).ends(nil)
		two := r.lockRange(ino, lockd.Range{Owner: 2, Write: true, Start: 0, End: 9, PID: 2}, true).waits()
		close(two.cancel)
		two.ends(lockd.ErrInterrupted)
		r.h.DropRanges(ino, 1)
		synctest.Wait()
		for x := range r.h.View().Ranges(ino) {
			t.Errorf("granted to nobody: %+v", x)
		}
		for x := range r.h.View().RangeWaits(ino) {
			t.Errorf("waits: %+v", x)
		}
	})
}

// TestRangeInterruptRacesGrant: the interrupt comes when the grant is in the log already, but not applied here.
func TestRangeInterruptRacesGrant(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.lockRange(ino, lockd.Range{Owner: 1, Start: 0, End: 9}, false).ends(nil)
		two := r.lockRange(ino, lockd.Range{Owner: 2, Write: true, Start: 0, End: 9, PID: 2}, true).waits()
		r.m.SetDeaf(true)
		r.h.DropRanges(ino, 1)
		synctest.Wait()
		close(two.cancel)
		synctest.Wait()
		r.m.SetDeaf(false)
		two.ends(nil)
		n := 0
		for range r.h.View().Ranges(ino) {
			n++
		}
		if n != 1 {
			t.Errorf("%d ranges", n)
		}
	})
}

// TestRangeInterruptedBeforeAnswer: without quorum, the command that asked may still come to the log. Nothing must be left of it.
func TestRangeInterruptedBeforeAnswer(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		r.m.SetDeaf(true)
		a := r.lockRange(ino, lockd.Range{Owner: 1, Write: true, Start: 0, End: 9, PID: 2}, true).waits()
		close(a.cancel)
		a.ends(lockd.ErrInterrupted)
		r.m.SetDeaf(false)
		synctest.Wait()
		time.Sleep(time.Second)
		for x := range r.h.View().Ranges(ino) {
			t.Errorf("granted to nobody: %+v", x)
		}
	})
}

func TestRangeDeadlock(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		at := func(owner, start uint64) lockd.Range {
			return lockd.Range{Owner: owner, Write: true, Start: start, End: start, PID: uint32(owner)}
		}
		r.lockRange(ino, at(1, 0), false).ends(nil)
		r.lockRange(ino, at(2, 1), false).ends(nil)
		a := r.lockRange(ino, at(1, 1), true).waits()
		r.lockRange(ino, at(2, 0), true).ends(lockd.ErrDeadlock)
		r.h.DropRanges(ino, 2)
		a.ends(nil)
	})
}

// TestRangeOutlastsSession: what is held is lost, what waits goes on waiting in the next session.
func TestRangeOutlastsSession(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		other, _ := r.start(lockd.Config{Name: "host2"})
		if _, err := other.LockRange(nil, ino, lockd.Range{Owner: 1, Write: true, Start: 0, End: 9}, false); err != nil {
			t.Fatal(err)
		}
		a := r.lockRange(ino, lockd.Range{Owner: 1, Write: true, Start: 0, End: 9, PID: 2}, true).waits()
		r.log.EndSession(r.h.Session())
		synctest.Wait()
		a.waits()
		if _, host, ok := r.h.TestRange(ino, lockd.Range{Owner: 1, Start: 0, End: 1}); !ok || host != "host2" {
			t.Errorf("in the way: %q, %v", host, ok)
		}
		other.DropRanges(ino, 1)
		a.ends(nil)
	})
}
