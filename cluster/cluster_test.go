package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/lockfs/lockfs/lockd/state"
)

// testCluster is some nodes in this process, on addresses of their own, with real raft over TCP and real disks.
type testCluster struct {
	testOptions
	t     testing.TB
	net   *testNet
	nodes []*testNode
}

// testOptions say how the nodes of a testCluster are. All may be nil.
type testOptions struct {
	config func(i int, c *Config)
	// host makes the host that a node is started for, each time it is; nil: a testHost. started is called when the node is
	// ready, and ending before it is stopped.
	host    func(n *testNode) Host
	opened  func(n *testNode) // between Open and Start
	started func(n *testNode)
	ending  func(n *testNode)
}

// testNode is one of them; Node is nil while it is stopped.
type testNode struct {
	*Node
	cluster *testCluster
	config  Config
	host    Host // told of what is applied
	id      raft.ServerID
	address string
	gone    chan struct{} // closed when a crash is through
}

// newTestCluster starts a cluster of so many voters. Everything ends with the test, and every goroutine.
func newTestCluster(t testing.TB, size int, o testOptions) *testCluster {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	t.TempDir() // the directories go when the nodes have ended, and not before
	t.Cleanup(func() { noLeaks(t, ignore) })
	c := &testCluster{t: t, net: newTestNet(), testOptions: o}
	t.Cleanup(func() {
		c.net.heal()
		var all sync.WaitGroup
		for _, n := range c.nodes {
			all.Go(n.stop)
		}
		all.Wait()
	})
	for range size {
		c.add()
	}
	return c
}

// add adds a node, and makes it a voter unless it is the first.
func (c *testCluster) add() *testNode { return c.join((*raft.Raft).AddVoter) }

// join adds a node, which becomes a member unless it is the first.
func (c *testCluster) join(as func(*raft.Raft, raft.ServerID, raft.ServerAddress, uint64, time.Duration) raft.IndexFuture) *testNode {
	c.t.Helper()
	i := len(c.nodes)
	ip := fmt.Sprintf("127.0.0.%d", i+2)
	n := &testNode{cluster: c}
	n.config = Config{
		Dir: filepath.Join(c.t.TempDir(), "data"), Name: string(rune('a' + i)), Bind: ip + ":0",
		Logger: testLogger(c.t, n.name),
	}
	n.config.dial = func(ctx context.Context, address string) (net.Conn, error) { return c.net.dial(ctx, ip, address) }
	if i > 0 {
		n.config.joins = c.nodes[0].Identity().Cluster
	}
	if c.config != nil {
		c.config(i, &n.config)
	}
	c.nodes = append(c.nodes, n)
	n.start()
	n.config.Bind, n.id = n.address, raft.ServerID(n.Identity().Host)
	if i > 0 {
		must(c.t, as(c.leader().raft, n.id, raft.ServerAddress(n.address), 0, 0).Error())
	}
	n.ready()
	return n
}

func (n *testNode) name() string { return n.config.Name }

// start opens and starts the node, for the first time or again.
func (n *testNode) start() {
	n.cluster.t.Helper()
	node, err := Open(n.config)
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	n.Node, n.host = node, newTestHost()
	if n.cluster.opened != nil {
		n.cluster.opened(n)
	}
	if n.cluster.host != nil {
		n.host = n.cluster.host(n)
	}
	if err := node.Start(n.host); err != nil {
		n.cluster.t.Fatal(err)
	}
	n.address = string(node.trans.LocalAddr())
}

func (n *testNode) ready() {
	n.cluster.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Ready(ctx); err != nil {
		n.cluster.t.Fatal(err)
	}
	if n.cluster.started != nil {
		n.cluster.started(n)
	}
}

// again starts a node that was stopped.
func (n *testNode) again() {
	n.cluster.t.Helper()
	if n.gone != nil {
		<-n.gone
	}
	n.start()
	n.ready()
}

// stop ends the node, if it runs.
func (n *testNode) stop() {
	if n.gone != nil {
		<-n.gone
	}
	if n.Node == nil {
		return
	}
	if n.cluster.ending != nil {
		n.cluster.ending(n)
	}
	if err := n.Close(); err != nil {
		n.cluster.t.Error(err)
	}
	n.Node = nil
}

// crash ends the node without a word to the others: from this moment on they hear nothing any more.
func (n *testNode) crash() {
	n.cluster.net.freeze(n.ip())
	node, ending := n.Node, n.cluster.ending
	n.Node = nil
	n.gone = make(chan struct{})
	go func() {
		defer close(n.gone)
		node.Close()
		if ending != nil {
			ending(n)
		}
		n.cluster.net.reset(n.ip())
		n.cluster.net.thaw(n.ip())
	}()
}

func (n *testNode) ip() string {
	host, _, _ := net.SplitHostPort(n.address)
	return host
}

// leader waits until one of the running nodes leads and its tenure has begun.
func (c *testCluster) leader() *testNode {
	c.t.Helper()
	var found *testNode
	eventually(c.t, "a leader", func() bool {
		for _, n := range c.nodes {
			if n.Node == nil || c.net.frozen(n.ip()) {
				continue
			}
			if t, _ := n.tenureState.get(); t != nil {
				found = n
				return true
			}
		}
		return false
	})
	return found
}

