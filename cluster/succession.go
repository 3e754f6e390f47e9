package cluster

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// successionTurn is how long a voter waits for the one before it to have had a leader elected.
const successionTurn = 150 * time.Millisecond

// succession is the end of one leader's daemon, as a host that followed it sees it: the link to it broke and its port refuses
// connections. Nobody has to wait then until the leader is missed. The voters that are left, in the order of their ids, tell one
// after the other the next one to stand for election, until there is a leader. (As raft does to hand on the leadership; a voter
// whose log is behind is not elected.) Where it was the network that refused, and the leader goes on, it is deposed: that costs a
// moment and no more.
type succession struct {
	of     leader
	worked bool // there was a link
	begun  bool
}

// ended is told how a link to the leader, or the attempt to make one, ended.
func (s *succession) ended(n *Node, of leader, worked bool, err error) {
	if s.of != of {
		*s = succession{of: of}
	}
	s.worked = s.worked || worked
	if s.begun || !s.worked || !errors.Is(err, syscall.ECONNREFUSED) {
		return
	}
	turn, next := n.heir(of.id)
	if next.ID == "" {
		return
	}
	s.begun = true
	if err := n.pace(true); err != nil { // who is not elected tries again soon
		n.log.Warn("raft does not take its timeouts", "err", err)
	}
	n.ended.Go(func() { n.succeed(of, time.Now(), turn, next) })
}

// heir returns this host's turn among the voters without the leader that ended, and whom it tells to stand; nobody if this host
// has no vote or is the only one left.
func (n *Node) heir(gone raft.ServerID) (turn time.Duration, next raft.Server) {
	voters := slices.DeleteFunc(slices.Clone(n.book.configured()), func(s raft.Server) bool { return s.Suffrage != raft.Voter || s.ID == gone })
	slices.SortFunc(voters, func(a, b raft.Server) int { return cmp.Compare(a.ID, b.ID) })
	rank := slices.IndexFunc(voters, func(s raft.Server) bool { return string(s.ID) == n.id() })
	if rank < 0 || len(voters) < 2 {
		return 0, raft.Server{}
	}
	return successionTurn * time.Duration(rank), voters[(rank+1)%len(voters)]
}

// succeed tells next to stand, when it is this host's turn and there is no leader by then.
func (n *Node) succeed(gone leader, since time.Time, turn time.Duration, next raft.Server) {
	select {
	case <-time.After(turn):
	case <-n.stop:
		return
	}
	over := func() bool {
		now := n.leader()
		return now.id != "" && now.id != gone.id || n.raft.LastContact().After(since)
	}
	if over() {
		return
	}
	n.log.Info("the leader's daemon has ended: another host is to lead", "leader", n.nameOf(gone.id), "next", n.nameOf(next.ID))
	req := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id()), Addr: n.trans.EncodePeer(raft.ServerID(n.id()), n.trans.LocalAddr()),
	}}
	err := n.trans.TimeoutNow(next.ID, next.Address, &req, &raft.TimeoutNowResponse{})
	if errors.Is(err, io.EOF) && !over() { // the connection was an old one
		err = n.trans.TimeoutNow(next.ID, next.Address, &req, &raft.TimeoutNowResponse{})
	}
	if err == nil {
		return
	}
	n.log.Info("it cannot be told to", "next", n.nameOf(next.ID), "err", err)
}
