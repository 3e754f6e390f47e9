package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lockfs/lockfs/cluster/clusterpb"
	"github.com/lockfs/lockfs/cluster/gossip"
	"github.com/lockfs/lockfs/cluster/wire"
	"github.com/lockfs/lockfs/lockd/state"
)

// Every host announces itself to the leader at its start: who it is, where, under which name. So a host that waits is admitted,
// and a member's new address or name becomes known. It asks whatever member it knows of, again and again until the leader
// has said yes, since an answer may be lost; the leader does what is still to be done. Nothing is proposed by this host
// before (Ready), so two hosts never act under one name.

// The pause between two attempts grows from the first to the second.
const (
	minAskPause = 100 * time.Millisecond
	maxAskPause = 2 * time.Second
	askTimeout  = 10 * time.Second // of one attempt: the leader may have entries to commit
)

// announce is the goroutine that does so.
func (n *Node) announce() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-n.stop:
		case <-n.failed:
		}
		cancel()
	}()
	pause := minAskPause
	for nth := 0; ctx.Err() == nil; nth++ {
		wait := pause
		if n.Identity().Cluster == "" {
			n.initRequested()
			wait = min(pause, initEvery)
		}
		if n.introduce(ctx, nth) {
			n.isAnnounced()
			pause, nth = minAskPause, -1
			select {
			case <-n.doubted:
			case <-ctx.Done():
				return
			}
			continue
		}
		pause = min(2*pause, maxAskPause)
		select {
		case <-time.After(wait):
		case <-n.membersChanged:
		case <-ctx.Done():
		}
	}
}

// introduce makes an attempt, the nth, and says whether the leader said yes.
func (n *Node) introduce(ctx context.Context, nth int) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	id := n.Identity()
	req := n.request()
	if t, _ := n.tenureState.get(); t != nil && id.Cluster != "" {
		return n.admitted(n.admit(ctx, req))
	}
	cluster, at := n.whomToAsk()
	if len(at) > 0 { // those who do not answer take their time: another one comes first each time
		at = slices.Concat(at[nth%len(at):], at[:nth%len(at)])
	}
	for i := 0; i < len(at) && ctx.Err() == nil; i++ {
		answer, err := n.ask(ctx, at[i], cluster, req)
		if err != nil {
			n.log.Debug("a member cannot be asked", "at", at[i], "err", err)
			if wire.RefusedAs(err, wire.Removed) && id.Cluster != "" {
				n.expelled()
				return false
			}
			continue
		}
		if answer.GetError() == nil || answer.GetError().Kind != clusterpb.ErrorKind_NOT_LEADER {
			return n.admitted(answer)
		}
		if next := answer.Leader; checkAddress(next) == nil && !slices.Contains(at[:i+1], next) {
			at = slices.Insert(at, i+1, next)
		}
	}
	return false
}

// request is what this host says of itself.
func (n *Node) request() *clusterpb.AdmitRequest {
	id := n.Identity()
	req := &clusterpb.AdmitRequest{
		Host: id.Host, Name: id.Name, Address: n.book.own, Durable: n.durable(), CanBeDurable: true, Version: n.config.Version,
		Commands: state.Version, Cluster: id.Cluster,
	}
	if n.gossip != nil {
		req.Gossip = n.gossip.Addr()
	}
	return req
}

// whomToAsk returns addresses of members, likely ones first, and for a host that waits the cluster that they are of.
func (n *Node) whomToAsk() (cluster string, at []string) {
	if n.Identity().Cluster != "" {
		if l := n.leader(); l.address != "" {
			at = append(at, string(l.address))
		}
		for _, a := range n.book.others() {
			if !slices.Contains(at, a) {
				at = append(at, a)
			}
		}
		return "", at
	}
	for _, m := range n.heard() {
		switch {
		case m.Cluster == "" || m.State != gossip.Alive || checkAddress(m.Address) != nil:
			continue
		case cluster == "":
			cluster = m.Cluster
		case cluster != m.Cluster:
			n.seldom.Warn("two clusters", "there are hosts of two clusters among those that --join names, and which one to join cannot "+
				"be known; name hosts of one cluster only", "one", cluster, "other", m.Cluster, "host", m.Name)
			return "", nil
		}
		at = append(at, m.Address)
	}
	return cluster, at
}

