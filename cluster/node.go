package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/grpc"

	"github.com/lockfs/lockfs/cluster/gossip"
	"github.com/lockfs/lockfs/cluster/seldom"
	"github.com/lockfs/lockfs/cluster/wire"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Node is this host's part in the cluster: its copy of the log, and raft.
//
// Order of locks: a Node's own mu is held for reading and writing its fields only, and duty.mu comes before proposer.mu.
type Node struct {
	config   Config
	log      *slog.Logger
	identity known
	former   former

	lock    *dirLock
	port    *wire.Port
	store   *store
	reserve *reserve
	journal *journal
	snaps   *snapshotStore
	start   *contents // until Start
	hasLog  bool      // it was found with a log, or with what takes its place

	machine  *machine
	duty     *duty
	proposer *proposer
	raft     *raft.Raft
	trans    *raft.NetworkTransport
	hints    *hinter
	rpc      *grpc.Server
	leads    chan bool // from raft
	awaited  awaited
	seldom   *seldom.Log
	room     room
	snap     snapper
	received atomic.Uint64 // entries that other hosts forwarded

	gossip         *gossip.Gossip // nil: none
	book           *addresses
	peers          atomic.Pointer[[]string] // gossip addresses of other hosts, as on disk
	altering       chan struct{}            // 1: held by who changes the members
	membersChanged chan struct{}            // 1: gossip or the list of hosts did, for announce
	lookAround     chan struct{}            // 1: likewise, for members
	doubted        chan struct{}            // 1: the leader may not know this host
	leaving        atomic.Bool              // Leave was called
	outside        atomic.Bool              // this host is no member any more

	pacing   sync.Mutex
	missed   bool          // the leader is, see pace
	led      chan struct{} // 1: this host did, and does not any more
	trailing uint64        // see trail

	tenureState tenureState
	stop        chan struct{}  // closed by Close
	leading     sync.WaitGroup // the goroutine of tenures, which alone adds to barriers
	barriers    sync.WaitGroup
	ended       sync.WaitGroup // the others
	ready       chan struct{}  // closed when entries can be proposed for the first time
	failed      chan struct{}  // closed when the node cannot go on
	diskErr     atomic.Pointer[error]

	mu        sync.Mutex
	err       error // why failed is closed
	closed    bool
	caughtUp  bool            // this host's state was up to date once
	announced bool            // and the leader knows it as it is now
	removed   map[string]bool // ids of hosts whose removal was applied here
	toDrop    []string        // of these, whose connections are to be ended
}

func newNode(c Config, was *contents) *Node {
	n := &Node{
		config: c, log: c.Logger, former: former{record: was.record}, start: was,
		hasLog: was.snapshot != nil || was.kept != nil,
		leads:  make(chan bool, 8), stop: make(chan struct{}), ready: make(chan struct{}), failed: make(chan struct{}),
		altering: make(chan struct{}, 1), membersChanged: make(chan struct{}, 1), lookAround: make(chan struct{}, 1),
		doubted: make(chan struct{}, 1), led: make(chan struct{}, 1), removed: map[string]bool{},
	}
	n.identity.now.Store(&was.identity)
	n.peers.Store(&was.peers)
	n.trailing = c.limits.trailing
	n.tenureState.changed = make(chan struct{})
	n.seldom = seldom.New(c.Logger)
	n.snap.limits = c.limits
	n.snap.wanted = make(chan struct{}, 1)
	n.snap.grew(was.entries, was.bytes)
	return n
}

func (n *Node) hclog(name string) hclog.Logger {
	return &raftLog{to: n.log, name: name, seldom: n.seldom, stop: n.stop}
}

