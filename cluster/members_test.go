package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// gossipers are hosts in this process that find each other by gossip, on loopback addresses of their own.
type gossipers struct {
	t     testing.TB
	hosts []*gossiper
}

// gossiper is one of them; Node is nil while it is stopped.
type gossiper struct {
	*Node
	all    *gossipers
	config Config
}

func newGossipers(t testing.TB) *gossipers {
	ignore := goleak.IgnoreCurrent()
	// serf and memberlist do not wait for all of their goroutines, some of which sleep for seconds.
	t.Cleanup(func() {
		noLeaks(t, ignore, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probe"),
			goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).pushPullNode"))
	})
	g := &gossipers{t: t}
	t.Cleanup(func() {
		var all sync.WaitGroup
		for _, h := range g.hosts {
			all.Go(h.stop)
		}
		all.Wait()
	})
	return g
}

// host makes a host that does not run yet. It joins those given.
func (g *gossipers) host(name string, join ...*gossiper) *gossiper {
	h := &gossiper{all: g}
	ip := fmt.Sprintf("127.0.11.%d", 10+len(g.hosts))
	h.config = Config{
		Dir: filepath.Join(g.t.TempDir(), "data"), Name: name, Bind: ip + ":0", Gossip: ip + ":0", Voters: 3, Version: "test",
		Logger: testLogger(g.t, func() string { return name }), fastGossip: true,
	}
	for _, j := range join {
		h.config.Join = append(h.config.Join, j.config.Gossip)
	}
	g.hosts = append(g.hosts, h)
	return h
}

// start starts a host, and keeps its addresses for later.
func (h *gossiper) start() *gossiper {
	h.all.t.Helper()
	if err := h.tryStart(); err != nil {
		h.all.t.Fatal(err)
	}
	return h
}

func (h *gossiper) tryStart() error {
	n, err := Open(h.config)
	if err != nil {
		return err
	}
	if err := n.Start(newTestHost()); err != nil {
		n.Close()
		return err
	}
	h.Node = n
	h.config.Bind, h.config.Gossip, h.config.Reset = n.book.own, n.gossip.Addr(), false
	return nil
}

func (h *gossiper) stop() {
	if h.Node == nil {
		return
	}
	if err := h.Close(); err != nil {
		h.all.t.Error(err)
	}
	h.Node = nil
}

// crash stops it without a word in gossip.
func (h *gossiper) crash() {
	h.fail(errors.New("crashed by the test"))
	h.stop()
}

func (h *gossiper) ready() *gossiper {
	h.all.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.Ready(ctx); err != nil {
		h.all.t.Fatal(h.config.Name, ": ", err)
	}
	return h
}

// openSession opens a session for it, so that it counts as alive to the state.
func (h *gossiper) openSession() {
	h.all.t.Helper()
	c := &statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: h.Name(), Nonce: uint64(time.Now().UnixNano())}}}
	if err := proposeTo(h.Node, c); err != nil {
		h.all.t.Fatal(err)
	}
	eventually(h.all.t, "a session", func() bool { return h.hasSession(h.Node.id()) })
}

func proposeTo(n *Node, c *statepb.Command) error {
	done := make(chan error, 1)
	n.Propose(state.Encode([]*statepb.Command{c}), func(err error) { done <- err })
	return <-done
}

// are waits until a host knows of the hosts and roles given, as "a:voter b:nonvoter"; a leader is a voter.
func (h *gossiper) are(want string) {
	h.all.t.Helper()
	got := ""
	defer func() {
		if h.all.t.Failed() {
			h.all.t.Logf("%s has %s, and want %s", h.config.Name, got, want)
		}
	}()
	eventually(h.all.t, h.config.Name+" knows "+want, func() bool {
		var words []string
		for _, s := range h.Hosts() {
			words = append(words, s.Name+":"+strings.Replace(s.Role, "leader", "voter", 1))
		}
		got = strings.Join(words, " ")
		return got == want
	})
}

// one returns the host that leads.
func (g *gossipers) leader() *gossiper {
	g.t.Helper()
	var found *gossiper
	eventually(g.t, "a leader", func() bool {
		for _, h := range g.hosts {
			if h.Node != nil {
				if t, _ := h.tenureState.get(); t != nil {
					found = h
					return true
				}
			}
		}
		return false
	})
	return found
}

// three starts a cluster of three voters a, b, c, of which a founded it.
func (g *gossipers) three() (a, b, c *gossiper) {
	g.t.Helper()
	a = g.host("a").start()
	b = g.host("b", a).start()
	c = g.host("c", a).start()
	for _, h := range g.hosts {
		h.ready()
	}
	for _, h := range g.hosts {
		h.are("a:voter b:voter c:voter")
	}
	return a, b, c
}

