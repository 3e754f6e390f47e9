package table

import (
	"testing"

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

func warm(tb testing.TB) (*Table, *Lock) {
	t := New(Config{Tree: small{1: 0, 2: 1, 3: 2}})
	t.Session(7, 0)
	l := &Lock{Ino: 3}
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
	tab, l := warm(t)
	for range 3 {
		if !tab.Try(l, queue.EX, 0) {
			t.Fatal("not granted from the cache")
		}
		tab.Release(l)
		if tab.Pending() {
			t.Fatalf("output: %+v", tab.Take())
		}
	}
}

func BenchmarkOpenRelease(b *testing.B) {
	tab, l := warm(b)
	b.ReportAllocs()
	seq := uint64(100)
	for b.Loop() {
		if !tab.Try(l, queue.EX, 0) { // once in a million: the token's counter is full
			tab.Request(l, queue.EX, 0, nil)
			grantAll(tab, &seq)
		}
		tab.Release(l)
	}
}