// followers are the running nodes but the leader.
func (c *testCluster) followers() (all []*testNode) {
	leader := c.leader()
	for _, n := range c.nodes {
		if n != leader && n.Node != nil {
			all = append(all, n)
		}
	}
	return all
}

// agree waits until all running nodes have applied the same, and wants their states to be the same.
func (c *testCluster) agree() {
	c.t.Helper()
	var leader *testNode
	eventually(c.t, "a barrier", func() bool {
		leader = c.leader()
		return leader.raft.Barrier(0).Error() == nil
	})
	index, digest := leader.stateIndex(), leader.view().Digest()
	for _, n := range c.nodes {
		if n.Node == nil {
			continue
		}
		eventually(c.t, n.name()+" catches up", func() bool { return n.stateIndex() >= index })
		if v := n.view(); v.Index() == index && v.Digest() != digest {
			c.t.Errorf("%s differs at entry %d", n.name(), index)
		}
	}
}

func (n *testNode) view() *state.View { return n.machine.view.Load() }

// noLeaks wants every goroutine but those to have ended. By itself goleak gives them less than half a second.
func noLeaks(t testing.TB, but ...goleak.Option) {
	t.Helper()
	err := goleak.Find(but...)
	for end := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(end); {
		err = goleak.Find(but...)
	}
	if err != nil {
		t.Error(err)
	}
}

// eventually waits for what other goroutines and hosts are about to do.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// insist proposes the same again while there is no leader: on a busy machine that may be so at any time.
func insist(t testing.TB, propose func() error) {
	t.Helper()
	var err error
	eventually(t, "a leader that takes it", func() bool {
		err = propose()
		return !errors.Is(err, ErrNoLeader)
	})
	must(t, err)
}

// testLogger logs into the test's log, with the node's name; nothing once the test is over.
func testLogger(t testing.TB, name func() string) *slog.Logger {
	w := &nodeWriter{t: t, name: name}
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	level := slog.LevelInfo
	if os.Getenv("LOCKFS_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

type nodeWriter struct {
	mu   sync.Mutex
	t    testing.TB
	name func() string
}

func (w *nodeWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s: %s", w.name(), b)
	}
	return len(b), nil
}

// testNet is the network between the nodes. A frozen node hears nothing and is not heard, and nobody is told so.
type testNet struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced when ice changed
	ice     map[string]bool
	conns   map[*testConn]struct{}
}

func newTestNet() *testNet {
	return &testNet{changed: make(chan struct{}), ice: map[string]bool{}, conns: map[*testConn]struct{}{}}
}

func (n *testNet) freeze(ip string) { n.set(ip, true) }
func (n *testNet) thaw(ip string)   { n.set(ip, false) }

func (n *testNet) set(ip string, frozen bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ice[ip] = frozen
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *testNet) frozen(ip string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ice[ip]
}

func (n *testNet) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.ice)
	close(n.changed)
	n.changed = make(chan struct{})
}

// reset breaks the connections of a node.
func (n *testNet) reset(ip string) {
	n.mu.Lock()
	var all []*testConn
	for c := range n.conns {
		if c.from == ip || c.to == ip {
			all = append(all, c)
		}
	}
	n.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
}

// dial connects one node to another's address.
func (n *testNet) dial(ctx context.Context, from, address string) (net.Conn, error) {
	to, _, _ := net.SplitHostPort(address)
	if err := n.pass(from, to, ctx.Done(), nil); err != nil {
		return nil, ctx.Err()
	}
	raw, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &testConn{Conn: raw, net: n, from: from, to: to, closed: make(chan struct{})}
	n.mu.Lock()
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	return c, nil
}

var errGone = errors.New("closed while frozen")

// pass waits while one of the two is frozen.
func (n *testNet) pass(from, to string, gone <-chan struct{}, late <-chan time.Time) error {
	for {
		n.mu.Lock()
		frozen, changed := n.ice[from] || n.ice[to], n.changed
		n.mu.Unlock()
		if !frozen {
			return nil
		}
		select {
		case <-changed:
		case <-gone:
			return errGone
		case <-late:
			return os.ErrDeadlineExceeded
		}
	}
}

// testConn is the dialer's end of a connection: what comes and goes passes there.
type testConn struct {
	net.Conn
	net      *testNet
	from, to string
	once     sync.Once
	closed   chan struct{}

	mu    sync.Mutex
	read  time.Time // deadlines
	write time.Time
}

func (c *testConn) pass(deadline *time.Time) error {
	c.mu.Lock()
	at := *deadline
	c.mu.Unlock()
	if !c.net.frozen(c.from) && !c.net.frozen(c.to) {
		return nil
	}
	var late <-chan time.Time
	if !at.IsZero() {
		late = time.After(time.Until(at))
	}
	return c.net.pass(c.from, c.to, c.closed, late)
}

func (c *testConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		return n, err
	}
	return n, c.pass(&c.read)
}

func (c *testConn) Write(b []byte) (int, error) {
	if err := c.pass(&c.write); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *testConn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *testConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.read = t
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

func (c *testConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.write = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

func (c *testConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.net.mu.Lock()
		delete(c.net.conns, c)
		c.net.mu.Unlock()
	})
	return c.Conn.Close()
}
