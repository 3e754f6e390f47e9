package state

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// world is a state with directories of 1000 files each, and two sessions.
func world(tb testing.TB, files int, lock bool) (*State, *seqs) {
	s, q := New(), &seqs{}
	q.apply(tb, s, 0, &statepb.OpenSession{Host: "a", Nonce: 1})
	q.apply(tb, s, 0, &statepb.OpenSession{Host: "b", Nonce: 2})
	var dir uint64
	for i := range files {
		if i%1000 == 0 {
			dir = s.cur.nextIno
			q.apply(tb, s, 1, &statepb.Make{Parent: Root, Name: fmt.Appendf(nil, "dir%d", i/1000), Dir: true})
		}
		q.apply(tb, s, 1, &statepb.Make{Parent: dir, Name: fmt.Appendf(nil, "file%d", i%1000), Perm: 0o644, Lock: lock})
		if i%256 == 0 {
			s.View()
		}
	}
	return s, q
}

// seqs applies commands in their sequence.
type seqs struct {
	index uint64
	last  [3]uint64
}

func (q *seqs) apply(tb testing.TB, s *State, session uint64, op any) []Change {
	return q.batch(tb, s, session, op)
}

func (q *seqs) batch(tb testing.TB, s *State, session uint64, ops ...any) []Change {
	cmds := make([]*statepb.Command, len(ops))
	for i, op := range ops {
		cmds[i] = operationOf(op)
		if session != 0 {
			q.last[session]++
			cmds[i].Session, cmds[i].Seq = session, q.last[session]
		}
		cmds[i].TimeUnixNs = 1
	}
	q.index++
	changes, err := s.Apply(q.index, Encode(cmds))
	if err != nil {
		tb.Fatal(err)
	}
	return changes
}

// BenchmarkApply applies entries of one command each, in a tree of 100,000 files, and publishes the view after each. Encoding is
// in the time, as a yardstick see BenchmarkEncode.
func BenchmarkApply(b *testing.B) {
	const files = 100_000
	s, q := world(b, files, false)
	run := func(name string, each func(q *seqs, s *State, i int)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				each(q, s, i)
				s.View()
			}
		})
	}
	file := func(i int) uint64 { return uint64(3 + i*7919%90_000) }
	acquire := func(ino uint64) *statepb.Acquire {
		return &statepb.Acquire{Steps: []*statepb.Step{{Ino: ino, Want: uint32(queue.EX)}}}
	}
	run("acquire+release", func(q *seqs, s *State, i int) {
		q.apply(b, s, 1, acquire(file(i)))
		s.View()
		q.apply(b, s, 1, &statepb.Release{Ino: file(i)})
	})
	run("handoff", func(q *seqs, s *State, i int) { // each takes it from the other, who waits for it again
		if i == 0 {
			q.apply(b, s, 1, &statepb.Release{Ino: 3})
			q.apply(b, s, 2, &statepb.Release{Ino: 3})
			q.apply(b, s, 1, acquire(3))
			q.apply(b, s, 2, acquire(3))
		}
		from := uint64(1 + i%2)
		q.batch(b, s, from, &statepb.Release{Ino: 3}, acquire(3))
	})
	run("commit", func(q *seqs, s *State, i int) {
		q.apply(b, s, 1, &statepb.Commit{Ino: file(i), Posix: true, Change: &statepb.Commit_Whole{Whole: []byte("a value of some bytes")}})
	})
	run("make+remove", func(q *seqs, s *State, i int) {
		name := fmt.Appendf(nil, "new%d", i)
		q.apply(b, s, 1, &statepb.Make{Parent: 2, Name: name, Lock: true})
		s.View()
		q.apply(b, s, 1, &statepb.Remove{Parent: 2, Name: name})
	})
	run("rangelock+unlock", func(q *seqs, s *State, i int) {
		q.apply(b, s, 1, &statepb.RangeLock{Ino: file(i), Owner: 1, Write: true, End: 9})
		s.View()
		q.apply(b, s, 1, &statepb.RangeUnlock{Ino: file(i), Owner: 1, All: true})
	})
	run("batch-64-acquires", func(q *seqs, s *State, i int) {
		ops := make([]any, 64)
		for k := range ops {
			if i%2 == 0 {
				ops[k] = acquire(file(i/2*64 + k))
			} else {
				ops[k] = &statepb.Release{Ino: file(i/2*64 + k)}
			}
		}
		q.batch(b, s, 1, ops...)
	})
}

func BenchmarkEncode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		c := operationOf(&statepb.Acquire{Steps: []*statepb.Step{{Ino: 3, Want: uint32(queue.EX)}}})
		c.Session, c.Seq, c.TimeUnixNs = 1, 7, 1
		Encode([]*statepb.Command{c})
	}
}

func BenchmarkLookup(b *testing.B) {
	s, _ := world(b, 100_000, false)
	v := s.View()
	b.ReportAllocs()
	for b.Loop() {
		if v.Lookup(2, "file500") == nil {
			b.Fatal("not there")
		}
	}
}

func BenchmarkSnapshot(b *testing.B) {
	s, _ := world(b, 100_000, true)
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			s.View().WriteTo(io.Discard)
		}
	})
	var buf bytes.Buffer
	s.View().WriteTo(&buf)
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := Read(bytes.NewReader(buf.Bytes())); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestMemory reports the bytes that a small file takes with its name, its value and one host lock, and sees to it that they
// do not become many more.
func TestMemory(t *testing.T) {
	const files = 100_000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s, q := world(t, files, true)
	locked := heap()
	v := s.View()
	for ino := range v.nodes.Keys() {
		if n := v.Node(uint64(ino + 1)); n != nil && !n.Dir {
			q.apply(t, s, 1, &statepb.Commit{Ino: n.Ino, Change: &statepb.Commit_Whole{Whole: []byte("16 bytes of text")}})
		}
	}
	v = nil
	s.View()
	valued := heap()
	each := (locked - before) / files
	t.Logf("a file with its name and one host lock: %d bytes; with a value of 16 bytes: %d", each, (valued-before)/files)
	if each > 360 {
		t.Errorf("%d bytes a file, at most 360 are to be", each)
	}
	runtime.KeepAlive(s)
}
