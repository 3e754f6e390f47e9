package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// The figures of raft. What an idle cluster costs is mostly its messages, of which there are three kinds. A leader sends
// heartbeats each tenth to fifth of its own heartbeat timeout, so it takes a longer one than its followers (Node.pace); and every
// commitTimeout, or twice that, a message that tells of commits, which hints have told of by then.
const (
	heartbeatTimeout = 800 * time.Millisecond // without a word from the leader, before a follower stands for election
	electionTimeout  = heartbeatTimeout       // and again, at least
	leaseTimeout     = heartbeatTimeout       // when a leader without a quorum steps down
	leaderHeartbeat  = 2500 * time.Millisecond
	commitTimeout    = time.Second
)

// electionSlot is how long it takes to be elected, mostly.
const electionSlot = 50 * time.Millisecond

// hurry makes the only voter of its cluster stand for election now and not after a heartbeat's timeout: nobody else can
// be the leader. raft looks for the leader at once when that timeout is made shorter.
func (n *Node) hurry() error {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	servers := f.Configuration().Servers
	if len(servers) != 1 || string(servers[0].ID) != n.id() || servers[0].Suffrage != raft.Voter {
		return nil
	}
	return n.stand()
}

// stand has raft look for the leader now, and stand for election if it heard nothing of one for heartbeatTimeout.
func (n *Node) stand() error {
	n.pacing.Lock()
	defer n.pacing.Unlock()
	if n.slow { // it leads already
		return nil
	}
	longer := n.reloadable(n.trailing)
	longer.ElectionTimeout++
	longer.HeartbeatTimeout++
	if err := n.raft.ReloadConfig(longer); err != nil {
		return err
	}
	return n.raft.ReloadConfig(n.reloadable(n.trailing))
}

// miss stands for election soon after the leader fell silent. raft alone looks at random moments, each one to two
// heartbeatTimeouts after the one before, and so might take three of them.
func (n *Node) miss() {
	look := time.NewTimer(heartbeatTimeout)
	defer look.Stop()
	for {
		select {
		case <-n.stop:
			return
		case <-look.C:
		}
		wait := n.patience(time.Now())
		if wait <= 0 {
			if err := n.stand(); err != nil {
				n.log.Warn("raft does not take its timeouts", "err", err)
			}
			wait = heartbeatTimeout
		}
		look.Reset(wait)
	}
}

// patience is how long this host has to wait for the leader before it stands for election. Who may not stand, or leads, need not
// look soon.
func (n *Node) patience(now time.Time) time.Duration {
	const long = 4 * heartbeatTimeout
	heard := n.raft.LastContact()
	if n.raft.State() != raft.Follower || heard.IsZero() {
		return long
	}
	if left := heartbeatTimeout - now.Sub(heard); left > 0 {
		return left
	}
	var voters []string
	for _, s := range n.book.configured() {
		if s.Suffrage == raft.Voter {
			voters = append(voters, string(s.ID))
		}
	}
	slices.Sort(voters)
	rank := slices.Index(voters, n.id())
	if rank < 0 {
		return long
	}
	return untilTurn(now, rank, len(voters))
}

// untilTurn is how long it is until the turn of a voter. Two that stand at once get each the vote of the other's supporters and
// neither is elected; so they take turns, if their clocks agree.
func untilTurn(now time.Time, rank, voters int) time.Duration {
	round := electionSlot * time.Duration(voters)
	into := (time.Duration(now.UnixNano()) - electionSlot*time.Duration(rank)) % round
	if into < electionSlot/4 {
		return 0
	}
	return round - into
}

// reloadable is what raft may be told while it runs; n.pacing is held.
func (n *Node) reloadable(trailing uint64) raft.ReloadableConfig {
	c := raft.ReloadableConfig{
		TrailingLogs: trailing, SnapshotInterval: 24 * time.Hour, SnapshotThreshold: 1 << 62,
		HeartbeatTimeout: heartbeatTimeout, ElectionTimeout: electionTimeout,
	}
	if n.slow {
		c.HeartbeatTimeout, c.ElectionTimeout = leaderHeartbeat, leaderHeartbeat
	}
	return c
}

// pace has raft send heartbeats as a leader does, or wait for them as the others do.
func (n *Node) pace(leads bool) {
	n.pacing.Lock()
	defer n.pacing.Unlock()
	n.slow = leads
	if err := n.raft.ReloadConfig(n.reloadable(n.trailing)); err != nil {
		n.log.Warn("raft does not take its timeouts", "err", err)
	}
}

// trail sets how many entries the next snapshot leaves before it.
func (n *Node) trail(entries uint64) error {
	n.pacing.Lock()
	defer n.pacing.Unlock()
	n.trailing = entries
	return n.raft.ReloadConfig(n.reloadable(entries))
}
