package table

import (
	"fmt"
	"runtime"
	"testing"
	"unsafe"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// small is a tree of a few nodes: ino to parent.
type small map[uint64]uint64

func (s small) Parent(ino uint64) (uint64, bool) { p, ok := s[ino]; return p, ok }
func (s small) Ephemeral(uint64) bool            { return false }

// grantAll answers all proposals as a state without any other host would.
func grantAll(t *Table, seq *uint64) (events []Event) {
	for {
		out := t.Take()
		events = append(events, out.Events...)
		if len(out.Proposals) == 0 {
			return events
		}
		for _, cmd := range out.Proposals {
			*seq++
			cmd.Session, cmd.Seq = t.session, *seq
		}
		for _, cmd := range out.Proposals {
			switch op := cmd.Op.(type) {
			case *statepb.Command_Acquire:
				for _, s := range op.Acquire.Steps {
					t.Applied(state.Change{Kind: state.HostGranted, Session: cmd.Session, Ino: s.Ino, Mode: queue.Mode(s.Want), Raise: cmd.Seq})
				}
			case *statepb.Command_Release:
				t.Applied(state.Change{Kind: state.HostLowered, Session: cmd.Session, Ino: op.Release.Ino, Mode: queue.Mode(op.Release.Keep)})
			}
			t.Applied(state.Change{Kind: state.Done, Session: cmd.Session, Seq: cmd.Seq})
		}
	}
}

// warm returns a table that has EX of inode depth+1, that many levels below the root, idle.
func warm(tb testing.TB, depth int) (*Table, *Lock) {
	tree := small{1: 0}
	for i := range uint64(depth) {
		tree[i+2] = i + 1
	}
	t := New(Config{Tree: tree})
	t.Session(7, 0)
	l := &Lock{Ino: uint64(depth) + 1}
	t.Request(l, queue.EX, 0, nil)
	var seq uint64
	grantAll(t, &seq)
	if l.Mode != queue.EX {
		tb.Fatal("not granted")
	}
	t.Release(l)
	grantAll(t, &seq)
	return t, l
}

func TestWarmTry(t *testing.T) {
	tab, l := warm(t, 2)
	once := func() {
		if !tab.Try(l, queue.EX, 0) {
			t.Fatal("not granted from the cache")
		}
		tab.Release(l)
		if tab.Pending() {
			t.Fatalf("output: %+v", tab.Take())
		}
	}
	once()
	if n := testing.AllocsPerRun(100, once); n > 0 {
		t.Errorf("%v allocations an open and release, want none", n)
	}
}

func BenchmarkOpenRelease(b *testing.B) {
	for _, depth := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			tab, l := warm(b, depth)
			b.ReportAllocs()
			seq := uint64(100)
			for b.Loop() {
				if !tab.Try(l, queue.EX, 0) { // once in a million: the token's counter is full
					tab.Request(l, queue.EX, 0, nil)
					grantAll(tab, &seq)
				}
				tab.Release(l)
			}
		})
	}
}

// BenchmarkConvert is flock -s and flock -x on a descriptor that has a mode.
func BenchmarkConvert(b *testing.B) {
	tab, l := warm(b, 2)
	b.ReportAllocs()
	seq := uint64(100)
	tab.Try(l, queue.PR, 0)
	for b.Loop() {
		if !tab.TryConvert(l, queue.EX, 0) {
			tab.Convert(l, queue.EX, 0, nil)
			grantAll(tab, &seq)
		}
		tab.TryConvert(l, queue.PR, 0)
	}
}

// BenchmarkHandOff is a lock that goes from one process of the host to the next, who waits for it.
func BenchmarkHandOff(b *testing.B) {
	tab, first := warm(b, 2)
	second := &Lock{Ino: first.Ino}
	b.ReportAllocs()
	seq := uint64(100)
	tab.Try(first, queue.EX, 0)
	for b.Loop() {
		tab.Request(second, queue.EX, 0, nil)
		tab.Release(first)
		grantAll(tab, &seq)
		if second.Mode != queue.EX {
			b.Fatal("not granted")
		}
		first, second = second, first
	}
}

// BenchmarkManyLocks holds 100,000 locks of as many files and reports the bytes of each.
func BenchmarkManyLocks(b *testing.B) {
	const n = 100_000
	tree := small{1: 0, 2: 1}
	for i := range uint64(n) {
		tree[i+3] = 2
	}
	var bytes uint64
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		tab := New(Config{Tree: tree})
		tab.Session(7, 0)
		locks := make([]Lock, n)
		var seq uint64
		for i := range locks {
			locks[i].Ino = uint64(i) + 3
			tab.Request(&locks[i], queue.EX, 0, nil)
			grantAll(tab, &seq)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		bytes = after.HeapAlloc - before.HeapAlloc
		if tab.Len() != n {
			b.Fatal("not all are granted")
		}
		runtime.KeepAlive(locks)
	}
	b.ReportMetric(float64(bytes)/n, "B/lock")
	b.ReportMetric(float64(unsafe.Sizeof(Lock{})), "B/Lock-struct")
	b.ReportMetric(float64(unsafe.Sizeof(resource{})), "B/resource-struct")
}
