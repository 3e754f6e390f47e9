package queue

import (
	"fmt"
	"testing"
	"unsafe"
)

// lock stands for a descriptor's lock: its address is its identity.
type lock struct{ _ [8]uint64 }

// crowd returns a queue on which n locks have CR.
func crowd(n int) (*Queue[*lock], []*lock) {
	q := New[*lock](EX)
	locks := make([]*lock, n)
	for i := range locks {
		locks[i] = new(lock)
		q.TryGrant(Request[*lock]{Holder: locks[i], Mode: CR})
	}
	return &q, locks
}

// BenchmarkTryRelease is the hot path: a lock is taken and let go, with so many
// others granted.
func BenchmarkTryRelease(b *testing.B) {
	for _, n := range []int{0, 1, 15, 100, 10_000} {
		b.Run(fmt.Sprintf("holders=%d", n), func(b *testing.B) {
			q, _ := crowd(n)
			mode := PR
			if n == 0 {
				mode = EX
			}
			l := new(lock)
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := q.TryGrant(Request[*lock]{Holder: l, Mode: mode}); !ok {
					b.Fatal("not granted")
				}
				q.Release(l)
			}
		})
	}
}

// BenchmarkTryRefused is a try that finds the lock taken.
func BenchmarkTryRefused(b *testing.B) {
	q, _ := crowd(10_000)
	l := new(lock)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := q.TryGrant(Request[*lock]{Holder: l, Mode: EX}); ok {
			b.Fatal("granted")
		}
	}
}

// BenchmarkIntent is what a lock costs on each of its ancestors.
func BenchmarkIntent(b *testing.B) {
	q, _ := crowd(0)
	l := new(lock)
	b.ReportAllocs()
	for b.Loop() {
		q.TryGrant(Request[*lock]{Holder: l, Mode: CW, Shared: true})
		q.ReleaseShared(CW)
	}
}

// BenchmarkConvert goes up and down in place.
func BenchmarkConvert(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("holders=%d", n), func(b *testing.B) {
			q, locks := crowd(n)
			b.ReportAllocs()
			for b.Loop() {
				q.Convert(Request[*lock]{Holder: locks[0], Mode: PW})
				q.Convert(Request[*lock]{Holder: locks[0], Mode: CR})
			}
		})
	}
}

// BenchmarkHandOff: the holder lets go, the first of n waiters gets the lock, and
// the old holder waits again, last.
func BenchmarkHandOff(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("waiters=%d", n), func(b *testing.B) {
			q := New[*lock](EX)
			locks := make([]*lock, n+1)
			for i := range locks {
				locks[i] = new(lock)
				q.Request(Request[*lock]{Holder: locks[i], Mode: EX})
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if g := q.Release(locks[i]); len(g) != 1 {
					b.Fatal(g)
				}
				q.Request(Request[*lock]{Holder: locks[i], Mode: EX})
				if i++; i > n {
					i = 0
				}
			}
		})
	}
}

// BenchmarkBlockedRelease is a release that makes no room, with so many waiting.
func BenchmarkBlockedRelease(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("waiters=%d", n), func(b *testing.B) {
			q := New[*lock](EX)
			q.AddShared(CR)
			for range n {
				q.Request(Request[*lock]{Holder: new(lock), Mode: EX})
			}
			b.ReportAllocs()
			for b.Loop() {
				q.AddShared(CR)
				q.ReleaseShared(CR)
			}
		})
	}
}

// BenchmarkCycle looks for a deadlock at the conversion that closes none, with so
// many new requests waiting.
func BenchmarkCycle(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprintf("waiters=%d", n), func(b *testing.B) {
			q := New[int](EX)
			q.Request(Request[int]{Holder: 1, Mode: PR})
			q.Request(Request[int]{Holder: 2, Mode: PR})
			q.Convert(Request[int]{Holder: 1, Mode: EX})
			for i := range n {
				q.Request(Request[int]{Holder: 10 + i, Mode: EX})
			}
			b.ReportAllocs()
			for b.Loop() {
				if q.Cycle(1) != nil {
					b.Fatal("cycle")
				}
			}
		})
	}
}

// BenchmarkClone is what the state pays before it changes a queue: two hosts with
// intents and one that waits.
func BenchmarkClone(b *testing.B) {
	q := New[uint64](EX)
	q.Request(Request[uint64]{Holder: 1, Mode: CW})
	q.Request(Request[uint64]{Holder: 2, Mode: CW})
	q.Request(Request[uint64]{Holder: 3, Mode: EX})
	b.ReportAllocs()
	for b.Loop() {
		c := q.Clone()
		c.Release(3)
	}
	b.ReportMetric(float64(unsafe.Sizeof(q)), "B/queue")
}

// TestHotPathAllocatesNothing holds the promise of the package comment.
func TestHotPathAllocatesNothing(t *testing.T) {
	q, locks := crowd(1000)
	l := new(lock)
	own := []*lock{locks[0], locks[1]}
	for name, f := range map[string]func(){
		"take and release": func() {
			q.TryGrant(Request[*lock]{Holder: l, Mode: PR})
			q.Release(l)
		},
		"refused": func() { q.TryGrant(Request[*lock]{Holder: l, Mode: EX, Own: own}) },
		"intent": func() {
			q.TryGrant(Request[*lock]{Holder: l, Mode: CW, Shared: true})
			q.ReleaseShared(CW)
		},
		"convert": func() {
			q.Convert(Request[*lock]{Holder: locks[5], Mode: PW})
			q.Convert(Request[*lock]{Holder: locks[5], Mode: CR})
		},
		"look": func() {
			q.Granted(l)
			q.InUse()
			q.Head()
			for range q.All() {
			}
			for range q.Blockers(l) {
			}
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
