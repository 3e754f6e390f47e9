package lockd_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// startBench starts a host with files at /d/0, /d/1 … whose inodes it returns.
func startBench(b testing.TB, files int) (*lockd.Host, []uint64) {
	b.Helper()
	h, _, stop, err := lockdtest.Start(lockd.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(stop)
	dir := benchMake(b, h, state.Root, "d", true)
	inos := make([]uint64, files)
	for i := range inos {
		inos[i] = benchMake(b, h, dir, fmt.Sprint(i), false)
	}
	return h, inos
}

func benchMake(b testing.TB, h *lockd.Host, parent uint64, name string, dir bool) uint64 {
	b.Helper()
	res, err := h.Do(nil, &statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{
		Parent: parent, Name: []byte(name), Dir: dir, Perm: 0o755, Lock: true,
	}}})
	if err != nil {
		b.Fatal(err)
	}
	return res.Ino
}

// BenchmarkWarm takes and releases a lock that the host has cached.
func BenchmarkWarm(b *testing.B) {
	for _, mode := range []queue.Mode{queue.PR, queue.EX} {
		b.Run(mode.String(), func(b *testing.B) {
			h, inos := startBench(b, 1)
			var l lockd.Lock
			call := lockd.Call{PID: 1}
			r := lockd.Request{Ino: inos[0], Mode: mode}
			b.ReportAllocs()
			for b.Loop() {
				if err := h.Lock(&call, &l, r); err != nil {
					b.Fatal(err)
				}
				h.Release(&l)
			}
		})
	}
}

// BenchmarkWarmParallel does so from all processors, each with a file of its own.
func BenchmarkWarmParallel(b *testing.B) {
	h, inos := startBench(b, runtime.GOMAXPROCS(0))
	next := make(chan uint64, len(inos))
	for _, ino := range inos {
		next <- ino
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var l lockd.Lock
		call := lockd.Call{PID: 1}
		r := lockd.Request{Ino: <-next, Mode: queue.EX}
		for pb.Next() {
			if err := h.Lock(&call, &l, r); err != nil {
				b.Error(err)
				return
			}
			h.Release(&l)
		}
	})
}

// BenchmarkHandOff passes a lock between two goroutines that both wait for it.
func BenchmarkHandOff(b *testing.B) {
	h, inos := startBench(b, 1)
	r := lockd.Request{Ino: inos[0], Mode: queue.EX}
	b.SetParallelism(1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var l lockd.Lock
		for pb.Next() {
			if err := h.Lock(nil, &l, r); err != nil {
				b.Error(err)
				return
			}
			h.Release(&l)
		}
	})
}

// BenchmarkConvert goes up and down.
func BenchmarkConvert(b *testing.B) {
	h, inos := startBench(b, 1)
	var l lockd.Lock
	if err := h.Lock(nil, &l, lockd.Request{Ino: inos[0], Mode: queue.PR}); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Convert(nil, &l, queue.EX, 0, 0)
		h.Convert(nil, &l, queue.PR, 0, 0)
	}
}

// BenchmarkCommit commits a value of 64 bytes: through the log in memory and back.
func BenchmarkCommit(b *testing.B) {
	h, inos := startBench(b, 1)
	value := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.Commit(nil, nil, &statepb.Commit{Ino: inos[0], Posix: true, Change: &statepb.Commit_Whole{Whole: value}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheck is what each read and write of a descriptor pays.
func BenchmarkCheck(b *testing.B) {
	h, inos := startBench(b, 1)
	var l lockd.Lock
	h.Lock(nil, &l, lockd.Request{Ino: inos[0], Mode: queue.EX})
	for b.Loop() {
		h.Check(&l)
	}
}

// BenchmarkMemory holds many locks, and reports the bytes of each, the lock itself and its resource included.
func BenchmarkMemory(b *testing.B) {
	const n = 20_000
	for b.Loop() {
		b.StopTimer()
		h, inos := startBench(b, n)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		b.StartTimer()
		locks := make([]*lockd.Lock, n)
		for i, ino := range inos {
			locks[i] = new(lockd.Lock)
			if err := h.Lock(nil, locks[i], lockd.Request{Ino: ino, Mode: queue.EX}); err != nil {
				b.Fatal(err)
			}
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/lock")
		runtime.KeepAlive(locks)
		for _, l := range locks {
			h.Release(l)
		}
		b.StartTimer()
	}
}
