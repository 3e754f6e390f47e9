package cluster

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/cluster/clusterpb"
	"github.com/lockfs/lockfs/cluster/gossip"
	"github.com/lockfs/lockfs/lockd/state"
)

// The members of a cluster are raft's configuration, and beside it the list of hosts in the state, with their names and
// addresses. A host is put on the list first and into the configuration then, without a vote; it is taken off the list first
// and out of the configuration then. So a host in the configuration whose removal was applied is to be taken out, whoever
// leads now.
//
// All changes are the leader's, one at a time (alter). It looks after the votes whenever something is new about a host, and
// each lookEvery while something is still to be done:
//
//   - While there are fewer voters than Config.Voters, a host without a vote that is alive and has caught up gets one; its log
//     is on disk before (Prepare).
//   - A voter that is gone (silent in gossip, and without a session) for goneAfter gives its vote to such a host. It stays a
//     member and follows the log again when it comes back.
const lookEvery = time.Second

// goneAfter is how long a voter is gone before it is replaced.
const goneAfter = 60 * time.Second

// members is the goroutine that knows where the others are, and on the leader looks after the votes.
func (n *Node) members() {
	var changed <-chan struct{} // of gossip
	if n.gossip != nil {
		changed = n.gossip.Changed()
	}
	look := time.NewTicker(lookEvery)
	look.Stop()
	v := votes{node: n}
	for {
		select {
		case <-changed:
		case <-n.lookAround:
		case <-look.C:
		case <-n.stop:
			look.Stop()
			return
		}
		n.learn()
		n.dropRemoved()
		t, _ := n.tenureState.get()
		if t == nil {
			look.Stop()
			v.tenure = nil
			continue
		}
		if v.tenure != t {
			v = votes{node: n, tenure: t, silent: map[raft.ServerID]time.Time{}}
		}
		if look.Stop(); v.look() {
			look.Reset(lookEvery)
		}
	}
}

// learn takes over what is new about the others.
func (n *Node) learn() {
	view := n.view()
	n.book.learn(n.heard(), view)
	var peers []string
	for h := range view.Hosts() {
		if h.ID != n.id() && h.Gossip != "" {
			peers = append(peers, h.Gossip)
		}
	}
	// What is on the list is known only once entries are applied, for which a leader may have to be found first.
	if was := *n.peers.Load(); len(peers) > 0 && !slices.Equal(peers, was) {
		n.peers.Store(&peers)
		if err := n.store.putJSON(bucketDaemon, keyPeers, peers); err != nil {
			n.log.Warn("the gossip addresses of the others cannot be recorded", "err", err)
		}
	}
	token(n.membersChanged)
}

// joinAt are the addresses at which gossip looks for others.
func (n *Node) joinAt() []string {
	return slices.Concat(n.config.Join, *n.peers.Load())
}

// noteHosts sees what was applied. Called by the applying goroutine.
func (n *Node) noteHosts(changes []state.Change) {
	if id := n.identity.now.Load(); id.Joined && !id.Founded {
		// The first entries are here: from now on their loss is damage.
		if err := n.become(func(id *Identity) { id.Founded = true }); err != nil {
			n.log.Warn("that the log has begun cannot be recorded", "err", err)
		}
	}
	for _, c := range changes {
		switch c.Kind {
		case state.HostRemoved:
			n.mu.Lock()
			n.removed[c.Host] = true
			n.toDrop = append(n.toDrop, c.Host)
			n.mu.Unlock()
			if c.Host == n.id() {
				n.expelled()
			}
		case state.HostSet:
			n.mu.Lock()
			delete(n.removed, c.Host)
			n.mu.Unlock()
		case state.SessionOpened, state.SessionEnded:
		default:
			continue
		}
		token(n.lookAround)
	}
}

