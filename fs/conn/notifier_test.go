package conn

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

// recorder is the kernel of a Notifier: it keeps what is written, each when it is let through.
type recorder struct {
	*Notifier
	gate chan struct{} // nil: all pass
	mu   sync.Mutex
	got  []string
}

func newRecorder(gate chan struct{}) *recorder {
	r := &recorder{gate: gate}
	r.Notifier = newNotifier(func(v *invalidation) {
		if r.gate != nil {
			<-r.gate
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, v.String())
	}, func(kh uint64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.got = append(r.got, fmt.Sprint("poll ", kh))
	})
	return r
}

func (v *invalidation) String() string {
	switch v.kind {
	case inode:
		return fmt.Sprintf("inode %d %d+%d", v.ino, v.off, v.length)
	case entry:
		return fmt.Sprintf("entry %d/%s %d", v.ino, v.name, v.flags)
	default:
		return fmt.Sprintf("delete %d/%s %d", v.ino, v.name, v.child)
	}
}

func (r *recorder) want(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.got, want) {
		t.Errorf("written %q, want %q", r.got, want)
	}
}

func TestNotifierJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(nil)
		defer r.end()
		r.Inode(1, 7, -1, 0)
		r.Entry(2, 1, "a", ExpireOnly)
		r.Inode(3, 7, 0, 10)  // pages, with the attributes
		r.Inode(4, 7, 10, 10) // two ranges: all
		r.Entry(5, 1, "a", 0) // more than expire
		r.Inode(6, 8, 5, 5)
		r.Inode(7, 8, -1, 0)
		r.Delete(8, 1, 9, "a")
		r.Delete(9, 1, 9, "a")
		r.Poll(3)
		r.Poll(3)
		r.start()
		synctest.Wait()
		slices.Sort(r.got)
		r.want(t, "delete 1/a 9", "entry 1/a 0", "inode 7 0+0", "inode 8 5+5", "poll 3")
	})
}

func TestNotifierWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		r := newRecorder(gate)
		defer r.end()
		r.start()
		if !r.Settled(1 << 60) {
			t.Error("nothing is queued, yet not settled")
		}
		r.Inode(0, 5, 0, 0) // nobody waits for index 0
		synctest.Wait()
		if !r.Settled(1 << 60) {
			t.Error("index 0 counts")
		}
		for i := range 3 {
			r.Entry(uint64(10+i), 1, fmt.Sprint(i), 0)
		}
		r.Entry(20, 1, "0", 0) // joins that of 10
		for index, settled := range map[uint64]bool{9: true, 10: false, 12: false, 100: false} {
			if r.Settled(index) != settled {
				t.Errorf("settled up to %d: %v", index, !settled)
			}
		}

		begin := time.Now()
		if r.Wait(10, nil, time.Second) || time.Since(begin) != time.Second {
			t.Errorf("Wait ended after %v", time.Since(begin))
		}
		cancel := make(chan struct{})
		close(cancel)
		if r.Wait(10, cancel, time.Second) {
			t.Error("cancelled, yet true")
		}

		waited := make(chan bool)
		go func() { waited <- r.Wait(11, nil, time.Hour) }()
		gate <- struct{}{} // inode 5
		gate <- struct{}{} // 0
		synctest.Wait()
		if !r.Settled(10) || r.Settled(11) {
			t.Errorf("low is %d", r.low.Load())
		}
		// While 1 is being written it is queued again: its wait is not over with the old write.
		r.Entry(11, 1, "1", 0)
		gate <- struct{}{} // 1
		gate <- struct{}{} // 2
		synctest.Wait()
		select {
		case <-waited:
			t.Error("Wait ended before the second write of 1")
		default:
		}
		gate <- struct{}{}
		if !<-waited || !r.Settled(100) {
			t.Error("not settled at the end")
		}
		r.want(t, "inode 5 0+0", "entry 1/0 0", "entry 1/1 0", "entry 1/2 0", "entry 1/1 0")

		r.Entry(30, 1, "x", 0)
		go func() { waited <- r.Wait(30, nil, time.Hour) }()
		synctest.Wait()
		go r.end()
		synctest.Wait()
		if !<-waited {
			t.Error("the end of the Notifier is not the end of the wait")
		}
		close(gate)
	})
}

// TestNotifierSettles queues and waits at random: Wait is never over before what was queued has been written after it
// was queued, and always over in the end.
func TestNotifierSettles(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	rapid.Check(t, func(t *rapid.T) {
		var mu sync.Mutex
		written := map[string]int{} // how often
		n := newNotifier(func(v *invalidation) {
			mu.Lock()
			defer mu.Unlock()
			written[v.String()]++
		}, func(uint64) {})
		n.start()
		defer n.end()
		index := uint64(1)
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			index += uint64(rapid.IntRange(0, 2).Draw(t, "log moves"))
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
			key := fmt.Sprintf("entry 1/%s 0", name)
			mu.Lock()
			before := written[key]
			mu.Unlock()
			n.Entry(index, 1, name, 0)
			if rapid.Bool().Draw(t, "wait") {
				if !n.Wait(index, nil, time.Minute) {
					t.Fatal("Wait gave up")
				}
				mu.Lock()
				if written[key] <= before {
					t.Fatalf("%s: waited for index %d, but not written", key, index)
				}
				mu.Unlock()
			}
		}
		if !n.Wait(index, nil, time.Minute) || !n.Settled(index) {
			t.Fatal("not settled")
		}
	})
}

func BenchmarkSettled(b *testing.B) {
	n := newNotifier(func(*invalidation) {}, func(uint64) {})
	for b.Loop() {
		if !n.Wait(1000, nil, time.Second) {
			b.Fatal("not settled")
		}
	}
}

func BenchmarkNotifierQueue(b *testing.B) {
	n := newNotifier(func(*invalidation) {}, func(uint64) {})
	n.start()
	defer n.end()
	b.ReportAllocs()
	index := uint64(0)
	for b.Loop() {
		index++
		n.Inode(index, index%100, 0, 0)
	}
}
