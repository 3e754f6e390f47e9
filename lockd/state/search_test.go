package state

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// tangle is a state with many waits, for the search for deadlocks.
type tangle struct {
	*State
	seqs
	testing.TB
	batch []any
	id    uint64
}

// newTangle returns a state with two sessions and a directory of so many files, the first with inode 3.
func newTangle(tb testing.TB, files int) *tangle {
	s, q := world(tb, 0, false)
	t := &tangle{State: s, seqs: *q, TB: tb}
	for i := range files {
		t.do(1, &statepb.Make{Parent: Root, Name: fmt.Appendf(nil, "f%d", i), Dir: i == 0})
	}
	t.flush(1)
	return t
}

func (t *tangle) do(session uint64, op any) {
	if t.batch = append(t.batch, op); len(t.batch) == 64 {
		t.flush(session)
	}
}

func (t *tangle) flush(session uint64) []Change {
	defer func() { t.batch = nil }()
	return t.seqs.batch(t, t.State, session, t.batch...)
}

func (t *tangle) has(pid int, ino uint64, mode queue.Mode) {
	t.id++
	t.do(1, &statepb.Report{Set: []*statepb.Reported{{
		Ino: ino, Id: t.id, Kind: uint32(ReportHeld), Mode: uint32(mode), Tgid: uint32(pid), Pid: uint32(pid),
	}}})
}

// wait returns the report of a wait.
func (t *tangle) wait(pid int, ino uint64, mode queue.Mode) *statepb.Reported {
	t.id++
	return &statepb.Reported{
		Ino: ino, At: ino, Id: t.id, Kind: uint32(ReportWait), Mode: uint32(mode), Tgid: uint32(pid), Pid: uint32(pid), Rank: int64(t.id),
	}
}

func (t *tangle) waits(pid int, ino uint64, mode queue.Mode) {
	t.do(1, &statepb.Report{Set: []*statepb.Reported{t.wait(pid, ino, mode)}})
}

// BenchmarkDeadlockSearch tells of one more wait, and that it is over, in a state with 10,000 waits: where nobody waits for the new
// one (which spares it the search), where it can reach all others, and where it closes a cycle of all.
func BenchmarkDeadlockSearch(b *testing.B) {
	const n = 10_000
	for _, bench := range []struct {
		name  string
		build func(t *tangle) (pid int, ino uint64)
	}{
		{"empty", func(t *tangle) (int, uint64) { return 1, 4 }},
		{"queue", func(t *tangle) (int, uint64) { // all wait for one lock
			t.has(1, 4, queue.EX)
			for i := range n {
				t.waits(2+i, 4, queue.EX)
			}
			return n + 2, 4
		}},
		{"queue-behind", func(t *tangle) (int, uint64) { // and the last one has what another waits for
			t.has(1, 4, queue.EX)
			t.has(n+2, 5, queue.EX)
			for i := range n {
				t.waits(2+i, 4, queue.EX)
			}
			t.waits(n+3, 5, queue.EX)
			return n + 2, 4
		}},
		{"chain", func(t *tangle) (int, uint64) { // each waits for the next one
			for i := range n + 1 {
				t.has(1+i, uint64(4+i), queue.EX)
			}
			for i := range n - 1 {
				t.waits(1+i, uint64(4+i+1), queue.EX)
			}
			t.has(n+2, n+100, queue.EX)
			t.waits(n+3, n+100, queue.EX)
			return n + 2, 4
		}},
		{"cycle", func(t *tangle) (int, uint64) {
			for i := range n + 1 {
				t.has(1+i, uint64(4+i), queue.EX)
			}
			for i := range n {
				t.waits(1+i, uint64(4+i+1), queue.EX)
			}
			return n + 1, 4
		}},
		{"shared", func(t *tangle) (int, uint64) { // 10,000 have a lock and wait for another
			t.has(1, 4, queue.EX)
			for i := range n {
				t.has(2+i, 5, queue.PR)
				t.waits(2+i, 4, queue.EX)
			}
			t.has(n+2, 6, queue.EX)
			t.waits(n+3, 6, queue.EX)
			return n + 2, 5
		}},
		{"dense", func(t *tangle) (int, uint64) { // 100 files, each had by 100 who wait for the next file, each in its queue
			for i := range 100 {
				for j := range 100 {
					t.has(2+i*100+j, uint64(4+i), queue.CR)
					t.waits(2+i*100+j, uint64(4+i+1), queue.EX)
				}
			}
			t.has(1, 110, queue.EX)
			t.waits(n+3, 110, queue.EX)
			return 1, 4
		}},
		{"directory", func(t *tangle) (int, uint64) { // one who wants all, and those below who have and want something there
			for i := range n {
				t.has(2+i, uint64(4+i%1000), queue.CR)
				t.waits(2+i, uint64(4+i%1000+1), queue.EX)
			}
			t.has(1, 2000, queue.EX)
			t.waits(n+3, 2000, queue.EX)
			return 1, Root
		}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			t := newTangle(b, n+200)
			pid, ino := bench.build(t)
			t.flush(1)
			t.View()
			b.ReportAllocs()
			for b.Loop() {
				w := t.wait(pid, ino, queue.EX)
				t.do(1, &statepb.Report{Set: []*statepb.Reported{w}})
				t.flush(1)
				t.do(1, &statepb.Report{Gone: []*statepb.ReportKey{{Ino: w.Ino, Id: w.Id}}})
				t.flush(1)
			}
		})
	}
}

