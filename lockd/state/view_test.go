package state

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

func TestViewReaders(t *testing.T) {
	s, q := world(t, 5, true)
	q.apply(t, s, 2, &statepb.Acquire{Steps: []*statepb.Step{{Ino: 3, Want: uint32(queue.PR)}}})
	v := s.View()
	if v != s.View() {
		t.Error("two views of one state")
	}
	var names []string
	for n := range v.ReadDir(2, "file1") {
		names = append(names, n.Name)
		if len(names) == 2 {
			break
		}
	}
	if want := []string{"file2", "file3"}; !slices.Equal(names, want) {
		t.Errorf("entries after file1: %v, want %v", names, want)
	}
	for range v.ReadDir(99, "") {
		t.Error("an entry in nothing")
	}
	if got := v.Ancestors(nil, 3); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("ancestors %v", got)
	}
	if got := v.Ancestors([]uint64{7}, 99); !slices.Equal(got, []uint64{7}) {
		t.Errorf("ancestors of nothing %v", got)
	}
	if v.Path(3) != "/dir0/file0" || v.Path(Root) != "/" || v.Path(99) != "" {
		t.Errorf("paths %q %q %q", v.Path(3), v.Path(Root), v.Path(99))
	}
	if x, ok := v.Session(2); !ok || x.Host != "b" || x.Locks != 1 {
		t.Errorf("session 2: %+v", x)
	}
	if _, ok := v.Session(3); ok {
		t.Error("a session that is not there")
	}
	if v.HostLock(3, 1) != queue.EX || v.HostLock(3, 2) != queue.None || v.HostWait(3, 2) != queue.PR || v.HostWait(3, 1) != queue.None {
		t.Error("host locks of 3")
	}
	recalls := slices.Collect(v.Recalls(3, 1))
	if len(recalls) != 1 || recalls[0].By != 2 || recalls[0].Wanted != queue.PR || recalls[0].Try {
		t.Errorf("recalls %v", recalls)
	}
	for l := range v.HostLocks(3) {
		if l.Session == 1 && l.Token(v.TokenBase()) != l.Raise<<20 {
			t.Errorf("token of %+v", l)
		}
	}
	if n, bytes := v.Counts(); n != 7 || bytes != 0 {
		t.Errorf("%d nodes, %d bytes", n, bytes)
	}
	if !v.Formatted() || v.Limits() != DefaultLimits() || v.Index() != q.index {
		t.Error("formatted, limits or index")
	}
}

func TestCodes(t *testing.T) {
	for c := range numCodes {
		if c.String() == "" {
			t.Errorf("code %d has no name", c)
		}
		if (c.Err() == nil) != (c == OK || c == Waiting) {
			t.Errorf("%v as an error is %v", c, c.Err())
		}
	}
	for k := Done; k < numKinds; k++ {
		if k.String() == fmt.Sprint("kind ", uint8(k)) {
			t.Errorf("kind %d has no name", k)
		}
	}
	if !errors.Is(fmt.Errorf("x: %w", Busy), Busy) {
		t.Error("a wrapped code is not found")
	}
}

// TestViewsAreShared reads views while entries are applied; the race detector looks on.
func TestViewsAreShared(t *testing.T) {
	s, q := world(t, 200, true)
	views := make(chan *View, 4)
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for v := range views {
				if err := v.Check(); err != nil {
					t.Error(err)
				}
				if first, again := v.Digest(), v.Digest(); first != again {
					t.Error("a view has changed")
				}
			}
		})
	}
	for i := range 60 {
		ino := uint64(3 + i)
		q.apply(t, s, 2, &statepb.Acquire{Steps: []*statepb.Step{{Ino: ino, Want: uint32(queue.EX)}}})
		q.apply(t, s, 1, &statepb.Release{Ino: ino})
		q.apply(t, s, 2, &statepb.Commit{Ino: ino, Change: &statepb.Commit_Whole{Whole: []byte{byte(i)}}})
		q.apply(t, s, 2, &statepb.RangeLock{Ino: 3, Owner: uint64(i), End: 9})
		q.apply(t, s, 1, &statepb.Make{Parent: 2, Name: fmt.Appendf(nil, "new%d", i)})
		views <- s.View()
	}
	close(views)
	readers.Wait()
}
