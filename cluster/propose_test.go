package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// fakeFuture is the outcome of an entry, known once done is closed.
type fakeFuture struct {
	done chan struct{}
	err  error
	resp any
}

func (f *fakeFuture) Error() error  { <-f.done; return f.err }
func (f *fakeFuture) Response() any { return f.resp }
func (f *fakeFuture) Index() uint64 { return 0 }

func ended(err error, resp any) *fakeFuture {
	f := &fakeFuture{done: make(chan struct{}), err: err, resp: resp}
	close(f.done)
	return f
}

func same(err error) error { return err }

func TestProposerKeepsOrder(t *testing.T) {
	var applied, reported []string
	var mu sync.Mutex
	p := newProposer(func(e []byte) raft.ApplyFuture {
		applied = append(applied, string(e))
		return ended(nil, nil)
	}, same, time.Minute)
	var want []string
	for i := range 1000 {
		if i == 300 {
			p.gate(true)
		}
		e := fmt.Sprint(i)
		want = append(want, e)
		p.propose([]byte(e), func(err error) {
			mu.Lock()
			defer mu.Unlock()
			reported = append(reported, e)
			if err != nil {
				t.Error(err)
			}
		})
	}
	synctestWait(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(reported) == len(want) })
	p.close()
	if !slices.Equal(applied, want) || !slices.Equal(reported, want) {
		t.Fatal("out of order")
	}
}

// synctestWait waits outside a bubble, by yielding to what is known to end.
func synctestWait(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never ended")
		}
	}
}

func TestProposerWithoutLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProposer(func([]byte) raft.ApplyFuture { return ended(nil, nil) }, same, 5*time.Second)
		start := time.Now()
		type outcome struct {
			err error
			at  time.Duration
		}
		var got [3]outcome
		for i := range got {
			p.propose(nil, func(err error) { got[i] = outcome{err, time.Since(start)} })
			time.Sleep(2 * time.Second)
		}
		time.Sleep(2 * time.Second) // 8 s: the first two are over
		synctest.Wait()
		p.gate(true)
		synctest.Wait()
		for i, want := range []outcome{{ErrNoLeader, 5 * time.Second}, {ErrNoLeader, 7 * time.Second}, {nil, 8 * time.Second}} {
			if !errors.Is(got[i].err, want.err) || got[i].at != want.at {
				t.Errorf("%d: %+v, want %+v", i, got[i], want)
			}
		}
		p.gate(false)
		closed := make(chan error, 1)
		p.propose(nil, func(err error) { closed <- err })
		p.close()
		if err := <-closed; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		p.propose(nil, func(err error) { closed <- err })
		if err := <-closed; !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

func TestProposerBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProposer(func([]byte) raft.ApplyFuture { return ended(nil, nil) }, same, time.Second)
		errs := make(chan error, 100)
		big := make([]byte, maxWaitingBytes/4)
		for range 5 {
			p.propose(big, func(err error) { errs <- err })
		}
		if err := <-errs; !errors.Is(err, ErrTooMany) {
			t.Error(err)
		}
		time.Sleep(2 * time.Second) // these are over, and their bytes count no more
		synctest.Wait()
		for range 4 {
			if err := <-errs; !errors.Is(err, ErrNoLeader) {
				t.Error(err)
			}
		}
		p.gate(true)
		p.propose(big, func(err error) { errs <- err })
		if err := <-errs; err != nil {
			t.Error(err)
		}
		p.close()
	})
}

func TestProposerErrors(t *testing.T) {
	for _, x := range []struct {
		err  error
		resp any
		want error
	}{
		{nil, nil, nil},
		{nil, errSum, errSum},
		{raft.ErrNotLeader, nil, ErrNoLeader},
		{raft.ErrLeadershipLost, nil, ErrNoLeader},
		{raft.ErrRaftShutdown, nil, ErrClosed},
		{errEntry, nil, errEntry},
	} {
		p := newProposer(func([]byte) raft.ApplyFuture { return ended(x.err, x.resp) }, same, time.Second)
		p.gate(true)
		got := make(chan error)
		p.propose(nil, func(err error) { got <- err })
		if err := <-got; !errors.Is(err, x.want) {
			t.Errorf("%v, %v: %v, want %v", x.err, x.resp, err, x.want)
		}
		p.close()
	}
}