// TestSearchPutOff: an entry that would lead to a long search leaves some of it to the next ones, on all hosts alike.
func TestSearchPutOff(t *testing.T) {
	const n, most = 1000, 60
	x := newTangle(t, n+2*most+10)
	for i := range n {
		x.has(1+i, uint64(4+i), queue.EX)
		if i > 0 {
			x.waits(i, uint64(4+i), queue.EX)
		}
	}
	var many []*statepb.Reported
	for i := range most { // each goes to the begin of the chain, and is waited for
		x.has(n+1+i, uint64(4+n+i), queue.EX)
		x.waits(2*n+i, uint64(4+n+i), queue.EX)
		many = append(many, x.wait(n+1+i, 4, queue.EX))
	}
	x.flush(1)
	many[most-1].Rank = 0                                                                // else it would be behind the others, and all of them in the cycle
	x.do(1, &statepb.Report{Set: append(many, x.wait(n, uint64(4+n+most-1), queue.EX))}) // the end of the chain waits for the last of them
	x.flush(1)
	left := len(x.cur.unsearched)
	if left == 0 || len(x.cur.suspicions) > 0 {
		t.Fatalf("%d searches are left, %d suspicions", left, len(x.cur.suspicions))
	}
	other := reread(t, x.State)
	for range 100 {
		if err := x.Check(); err != nil {
			t.Fatal(err)
		}
		x.do(1, &statepb.Barrier{})
		x.flush(1)
		if len(x.cur.unsearched) >= left {
			t.Fatalf("%d searches are left, before that %d", len(x.cur.unsearched), left)
		}
		if left = len(x.cur.unsearched); left == 0 {
			break
		}
	}
	if len(x.cur.suspicions) != 1 || len(x.cur.suspicions[0].Links) != n+1 {
		t.Errorf("suspicions %v", x.cur.suspicions)
	}
	y := &tangle{State: other, seqs: x.seqs, TB: t}
	y.seqs.index, y.last[1] = other.cur.index, x.last[1]-(x.seqs.index-other.cur.index)
	for y.seqs.index < x.seqs.index {
		y.do(1, &statepb.Barrier{})
		y.flush(1)
	}
	if x.View().Digest() != y.View().Digest() {
		t.Error("a host that began from a snapshot has come to another state")
	}
}

// reread returns the state as a snapshot brings it.
func reread(t *testing.T, s *State) *State {
	var buf bytes.Buffer
	if _, err := s.View().WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	x, err := Read(&buf)
	if err != nil {
		t.Fatal(err)
	}
	return x
}