func TestHostsJoinInAnyOrder(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a")
	a.config.Bind, a.config.Gossip = freeAddress(t, "127.0.11.10"), freeAddress(t, "127.0.11.10")
	b, c := g.host("b", a).start(), g.host("c", a, a).start()
	if id := b.Identity(); id.Cluster != "" {
		t.Fatal("a host that was to join founded a cluster")
	}
	b.stop()
	b.start()
	a.start().ready()
	b.ready()
	c.ready()
	for _, h := range g.hosts {
		h.are("a:voter b:voter c:voter")
		if h.Identity().Cluster != a.Identity().Cluster {
			t.Error("another cluster")
		}
	}
	for _, h := range []*gossiper{b, a, c} { // restarts, with --join and without
		h.stop()
		h.start().ready()
		h.are("a:voter b:voter c:voter")
	}
}

// freeAddress returns an address that is free.
func freeAddress(t testing.TB, ip string) string {
	t.Helper()
	s, err := listen(ip+":0", "")
	must(t, err)
	defer s.Close()
	return s.Addr().String()
}

func TestSameConfigurationEverywhereAndInit(t *testing.T) {
	g := newGossipers(t)
	var all []*gossiper
	for i, name := range []string{"a", "b", "c"} {
		h := g.host(name)
		h.config.Gossip = freeAddress(t, fmt.Sprintf("127.0.11.%d", 10+i))
		all = append(all, h)
	}
	for _, h := range all {
		for _, o := range all {
			h.config.Join = append(h.config.Join, o.config.Gossip)
		}
		h.start()
	}
	for _, h := range all {
		eventually(t, "gossip", func() bool { return len(h.heard()) == 2 })
	}
	b := all[1]
	must(t, RequestInit(b.config.Dir))
	for _, h := range all {
		h.ready()
	}
	for _, h := range all {
		h.are("a:voter b:voter c:voter")
		if h.Identity().Cluster != b.Identity().Cluster {
			t.Error("another cluster")
		}
	}
	if !b.Identity().Founded || b.Identity().Joined {
		t.Error("b did not found it", b.Identity())
	}
}

func TestInitWhereThereIsAClusterAlready(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start()
	a.ready()
	taken := g.host("a", a).start() // waits, since its name is taken
	eventually(t, "it knows of the cluster", func() bool { return len(taken.heard()) > 0 && taken.heard()[0].Cluster != "" })
	if err := RequestInit(taken.config.Dir); err == nil || !strings.Contains(err.Error(), "there is a cluster already") {
		t.Error(err)
	}
	if id := taken.Identity(); id.Cluster != "" {
		t.Error(id)
	}
}

func TestInitThatNobodyWaitsFor(t *testing.T) {
	dir := t.TempDir()
	if err := RequestInit(dir); err == nil || !strings.Contains(err.Error(), "no daemon was ever started") {
		t.Error(err)
	}
	g := newGossipers(t)
	a := g.host("a").start()
	dir = a.config.Dir
	a.stop()
	if err := RequestInit(dir); err == nil || !strings.Contains(err.Error(), "no daemon is running") {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, initName)); err == nil {
		t.Error("a request is left")
	}
}

func TestTwoClustersNeverMerge(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start()
	x := g.host("a", a)
	x.config.Join = nil
	x.start().ready()
	a.ready()
	x.stop()
	x.config.Join = []string{a.config.Gossip} // it has a cluster: that it is told to join another is of no avail
	x.start().ready()
	w := g.host("a", a, x).start() // its name is taken in both. It hears of both, and must not let them hear of each other
	eventually(t, "w hears of both", func() bool { return len(w.heard()) == 2 })
	b := g.host("b", a).start().ready()
	a.are("a:voter b:voter")
	x.are("a:voter")
	for _, h := range []*gossiper{a, b} {
		for _, m := range h.heard() {
			if m.Cluster == x.Identity().Cluster {
				t.Errorf("%s gossips with %v", h.config.Name, m)
			}
		}
	}
	if id := w.Identity(); id.Cluster != "" {
		t.Error("w joined one of them")
	}
	_, err := b.port.Connect(context.Background(), x.book.own)
	if err == nil || !strings.Contains(err.Error(), "two clusters never merge") {
		t.Error(err)
	}
}