// dropRemoved ends the connections of hosts that were removed. They learn of it when they come again.
func (n *Node) dropRemoved() {
	n.mu.Lock()
	hosts := n.toDrop
	n.toDrop = nil
	n.mu.Unlock()
	for _, h := range hosts {
		n.port.Drop(h)
		if n.gossip != nil {
			n.gossip.Forget(h)
		}
	}
}

// isRemoved says whether the removal of a host was applied here. Not all removals are known: those before the snapshot that
// this host started from are not.
func (n *Node) isRemoved(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.removed[host]
}

// votes is the leader's care for who has a vote, in one tenure.
type votes struct {
	node    *Node
	tenure  *tenure
	silent  map[raft.ServerID]time.Time // since when voters are gone
	failing time.Time                   // since when no vote could be given or taken; zero: nothing is in the way
}

// look does what is to be done next, if anything, and says whether to look again soon though nothing new is heard.
func (v *votes) look() (again bool) {
	n := v.node
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	servers := n.book.configured()
	for _, s := range servers {
		if n.isRemoved(string(s.ID)) {
			v.report("a host that was removed from the list keeps its place", n.takeOut(ctx, s.ID))
			return true
		}
	}
	voters, gone := 0, []raft.ServerID(nil)
	var others []raft.ServerID
	for _, s := range servers {
		switch {
		case s.Suffrage != raft.Voter:
			others = append(others, s.ID)
		case v.gone(s.ID):
			gone = append(gone, s.ID)
			fallthrough
		default:
			voters++
		}
	}
	maps.DeleteFunc(v.silent, func(id raft.ServerID, _ time.Time) bool {
		s, is := n.configured(id)
		return !is || s.Suffrage != raft.Voter
	})
	again = len(v.silent) > 0
	if voters >= n.config.Voters && len(gone) == 0 {
		return again
	}
	for _, id := range others {
		if n.seems(string(id)) != StateAlive {
			continue
		}
		if err := n.promote(ctx, id); err != nil {
			v.report("a host cannot be given a vote yet", err)
			again = true
			continue
		}
		v.report("", nil)
		if len(gone) > 0 {
			v.report("a voter that is gone cannot be replaced", n.demote(ctx, gone[0]))
		}
		token(n.lookAround) // there may be more to do
		return true
	}
	if voters > n.config.Voters && len(gone) > 0 { // the one that takes its place is there already
		v.report("a voter that is gone cannot be replaced", n.demote(ctx, gone[0]))
	}
	return again
}

// report says what is in the way once it was for long: that a host has yet to catch up is ordinary.
func (v *votes) report(what string, err error) {
	switch {
	case err == nil:
		v.failing = time.Time{}
	case v.failing.IsZero():
		v.failing = time.Now()
	case time.Since(v.failing) > reportAfter:
		v.node.seldom.Warn(what, what, "err", err)
	}
}

// reportAfter is how long something may be in the way of a change before it is told.
const reportAfter = 10 * time.Second

// gone says whether a voter was gone for long enough.
func (v *votes) gone(id raft.ServerID) bool {
	if string(id) == v.node.id() || v.node.seems(string(id)) == StateAlive || v.node.seems(string(id)) == StateSuspect {
		delete(v.silent, id)
		return false
	}
	since, is := v.silent[id]
	if !is {
		v.silent[id] = time.Now()
		return false
	}
	return time.Since(since) >= v.node.config.goneAfter
}

