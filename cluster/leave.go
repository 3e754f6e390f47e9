package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/cluster/clusterpb"
	"github.com/lockfs/lockfs/cluster/wire"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// What is in the way of a host's leaving or removal.
var (
	ErrAlive   = errors.New("the host seems to be alive")
	ErrUnknown = errors.New("no host of the cluster has that name")
	ErrQuorum  = errors.New("the cluster would be without a quorum")
	ErrLast    = errors.New("it is the only host of its cluster")
)

// Leave takes this host out of its cluster for good: it hands on leadership and its vote, and its data directory can only be
// used with Config.Reset from then on. The host's session should have ended before; this node must be closed after. After an
// error, or when ctx ends first, the host may or may not have left: Leave can be called again.
func (n *Node) Leave(ctx context.Context) error {
	n.leaving.Store(true)
	if err := n.leave(ctx); err != nil {
		n.leaving.Store(false)
		return fmt.Errorf("lockfs: leave the cluster: %w", err)
	}
	return nil
}

func (n *Node) leave(ctx context.Context) error {
	req := &clusterpb.LeaveRequest{Host: n.id()}
	return n.persist(ctx, func() (again bool, err error) {
		if n.outside.Load() {
			return false, nil
		}
		if t, _ := n.tenureState.get(); t != nil {
			if err := n.abdicate(ctx); err != nil {
				return !errors.Is(err, ErrLast), err
			}
			return true, ErrNoLeader
		}
		if again, err := n.requestLeave(ctx, req); err != nil {
			return again, err
		}
		n.expelled()
		return false, nil
	})
}

// RemoveHost takes another host out of the cluster: one that is gone and will not come back. With force even one that seems to be
// alive (ErrAlive); it stops then, and its session runs out. A host that is not known by its name may be named by its id.
func (n *Node) RemoveHost(ctx context.Context, name string, force bool) error {
	req := &clusterpb.LeaveRequest{Name: name, Operator: true, Force: force}
	err := n.persist(ctx, func() (bool, error) { return n.requestLeave(ctx, req) })
	if err != nil {
		return fmt.Errorf("lockfs: remove host %s: %w", name, err)
	}
	return nil
}

// leavePause is the pause between two attempts.
const leavePause = 200 * time.Millisecond

// persist attempts something until it is done, or there is no use in it, or the context is done.
func (n *Node) persist(ctx context.Context, attempt func() (again bool, err error)) error {
	for {
		again, err := attempt()
		if err == nil || !again {
			return err
		}
		select {
		case <-time.After(leavePause):
		case <-n.stop:
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}

// requestLeave makes one request to the leader, which may be this host, and says whether another may do better.
func (n *Node) requestLeave(ctx context.Context, req *clusterpb.LeaveRequest) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var a *clusterpb.LeaveAnswer
	if t, _ := n.tenureState.get(); t != nil {
		a = n.letGo(ctx, n.id(), req)
	} else {
		l := n.leader()
		if l.id == "" {
			return true, ErrNoLeader
		}
		c, err := n.port.Connect(ctx, string(l.address))
		if err != nil {
			return !wire.RefusedAs(err, wire.Removed), err
		}
		defer c.Close()
		if a, err = clusterpb.NewClusterClient(c).Leave(ctx, req); err != nil {
			return true, err
		}
	}
	if a.Error == nil {
		return false, nil
	}
	for _, k := range kinds {
		if k.kind == a.Error.Kind {
			return errors.Is(k.err, ErrNoLeader), &refusal{k.err, printable(a.Error.Text)}
		}
	}
	return false, errors.New(printable(a.Error.Text))
}

// abdicate makes another host the leader, so that this one can leave.
func (n *Node) abdicate(ctx context.Context) error {
	if n.voters() < 2 {
		if err := n.appoint(ctx); err != nil {
			return err
		}
	}
	var err error
	if !within(closeTimeout, func() { err = n.raft.LeadershipTransfer().Error() }) {
		err = errors.New("it takes too long")
	}
	if err != nil {
		return fmt.Errorf("make another host the leader: %w", err)
	}
	return nil
}

// appoint gives another host a vote, since this one has the only one.
func (n *Node) appoint(ctx context.Context) error {
	var errs []error
	for _, s := range n.book.configured() {
		if string(s.ID) == n.id() {
			continue
		}
		err := n.promote(ctx, s.ID)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return fmt.Errorf("%w: there is nobody to hand it on to; stop it instead, and remove its data directory if it is no longer wanted", ErrLast)
	}
	return fmt.Errorf("give another host a vote: %w", errors.Join(errs...))
}

// Leave answers a host that leaves, or one on which an operator removes another.
func (s *service) Leave(ctx context.Context, req *clusterpb.LeaveRequest) (*clusterpb.LeaveAnswer, error) {
	if err := s.members(ctx); err != nil {
		return nil, err
	}
	from, _ := wire.PeerOf(ctx)
	return s.node.letGo(ctx, from.Host, req), nil
}

// letGo takes a host off the list, then out of raft's configuration. It may be repeated at any time.
func (n *Node) letGo(ctx context.Context, from string, req *clusterpb.LeaveRequest) *clusterpb.LeaveAnswer {
	no := func(err error) *clusterpb.LeaveAnswer {
		return &clusterpb.LeaveAnswer{Error: toWire(err), Leader: string(n.leader().address)}
	}
	done, err := n.alter(ctx)
	if err != nil {
		return no(err)
	}
	defer done()
	id, err := n.toRemove(from, req)
	if err != nil {
		return no(err)
	}
	if id == "" {
		return &clusterpb.LeaveAnswer{} // it is none already
	}
	if err := n.mayLose(id); err != nil {
		return no(err)
	}
	if _, listed := n.view().Host(string(id)); listed {
		err := n.commit(ctx, &statepb.Command{Op: &statepb.Command_RemoveHost{RemoveHost: &statepb.RemoveHost{Id: string(id)}}})
		if err != nil {
			return no(err)
		}
	}
	if err := n.remove(id); err != nil {
		return no(err)
	}
	return &clusterpb.LeaveAnswer{}
}

// toRemove finds the host that is meant, empty if it is no member, and says why it should stay one.
func (n *Node) toRemove(from string, req *clusterpb.LeaveRequest) (raft.ServerID, error) {
	id := req.Host
	if id == "" {
		id = req.Name
		if h, is := n.view().HostNamed(req.Name); is {
			id = h.ID
		}
	}
	_, listed := n.view().Host(id)
	_, configured := n.configured(raft.ServerID(id))
	switch {
	case !req.Operator && from != id:
		return "", errors.New("a host that leaves asks for itself")
	case !listed && !configured && !req.Operator:
		if err := n.raft.VerifyLeader().Error(); err != nil { // another leader may know better
			return "", changeError(err)
		}
		return "", nil
	case !listed && !configured:
		return "", &refusal{ErrUnknown, fmt.Sprintf("no host of the cluster has the name %q; see lockfs hosts", printable(req.Name))}
	case id == n.id() && req.Operator:
		return "", &refusal{ErrAlive, "it is the leader, and alive: use lockfs leave on the host itself"}
	case req.Operator && !req.Force && n.seems(id) != StateFailed && n.seems(id) != StateLeft:
		return "", &refusal{ErrAlive, "it seems to be alive (" + string(n.seems(id)) + "): use lockfs leave on the host itself, stop it and wait " +
			"until its session has ended, or remove it with --force"}
	}
	return raft.ServerID(id), nil
}