func TestAddressesChange(t *testing.T) {
	g := newGossipers(t)
	a, b, c := g.three()
	move := func(h *gossiper, ip string) {
		h.config.Bind, h.config.Gossip = ip+":0", ip+":0"
	}
	// One, while the others run.
	b.stop()
	move(b, "127.0.11.30")
	b.start().ready()
	for _, h := range g.hosts {
		eventually(t, "the new address", func() bool {
			s, is := h.view().Host(b.id())
			return is && s.Address == b.book.own
		})
	}
	// Everybody, while nobody runs: those with Join find the first by its new address.
	for _, h := range []*gossiper{c, b, a} {
		h.stop()
	}
	move(a, "127.0.11.31")
	move(b, "127.0.11.32")
	move(c, "127.0.11.33")
	a.start()
	b.config.Join, c.config.Join = []string{a.config.Gossip}, []string{a.config.Gossip}
	b.start()
	c.start()
	for _, h := range g.hosts {
		h.ready()
		h.are("a:voter b:voter c:voter")
	}
	for _, h := range g.hosts {
		eventually(t, "the new addresses", func() bool {
			for _, o := range g.hosts {
				if s, is := h.view().Host(o.id()); !is || s.Address != o.book.own {
					return false
				}
			}
			return true
		})
	}
}

// The founder has no Join; when it moves it finds the others by their gossip addresses, which it keeps.
func TestTheFounderMoves(t *testing.T) {
	g := newGossipers(t)
	a, b, c := g.three()
	for _, h := range g.hosts {
		eventually(t, "peers", func() bool { return len(*h.peers.Load()) == 2 })
	}
	for _, h := range []*gossiper{a, b, c} {
		h.stop()
	}
	a.config.Bind, a.config.Gossip = "127.0.11.40:0", "127.0.11.40:0"
	for _, h := range []*gossiper{b, c, a} {
		h.start()
	}
	for _, h := range g.hosts {
		h.ready()
		h.are("a:voter b:voter c:voter")
	}
}

// Two hosts swap their addresses while they are down.
func TestAddressesAreSwapped(t *testing.T) {
	g := newGossipers(t)
	_, b, c := g.three()
	b.stop()
	c.stop()
	b.config.Bind, c.config.Bind = c.config.Bind, b.config.Bind
	b.config.Gossip, c.config.Gossip = c.config.Gossip, b.config.Gossip
	b.start()
	c.start()
	for _, h := range g.hosts {
		h.ready()
	}
	for _, h := range g.hosts {
		eventually(t, "the new addresses", func() bool {
			for _, o := range g.hosts {
				if s, is := h.view().Host(o.id()); !is || s.Address != o.book.own {
					return false
				}
			}
			return true
		})
	}
}