// promote gives a host a vote, once its log is on disk and it has caught up.
func (n *Node) promote(ctx context.Context, id raft.ServerID) error {
	at := n.book.of(string(id))
	index := n.stateIndex()
	c, err := n.port.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer c.Close()
	if got := c.Peer().Host; got != string(id) {
		return fmt.Errorf("at %s is host %s, and not host %s", at, got, id)
	}
	client := clusterpb.NewClusterClient(c)
	st, err := client.Status(ctx, &clusterpb.StatusRequest{})
	if err != nil {
		return err
	}
	if st.Applied == 0 || st.Applied+nearly < index {
		return fmt.Errorf("host %s has applied entry %d of %d", st.Name, st.Applied, index)
	}
	p, err := client.Prepare(ctx, &clusterpb.PrepareRequest{Host: string(id)})
	switch {
	case err != nil:
		return err
	case p.Error != nil:
		return fmt.Errorf("host %s: %s", st.Name, printable(p.Error.Text))
	case !p.Durable:
		return fmt.Errorf("host %s does not keep its log on disk", st.Name)
	}
	done, err := n.alter(ctx)
	if err != nil {
		return err
	}
	defer done()
	now, there := n.configured(id)
	if !there || n.isRemoved(string(id)) {
		return fmt.Errorf("host %s is no member any more", st.Name)
	}
	if err := n.raft.AddVoter(id, now.Address, 0, 0).Error(); err != nil {
		return changeError(err)
	}
	n.log.Info("a host has a vote now", "host", st.Name)
	if h, is := n.view().Host(string(id)); is && !h.Durable {
		h.Durable = true
		return n.list(ctx, h)
	}
	return nil
}

// nearly is how many entries a host may be behind that gets a vote: commits may wait for it from then on.
const nearly = 256

// demote takes a voter's vote, if enough of the others are there.
func (n *Node) demote(ctx context.Context, id raft.ServerID) error {
	done, err := n.alter(ctx)
	if err != nil {
		return err
	}
	defer done()
	if err := n.mayLose(id); err != nil {
		return err
	}
	if err := n.raft.DemoteVoter(id, 0, 0).Error(); err != nil {
		return changeError(err)
	}
	n.log.Warn("a voter that is gone was replaced: it has no vote any more", "host", n.nameOf(id))
	return nil
}

// mayLose says why a host must keep its vote: without it those that are there would be no quorum.
func (n *Node) mayLose(id raft.ServerID) error {
	left, there := 0, 0
	voter := false
	for _, s := range n.book.configured() {
		switch {
		case s.Suffrage != raft.Voter:
		case s.ID == id:
			voter = true
		default:
			if left++; string(s.ID) == n.id() || n.seems(string(s.ID)) == StateAlive {
				there++
			}
		}
	}
	if voter && there < left/2+1 {
		return fmt.Errorf("%w: of the %d voters that would be left %d are there", ErrQuorum, left, there)
	}
	return nil
}

// takeOut takes a host out of raft's configuration.
func (n *Node) takeOut(ctx context.Context, id raft.ServerID) error {
	done, err := n.alter(ctx)
	if err != nil {
		return err
	}
	defer done()
	return n.remove(id)
}

// remove does so for one who alters the members.
func (n *Node) remove(id raft.ServerID) error {
	if _, there := n.configured(id); !there {
		return nil
	}
	if err := n.raft.RemoveServer(id, 0, 0).Error(); err != nil {
		return changeError(err)
	}
	n.log.Info("a host is no member any more", "host", id)
	return nil
}

// nameOf returns a host's name, or its id.
func (n *Node) nameOf(id raft.ServerID) string {
	if h, is := n.view().Host(string(id)); is {
		return h.Name
	}
	return string(id)
}

// listenGossip takes the port of gossip, if this host is to take part.
func (c Config) listenGossip(s *stream) (*gossip.Gossip, error) {
	if c.Gossip == "" {
		if len(c.Join) > 0 {
			return nil, fmt.Errorf("to join others by gossip this host needs an address for it; name one with --gossip ADDR:PORT")
		}
		return nil, nil
	}
	var ip net.IP
	if host, _, err := net.SplitHostPort(c.Gossip); err == nil {
		if own := net.ParseIP(host); c.Advertise != "" || host == "" || own != nil && own.IsUnspecified() {
			ip = s.ip
		}
	}
	g, err := gossip.Listen(gossip.Config{
		Bind: c.Gossip, Advertise: ip, Key: c.GossipKey, Logger: c.Logger, Fast: c.fastGossip,
	})
	if err != nil {
		return nil, listenError(c.Gossip, "--gossip", err)
	}
	return g, nil
}