// ask asks one host.
func (n *Node) ask(ctx context.Context, at, cluster string, req *clusterpb.AdmitRequest) (*clusterpb.AdmitAnswer, error) {
	c, err := n.port.Connect(ctx, at)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if got := c.Peer().Cluster; cluster != "" && got != cluster {
		return nil, fmt.Errorf("at %s is a host of cluster %s, and not of %s", at, got, cluster)
	}
	answer, err := clusterpb.NewClusterClient(c).Admit(ctx, req)
	if err == nil && answer.GetError() == nil && answer.Cluster != c.Peer().Cluster {
		return nil, fmt.Errorf("host %s of cluster %s answers for cluster %s", c.Peer().Host, c.Peer().Cluster, answer.Cluster)
	}
	return answer, err
}

// admitted takes the leader's answer and says whether it was yes.
func (n *Node) admitted(a *clusterpb.AdmitAnswer) bool {
	text := printable(a.GetError().GetText())
	switch a.GetError().GetKind() {
	case clusterpb.ErrorKind_REMOVED:
		n.expelled()
		return false
	case clusterpb.ErrorKind_VERSION, clusterpb.ErrorKind_INVALID:
		n.fail(&refusal{ErrRefused, "the cluster does not admit this host: " + text})
		return false
	case clusterpb.ErrorKind_NAME_TAKEN:
		n.seldom.Warn("admit", "the cluster does not admit this host", "reason", text)
		return false
	}
	if a.GetError() != nil {
		n.log.Debug("not admitted yet", "reason", text)
		return false
	}
	was := n.Identity()
	if was.Cluster != "" {
		return true
	}
	if !a.Durable {
		if err := n.keepInMemory(); err != nil {
			n.log.Warn("the log is kept on disk", "err", err)
		}
		token(n.doubted) // the leader has to know
	}
	err := n.become(func(id *Identity) {
		if id.Cluster == "" {
			id.Cluster, id.Joined = a.Cluster, true
		}
	})
	if err != nil {
		n.fail(fmt.Errorf("record the cluster that this host was admitted to: %w", err))
		return false
	}
	n.log.Info("this host was admitted to a cluster", "cluster", a.Cluster, "host", was.Host, "name", was.Name)
	n.tell()
	return true
}

// expelled ends this host's part: it was removed from its cluster.
func (n *Node) expelled() {
	if err := n.become(func(id *Identity) { id.Left = true }); err != nil {
		n.log.Warn("that this host was removed cannot be recorded", "err", err)
	}
	n.outside.Store(true)
	if !n.leaving.Load() {
		n.fail(errLeft())
	}
}

// errLeft is why a host that is no member any more does not start, or stops.
func errLeft() error {
	return &refusal{ErrRemoved, "this host left its cluster or was removed from it; start it with --reset to join again, or to found a cluster of its own"}
}

// doubt has this host announce itself again: the leader does not know it.
func (n *Node) doubt(err error) {
	if wire.RefusedAs(err, wire.Removed) || status.Code(err) == codes.PermissionDenied {
		token(n.doubted)
	}
}

// heard returns what gossip knows of the other hosts.
func (n *Node) heard() []gossip.Member {
	if n.gossip == nil {
		return nil
	}
	return n.gossip.Members()
}

// tell tells gossip who this host is now. Nobody waits for it: it may take a second.
func (n *Node) tell() {
	if n.gossip == nil {
		return
	}
	n.ended.Go(func() {
		if err := n.gossip.Tell(n.member()); err != nil {
			n.log.Debug("gossip has yet to hear who this host is", "err", err)
		}
	})
}

// member is this host for gossip. A cluster is told of once it is founded: before, nobody could be admitted.
func (n *Node) member() gossip.Member {
	id := n.Identity()
	m := gossip.Member{ID: id.Host, Name: id.Name, Address: n.book.own, Version: n.config.Version, Durable: n.durable()}
	if id.stage() == member {
		m.Cluster = id.Cluster
	}
	return m
}

// printable makes text of another host fit for a person.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s[:min(len(s), 1024)], "?"))
}