func TestVotersAreLimited(t *testing.T) {
	g := newGossipers(t)
	a, b, c := g.three()
	d := g.host("d", b).start().ready()
	for _, h := range g.hosts {
		h.are("a:voter b:voter c:voter d:nonvoter")
	}
	if d.durable() {
		t.Error("a host without a vote keeps its log on disk")
	}
	eventually(t, "the list says so", func() bool { h, is := a.view().Host(d.id()); return is && !h.Durable })
	// A voter leaves: the other gets its vote, and a log on disk before.
	must(t, c.Leave(testContext(t)))
	c.stop()
	for _, h := range []*gossiper{a, b, d} {
		h.are("a:voter b:voter d:voter")
	}
	if !d.durable() {
		t.Error("a voter keeps its log in memory")
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestFollowerLeaves(t *testing.T) {
	g := newGossipers(t)
	a, b, c := g.three()
	leader := g.leader()
	goes := map[*gossiper]*gossiper{a: b, b: c, c: a}[leader]
	must(t, goes.Leave(testContext(t)))
	if goes.Err() != nil {
		t.Error(goes.Err())
	}
	goes.stop()
	want := map[string]string{"a": "b:voter c:voter", "b": "a:voter c:voter", "c": "a:voter b:voter"}[goes.config.Name]
	leader.are(want)
	if err := goes.tryStart(); !errors.Is(err, ErrRemoved) || !strings.Contains(err.Error(), "--reset") {
		t.Fatal(err)
	}
	// It comes back as a new host, of the same name.
	was := leader.Identity().Cluster
	goes.config.Reset, goes.config.Join = true, []string{leader.config.Gossip}
	goes.start().ready()
	leader.are("a:voter b:voter c:voter")
	if goes.Identity().Cluster != was {
		t.Error("another cluster")
	}
	old, err := filepath.Glob(filepath.Join(goes.config.Dir, oldPrefix+"*", storeName))
	if err != nil || len(old) != 1 {
		t.Error("the old data is not kept", old, err)
	}
}

func TestLeaderLeaves(t *testing.T) {
	g := newGossipers(t)
	g.three()
	leader := g.leader()
	must(t, leader.Leave(testContext(t)))
	leader.stop()
	next := g.leader()
	eventually(t, "two are left", func() bool { return len(next.Hosts()) == 2 && next.voters() == 2 })
	must(t, next.Leave(testContext(t)))
	next.stop()
	last := g.leader()
	eventually(t, "one is left", func() bool { return len(last.Hosts()) == 1 && last.voters() == 1 })
	if err := last.Leave(testContext(t)); !errors.Is(err, ErrLast) {
		t.Error(err)
	}
	last.openSession()
}

// With one vote in the cluster, whoever has it hands it on.
func TestTheOnlyVoterLeaves(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a")
	a.config.Voters = 1
	a.start().ready()
	b := g.host("b", a)
	b.config.Voters = 1
	b.start().ready()
	a.are("a:voter b:nonvoter")
	must(t, a.Leave(testContext(t)))
	a.stop()
	b.are("b:voter")
	b.openSession()
}

func TestRemovedByAnOperator(t *testing.T) {
	g := newGossipers(t)
	_, b, c := g.three()
	leader := g.leader()
	if leader == c {
		b, c = c, b
	}
	for _, name := range []string{c.config.Name, c.id(), b.config.Name} {
		if err := b.RemoveHost(testContext(t), name, false); !errors.Is(err, ErrAlive) {
			t.Error(name, err)
		}
	}
	if err := b.RemoveHost(testContext(t), "nobody", true); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	c.crash()
	eventually(t, "it counts as gone", func() bool { return leader.seems(leader.mustNamed(c.config.Name)) == StateFailed })
	must(t, b.RemoveHost(testContext(t), c.config.Name, false))
	for _, h := range g.hosts {
		if h != c {
			eventually(t, "two are left", func() bool { return len(h.Hosts()) == 2 && h.voters() == 2 })
		}
	}
	// It comes back: it is told, stops, and does not even try another time.
	c.start()
	select {
	case <-c.Failed():
	case <-time.After(time.Minute):
		t.Fatal("a host that was removed goes on")
	}
	if err := c.Err(); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
	c.stop()
	if err := c.tryStart(); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
}

// mustNamed returns the id of a host on the list.
func (h *gossiper) mustNamed(name string) string {
	s, is := h.view().HostNamed(name)
	if !is {
		h.all.t.Fatal("no host ", name)
	}
	return s.ID
}

// A host that is removed while it runs hears of it and stops.
func TestRemovedWhileAlive(t *testing.T) {
	g := newGossipers(t)
	a, b, c := g.three()
	leader := g.leader()
	goes := map[*gossiper]*gossiper{a: b, b: c, c: a}[leader]
	must(t, leader.RemoveHost(testContext(t), goes.config.Name, true))
	select {
	case <-goes.Failed():
	case <-time.After(time.Minute):
		t.Fatal("a host that was removed goes on")
	}
	if err := goes.Err(); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
}

func TestAVoterThatIsGoneIsReplaced(t *testing.T) {
	g := newGossipers(t)
	newHost := func(name string, join ...*gossiper) *gossiper {
		h := g.host(name, join...)
		h.config.goneAfter = 2 * time.Second
		return h.start().ready()
	}
	a := newHost("a")
	b, c := newHost("b", a), newHost("c", a)
	a.are("a:voter b:voter c:voter")
	d := newHost("d", a)
	a.are("a:voter b:voter c:voter d:nonvoter")
	leader := g.leader()
	goes := map[*gossiper]*gossiper{a: b, b: c, c: a}[leader]
	goes.crash()
	want := strings.Replace("a:voter b:voter c:voter d:voter", goes.config.Name+":voter", goes.config.Name+":nonvoter", 1)
	leader.are(want)
	if !d.durable() {
		t.Error("a voter keeps its log in memory")
	}
	goes.start().ready()
	goes.are(want)
	if !goes.durable() {
		t.Error("a log on disk went to memory")
	}
}

func TestTheNameIsTaken(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start().ready()
	b := g.host("b", a).start().ready()
	a.are("a:voter b:voter")
	other := g.host("b", a).start()
	eventually(t, "it hears of the cluster", func() bool { return len(other.heard()) == 2 })
	// A member that changes its name to one that is taken is not ready either.
	b.stop()
	b.config.Name = "a"
	b.start()
	for _, h := range []*gossiper{other, b} {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		if err := h.Ready(ctx); err == nil {
			t.Errorf("two hosts have the name %s", h.Name())
		}
		cancel()
	}
	b.stop()
	b.config.Name = "c"
	b.start().ready()
	other.ready() // now that b is none any more
	a.are("a:voter b:voter c:voter")
}
