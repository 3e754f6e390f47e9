package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/cluster/clusterpb"
	"github.com/lockfs/lockfs/lockd/state"
)

// TestProposeAnywhere proposes on each of three nodes, and wants it on all.
func TestProposeAnywhere(t *testing.T) {
	c := newTestCluster(t, 3, testOptions{})
	for i, n := range c.nodes {
		insist(t, func() error { return propose(n.Node, openSession(n.name(), uint64(i+1))) })
		var id uint64
		eventually(t, "its session", func() bool {
			for s := range n.view().Sessions() {
				if s.Nonce == uint64(i+1) {
					id = s.ID
				}
			}
			return id != 0
		})
		for k := range uint64(50) {
			insist(t, func() error { return propose(n.Node, makeFile(id, k+1, n.name()+string(rune('0'+k)))) })
		}
	}
	c.agree()
	for _, n := range c.nodes {
		if v := n.view(); v.Lookup(state.Root, "a0") == nil || v.Lookup(state.Root, "b0") == nil || v.Lookup(state.Root, "c0") == nil {
			t.Errorf("%s lacks a file", n.name())
		}
	}
}

// fakeStream is a follower's stream, with the test as the leader.
type fakeStream struct {
	clusterpb.Cluster_ForwardClient
	ctx  context.Context
	sent chan *clusterpb.ForwardIn
	outs chan *clusterpb.ForwardOut
	end  chan error
}

func newFakeStream(ctx context.Context) *fakeStream {
	return &fakeStream{ctx: ctx, sent: make(chan *clusterpb.ForwardIn), outs: make(chan *clusterpb.ForwardOut), end: make(chan error, 1)}
}

func (s *fakeStream) Context() context.Context { return s.ctx }

func (s *fakeStream) Send(in *clusterpb.ForwardIn) error {
	select {
	case s.sent <- in:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

func (s *fakeStream) Recv() (*clusterpb.ForwardOut, error) {
	select {
	case out := <-s.outs:
		return out, nil
	case err := <-s.end:
		return nil, err
	}
}

// linkTest is a link in fake time.
type linkTest struct {
	*proposer
	duty   *duty
	stream *fakeStream
	cancel context.CancelFunc
	ended  chan error

	mu   sync.Mutex
	done []string // outcomes, as they came
}

func newLinkTest(timeout time.Duration) *linkTest {
	l := &linkTest{ended: make(chan error, 1)}
	l.proposer = newProposer(func([]byte) raft.ApplyFuture { panic("this host does not lead") }, same, timeout)
	l.duty = newDuty(slog.New(slog.DiscardHandler), nil)
	l.duty.kick = l.kickLink
	return l
}

func (l *linkTest) run() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stream, l.cancel = newFakeStream(ctx), cancel
	go func() { l.ended <- newLink(l.proposer, l.duty).run(l.stream) }()
}

// breaks ends the stream.
func (l *linkTest) breaks() {
	l.stream.end <- errors.New("broken")
	l.cancel()
	<-l.ended
}

func (l *linkTest) say(name string) {
	l.propose([]byte(name), func(err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		switch {
		case err == nil:
			l.done = append(l.done, name)
		case errors.Is(err, ErrNoLeader):
			l.done = append(l.done, name+"!")
		default:
			l.done = append(l.done, name+": "+err.Error())
		}
	})
}

func (l *linkTest) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.done, want) {
		t.Errorf("outcomes %q, want %q", l.done, want)
	}
	l.done = nil
}

// next returns the entries of the next message.
func (l *linkTest) next() (all []string) {
	for _, e := range (<-l.stream.sent).Entries {
		all = append(all, string(e.Entry))
	}
	return all
}

func TestLinkOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinkTest(5 * time.Second)
		l.say("a") // waits for the leader
		l.run()
		if got := l.next(); !slices.Equal(got, []string{"a"}) {
			t.Error(got)
		}
		l.say("b")
		l.next()
		l.say("c")
		l.next()
		l.want(t)
		l.stream.outs <- &clusterpb.ForwardOut{Answered: 3, Failed: []*clusterpb.ForwardFailure{{Id: 2, Error: toWire(ErrNoSpace)}}}
		synctest.Wait()
		if len(l.done) != 3 || l.done[0] != "a" || !strings.Contains(l.done[1], ErrNoSpace.Error()) || l.done[2] != "c" {
			t.Errorf("outcomes %q", l.done)
		}
		l.breaks()
		l.close()
	})
}