// Start restores the state from the snapshot, tells the host, and begins to take part in the cluster: from now on entries
// are applied and the host is told of each. Called once.
func (n *Node) Start(host Host) error {
	n.machine = &machine{host: host, fail: n.fail}
	n.proposer = newProposer(func(entry []byte) raft.ApplyFuture {
		return n.raft.ApplyLog(raft.Log{Data: entry}, 0)
	}, n.proposalError, n.config.OpTimeout)
	n.duty = newDuty(n.log, func(cmds []*statepb.Command) {
		n.proposer.propose(state.Encode(cmds), nil)
	})
	n.duty.kick = n.proposer.kickLink
	n.machine.committed = func(index, term uint64) { n.hints.committed(index, term) }
	n.machine.watch, n.machine.replaced, n.machine.installed = n.applied, n.replaced, n.installed
	first := state.New()
	if n.start.snapshot != nil {
		first = n.start.snapshot.state
	}
	n.start = nil
	n.book = &addresses{self: n.id(), own: n.port.Addr().String()}
	n.book.learn(nil, first.View())
	n.machine.replace(first)
	err := n.startRaft()
	if err == nil && n.gossip != nil {
		err = n.gossip.Start(n.member(), n.joinAt)
	}
	if err != nil {
		n.proposer.close()
		n.proposer = nil
		if n.raft != nil {
			n.raft.Shutdown().Error()
			n.raft = nil
		}
		return fmt.Errorf("lockfs: start this host's part in the cluster: %w", err)
	}
	n.leading.Go(n.tenures)
	for _, f := range []func(){n.snapshots, n.follow, n.members, n.announce, n.miss} {
		n.ended.Go(f)
	}
	n.serve()
	return nil
}

// applied sees each batch that was applied, before the host does. Called by the applying goroutine.
func (n *Node) applied(b appliedBatch) {
	if b.members {
		n.hints.changed()
		token(n.lookAround)
	}
	n.noteHosts(b.changes)
	n.duty.watch(b.changes)
	n.awaited.reached(n.stateIndex())
}

// replaced sees a whole new state.
func (n *Node) replaced(view *state.View) {
	n.duty.replaced(view)
	token(n.lookAround)
	n.awaited.reached(view.Index())
}

// installed notes the snapshot that the leader sent, which is on this disk by now.
func (n *Node) installed() {
	list, err := n.snaps.List()
	if err != nil || len(list) == 0 {
		n.log.Warn("the leader's snapshot is not listed", "dir", n.config.Dir, "err", err)
		return
	}
	n.snap.installed(list[0])
}

// self is who this host is to others.
func (n *Node) self() wire.Identity {
	id := n.identity.now.Load()
	return wire.Identity{Cluster: id.Cluster, Host: id.Host}
}

func (n *Node) startRaft() error {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.id())
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = n.config.calm, n.config.calm, n.config.miss
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries, c.BatchApplyCh = maxAppend, true
	c.TrailingLogs = n.config.limits.trailing
	c.SnapshotThreshold, c.SnapshotInterval = 1<<62, 24*time.Hour // snapper decides
	c.NoSnapshotRestoreOnStart = true                             // it was verified and read already
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.NotifyCh = n.leads
	c.Logger = n.hclog("raft")
	n.trans = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		ServerAddressProvider: n.book,
		Stream:                n.port.StreamLayer(), MaxPool: transportPool, Timeout: transportTimeout, Logger: n.hclog("transport"),
	})
	if err := n.foundCluster(n.trans, c); err != nil {
		return err
	}
	n.hints = newHinter(n.trans, c.LocalID)
	cache, err := raft.NewLogCache(cachedEntries, n.journal)
	if err != nil {
		return err
	}
	if n.raft, err = raft.NewRaft(c, n.machine, cache, stable{n.store, n.reserve, n.stop}, n.snaps, n.trans); err != nil {
		return err
	}
	n.hints.raft = n.raft
	n.book.raft.Store(n.raft)
	if err := n.hurry(); err != nil {
		n.raft.Shutdown().Error()
		n.raft = nil
		return err
	}
	return nil
}

// Propose appends an entry to the log. It returns at once; done is called, once and never from within Propose, when the
// entry was applied here or with an error. Entries are appended in the order of the calls, but after an error a later
// one may have been applied and an earlier one not; the state takes a command only in its session's order. While there
// is no leader entries wait, at most Config.OpTimeout. Entry is not copied and must not be written to any more.
// done must be quick.
func (n *Node) Propose(entry []byte, done func(error)) {
	n.room.spend(len(entry))
	n.proposer.propose(entry, done)
}

// Renew renews a session: its stamp goes into the next entry of renewals, at the latest after a tenth of the TTL.
// The host learns from SessionRenewed, with the stamp, that it was applied. It is repeated by the caller if it was not.
func (n *Node) Renew(session uint64, stamp int64) { n.duty.renew(session, stamp) }

