package cluster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/cluster/clusterpb"
)

// The pause before the leader is tried again grows from the first to the second; after the third it is told.
const (
	minLinkPause = 10 * time.Millisecond
	maxLinkPause = 250 * time.Millisecond
	linkTellFrom = 3 * time.Second
)

// leader is who raft takes for the leader; its zero value is nobody.
type leader struct {
	id      raft.ServerID
	address raft.ServerAddress
}

func (n *Node) leader() leader {
	address, id := n.raft.LeaderWithID()
	return leader{id, address}
}

// follow keeps a link to the leader while that is another host. Every change of the leader, even to nobody, ends it.
func (n *Node) follow() {
	changes := make(chan raft.Observation, 1)
	o := raft.NewObserver(changes, false, func(o *raft.Observation) bool {
		_, is := o.Data.(raft.LeaderObservation)
		return is
	})
	n.raft.RegisterObserver(o)
	defer n.raft.DeregisterObserver(o)
	var failing time.Time // since when the link to this leader cannot be made
	pause := time.Duration(0)
	var end succession
	for was := (leader{}); ; {
		now := n.leader()
		if now != was {
			was, pause, failing = now, 0, time.Time{}
		}
		var retry <-chan time.Time
		if now.id != "" && string(now.id) != n.id() {
			worked, err := n.linked(now, changes)
			n.doubt(err)
			end.ended(n, now, worked, err)
			switch {
			case worked:
				pause, failing = 0, time.Time{}
			case failing.IsZero():
				failing = time.Now()
			case time.Since(failing) > linkTellFrom && !notNow(err):
				n.seldom.Warn("link "+string(now.id), "the leader cannot be reached with proposals", "leader", now.address, "err", err)
			}
			pause = min(max(2*pause, minLinkPause), maxLinkPause)
			retry = time.After(pause)
		}
		if n.leader() != now {
			continue
		}
		select {
		case <-changes:
		case <-retry:
		case <-n.stop:
			return
		}
	}
}

// linked keeps a link to the leader until it breaks or there is another one. It says whether it ever worked.
func (n *Node) linked(to leader, changes <-chan raft.Observation) (worked bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type end struct {
		worked bool
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		worked, err := n.link(ctx, to)
		ended <- end{worked, err}
	}()
	for {
		select {
		case e := <-ended:
			return e.worked, e.err
		case <-changes:
			if n.leader() == to {
				continue
			}
		case <-n.stop:
		}
		cancel()
		e := <-ended
		return e.worked, e.err
	}
}

// link makes the link and serves it until it breaks.
func (n *Node) link(ctx context.Context, to leader) (worked bool, err error) {
	c, err := n.port.Connect(ctx, string(to.address))
	if err != nil {
		return false, err
	}
	defer c.Close()
	if got := c.Peer().Host; got != string(to.id) {
		return false, fmt.Errorf("at %s is host %s, and the leader is host %s", to.address, got, to.id)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := clusterpb.NewClusterClient(c).Forward(ctx)
	if err != nil {
		return false, err
	}
	first, err := stream.Recv()
	if err != nil {
		return false, err
	}
	accepted := first.GetAccepted()
	if accepted == nil {
		return false, fmt.Errorf("%s does not say that it takes proposals", to.address)
	}
	n.log.Debug("proposals go to the leader", "leader", accepted.Name, "address", to.address, "term", accepted.Term)
	n.ledBy(accepted.Name)
	defer n.ledBy("")
	caughtUp := make(chan struct{})
	go func() {
		defer close(caughtUp)
		if n.awaited.wait(ctx, accepted.Index, n.stateIndex) == nil {
			n.isCaughtUp()
		}
	}()
	err = newLink(n.proposer, n.duty).run(stream)
	cancel()
	<-caughtUp
	return true, err
}

// stateIndex is the entry that this host's state is as of.
func (n *Node) stateIndex() uint64 { return n.machine.view.Load().Index() }

// isCaughtUp notes that this host's state was up to date, isAnnounced that the leader knows it; Ready waits for both.
func (n *Node) isCaughtUp()  { n.isReady(&n.caughtUp) }
func (n *Node) isAnnounced() { n.isReady(&n.announced) }

func (n *Node) isReady(part *bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was := n.caughtUp && n.announced
	if *part = true; !was && n.caughtUp && n.announced {
		close(n.ready)
	}
}

// led is what a Host may also be.
type led interface {
	// SetLeader tells the name of the host that leads; empty: there is none. It must be quick.
	SetLeader(name string)
}

// ledBy tells the host who leads.
func (n *Node) ledBy(name string) {
	if h, is := n.machine.host.(led); is {
		h.SetLeader(name)
	}
}