// TestLinkBreaks: what is not answered fails, with what waits behind it; what comes later waits for the next leader.
func TestLinkBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinkTest(5 * time.Second)
		l.run()
		l.say("a")
		l.next()
		l.say("b") // the sender has it, and is held up
		synctest.Wait()
		l.say("c")
		l.breaks()
		l.want(t, "a!", "b!", "c!")
		l.say("d")
		time.Sleep(2 * time.Second)
		l.run()
		if got := l.next(); !slices.Equal(got, []string{"d"}) {
			t.Error(got)
		}
		l.breaks()
		l.want(t, "d!")
		// Nothing under way: what waits goes on waiting, until its time is over.
		l.run()
		synctest.Wait()
		l.breaks()
		l.say("e")
		time.Sleep(4 * time.Second)
		l.want(t)
		time.Sleep(2 * time.Second)
		l.want(t, "e!")
		l.close()
	})
}

// TestLinkIsBounded: no more goes to the leader than may be under way, in order.
func TestLinkIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinkTest(5 * time.Second)
		var want, got []string
		for i := range 3 * flightEntries {
			want = append(want, fmt.Sprint(i))
			l.say(want[i])
		}
		l.run()
		for len(got) < flightEntries {
			got = append(got, l.next()...)
		}
		synctest.Wait()
		select {
		case in := <-l.stream.sent:
			t.Fatalf("%d more are sent", len(in.Entries))
		default:
		}
		for len(got) < len(want) {
			l.stream.outs <- &clusterpb.ForwardOut{Answered: uint64(len(got))}
			got = append(got, l.next()...)
		}
		l.stream.outs <- &clusterpb.ForwardOut{Answered: uint64(len(got))}
		if !slices.Equal(got, want) {
			t.Error("out of order")
		}
		l.want(t, want...)
		l.breaks()
		l.close()
	})
}

// TestLinkDistrusts an answer to what was never sent.
func TestLinkDistrusts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinkTest(5 * time.Second)
		l.run()
		l.say("a")
		l.next()
		l.stream.outs <- &clusterpb.ForwardOut{Answered: 2}
		if err := <-l.ended; err == nil {
			t.Error("it goes on")
		}
		l.cancel()
		l.want(t, "a!")
		l.close()
	})
}

func TestLinkRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinkTest(5 * time.Second)
		l.duty.renew(1, 10)
		l.duty.renew(1, 11) // nobody leads: the newest is kept
		l.run()
		in := <-l.stream.sent
		if len(in.Renewals) != 1 || in.Renewals[0].Session != 1 || in.Renewals[0].Stamp != 11 {
			t.Errorf("%v", in)
		}
		l.duty.renew(1, 12)
		if in = <-l.stream.sent; len(in.Renewals) != 1 || in.Renewals[0].Stamp != 12 {
			t.Errorf("%v", in)
		}
		l.breaks()
		l.close()
	})
}

// TestForwardedNeverWaits: an entry that another host forwarded fails when the tenure ends, and is not forwarded again.
func TestForwardedNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLinkTest(5 * time.Second)
		put := func() error { return l.put(proposal{entry: []byte("x"), here: true}) }
		if err := put(); !errors.Is(err, ErrNoLeader) {
			t.Errorf("without the lead: %v", err)
		}
		l.proposer.mu.Lock()
		l.proposer.queue = append(l.proposer.queue, proposal{entry: []byte("x"), here: true, done: func(err error) {
			if !errors.Is(err, ErrNoLeader) {
				t.Error(err)
			}
			l.mu.Lock()
			l.done = append(l.done, "x!")
			l.mu.Unlock()
		}})
		l.proposer.bytes++
		l.proposer.mu.Unlock()
		l.say("own")
		l.run()
		if got := l.next(); !slices.Equal(got, []string{"own"}) {
			t.Error(got)
		}
		l.want(t, "x!")
		l.breaks()
		l.want(t, "own!")
		l.close()
	})
}

// TestLagging: a node that missed more than the log keeps gets a snapshot, and its directory passes verification after.
func TestLagging(t *testing.T) {
	c := newTestCluster(t, 3, testOptions{config: func(_ int, c *Config) {
		c.limits = logLimits{entries: 200, bytes: 1 << 40, trailing: 20, trailingBytes: 1 << 30, segment: 32 << 10}
	}})
	lagging := c.followers()[0]
	lagging.stop()
	leader := c.leader()
	insist(t, func() error { return propose(leader.Node, openSession("x", 1)) })
	var id uint64
	for s := range leader.view().Sessions() {
		id = s.ID
	}
	for k := range uint64(1000) {
		insist(t, func() error { return propose(leader.Node, makeFile(id, k+1, fmt.Sprint("f", k))) })
	}
	must(t, leader.Snapshot())
	lagging.again()
	c.agree()
	if st := lagging.Status(); st.Snapshot == 0 {
		t.Errorf("it got no snapshot: %+v", st)
	}
	lagging.stop()
	if _, err := verify(lagging.config.Dir); err != nil {
		t.Fatal(err)
	}
	lagging.again()
	insist(t, func() error { return propose(lagging.Node, makeFile(id, 1001, "last")) })
	c.agree()
}