// proposalError makes of raft's error one that says that the disk is full, if it is.
func (n *Node) proposalError(err error) error {
	if p := n.diskErr.Load(); p != nil && full(*p) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// appendEnded hears how each append to the log ended.
func (n *Node) appendEnded(err error) {
	was := n.diskErr.Load()
	switch {
	case err == nil && was != nil:
		n.diskErr.Store(nil)
		n.log.Info("the log on disk works again", "dir", n.config.Dir)
	case err != nil && was == nil:
		n.diskErr.Store(&err)
		n.log.Error("the log on disk cannot be written; nothing can be changed until it can", "dir", n.config.Dir, "err", err)
	case err != nil:
		n.diskErr.Store(&err)
	}
}

// Ready waits until entries can be proposed: there is a leader, and this host has applied all that was there before.
func (n *Node) Ready(ctx context.Context) error {
	select {
	case <-n.ready:
		return n.Err() // it may have failed since
	case <-n.failed:
		return n.Err()
	case <-n.stop:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("lockfs: wait for the cluster: %w", context.Cause(ctx))
	}
}

// Failed is closed when the node cannot go on, for the reason that Err gives: the daemon must stop.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Err returns why Failed is closed.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.err = err
		close(n.failed)
		n.log.Error("this host stops", "err", err)
	}
}

// closeTimeout bounds how long Close waits for what is under way; only a disk that hangs needs it.
const closeTimeout = 5 * time.Second

// Close ends the node: what waits fails with ErrClosed, what raft has is reported, everything is closed. The host keeps its
// place in the cluster and its session, which the caller has ended before if it wanted to.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	if n.raft != nil {
		n.duty.stop()
		n.handOn()
		n.proposer.shut()
	}
	close(n.stop)
	if n.gossip != nil {
		if err := n.gossip.Close(n.Err() == nil); err != nil {
			n.log.Debug("gossip", "err", err)
		}
	}
	if n.raft != nil {
		if !within(closeTimeout, n.proposer.close) {
			n.log.Warn("the disk does not answer: stopping all the same", "dir", n.config.Dir)
		}
		n.leading.Wait()
		within(closeTimeout, n.barriers.Wait)
		shut := n.raft.Shutdown()
		n.trans.Close()
		n.port.Close() // what waits for other hosts waits no more
		n.rpc.Stop()
		n.hints.lead(false)
		n.hints.ended.Wait()
		if !within(closeTimeout, func() { shut.Error() }) {
			return fmt.Errorf("lockfs: close %s: the disk does not answer", n.config.Dir)
		}
		n.ended.Wait()
	}
	n.markStopped()
	return n.closeFiles()
}

// handOn makes another voter the leader if this host is: the others need not find out that it is gone.
func (n *Node) handOn() {
	if n.raft.State() != raft.Leader {
		return
	}
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return
	}
	voters := 0
	for _, s := range f.Configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	if voters < 2 {
		return
	}
	within(closeTimeout, func() {
		if err := n.raft.LeadershipTransfer().Error(); err != nil {
			n.log.Info("no other host could be made the leader", "err", err)
		}
	})
}

// markStopped notes where the log ends, so that the next start can tell if any of it was lost.
func (n *Node) markStopped() {
	if n.Err() != nil || n.diskErr.Load() != nil || n.journal == nil || n.journal.inMemory() {
		return
	}
	var end raft.Log
	if last, err := n.journal.LastIndex(); err != nil || n.journal.GetLog(last, &end) != nil {
		return
	}
	if err := n.store.putJSON(bucketDaemon, keyStopped, stopped{end.Index, end.Term}); err != nil {
		n.log.Warn("no mark of a clean stop", "err", err)
	}
}

func (n *Node) closeFiles() error {
	var err error
	if n.journal != nil {
		err = errors.Join(err, n.journal.Close())
	}
	if n.store != nil {
		err = errors.Join(err, n.store.Close())
	}
	if n.port != nil {
		n.port.Close()
	}
	return errors.Join(err, n.lock.Close())
}

// within runs f and says whether it ended in time.
func within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}
