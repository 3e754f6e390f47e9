package cluster

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// The figures of raft. What an idle cluster costs is mostly its messages, of which there are three kinds. A leader sends
// heartbeats each tenth to fifth of its heartbeat timeout, so that is calmTimeout while there is a leader (Node.pace); and every
// commitTimeout, or twice that, a message that tells of commits, which hints have told of by then.
const (
	// Without a word from the leader before it is missed and an election begins, and from a quorum before a leader steps down.
	missTimeout   = 1200 * time.Millisecond
	calmTimeout   = 4 * time.Second
	commitTimeout = 2 * time.Second
)

// electionSlot is how long it takes to be elected, mostly.
const electionSlot = 50 * time.Millisecond

// hurry makes the only voter of its cluster stand for election now: nobody else can be the leader.
func (n *Node) hurry() error {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return err
	}
	servers := f.Configuration().Servers
	if len(servers) != 1 || string(servers[0].ID) != n.id() || servers[0].Suffrage != raft.Voter {
		return nil
	}
	return n.pace(true)
}

// pace has raft wait for missTimeout if the leader is missed, and else for calmTimeout. When the timeout becomes shorter raft looks
// at once when it last heard of the leader.
func (n *Node) pace(missed bool) error {
	n.pacing.Lock()
	defer n.pacing.Unlock()
	if n.missed == missed {
		return nil
	}
	n.missed = missed
	return n.raft.ReloadConfig(n.reloadable(n.trailing))
}

// reloadable is what raft may be told while it runs; n.pacing is held.
func (n *Node) reloadable(trailing uint64) raft.ReloadableConfig {
	timeout := n.config.calm
	if n.missed {
		timeout = n.config.miss
	}
	return raft.ReloadableConfig{
		TrailingLogs: trailing, SnapshotInterval: 24 * time.Hour, SnapshotThreshold: 1 << 62,
		HeartbeatTimeout: timeout, ElectionTimeout: timeout,
	}
}

// trail sets how many entries the next snapshot leaves before it.
func (n *Node) trail(entries uint64) error {
	n.pacing.Lock()
	defer n.pacing.Unlock()
	n.trailing = entries
	return n.raft.ReloadConfig(n.reloadable(entries))
}

// miss has this host stand for election soon after the leader fell silent. (raft alone looks at random moments, each one to two of
// its timeouts after the one before, and so might take three of them.)
func (n *Node) miss() {
	began := time.Now()
	look := time.NewTimer(n.config.miss)
	defer look.Stop()
	for {
		select {
		case <-n.stop:
			return
		case <-n.led: // till now, by this host
		case <-look.C:
		}
		missed, again := n.patience(began)
		if err := n.pace(missed); err != nil {
			n.log.Warn("raft does not take its timeouts", "err", err)
		}
		look.Reset(again)
	}
}

// patience says whether the leader is missed, at the latest since began, and when to ask again. Who leads, or has no vote, misses
// nobody.
func (n *Node) patience(began time.Time) (missed bool, again time.Duration) {
	later := 4 * n.config.miss
	switch n.raft.State() {
	case raft.Candidate:
		return true, n.config.miss
	case raft.Follower:
	default:
		return false, later
	}
	now, heard := time.Now(), n.raft.LastContact()
	if heard.Before(began) {
		heard = began
	}
	if left := n.config.miss - now.Sub(heard); left > 0 {
		return false, left
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
		return false, later
	}
	n.pacing.Lock()
	missed = n.missed // already: raft goes on by itself
	n.pacing.Unlock()
	if turn := untilTurn(now, rank, len(voters)); turn > 0 && !missed {
		return false, turn
	}
	return true, n.config.miss
}

// untilTurn is how long it is until the turn of a voter. Two that stand at once get each the vote of the other's supporters and
// neither is elected; so they take turns, if their clocks agree.
func untilTurn(now time.Time, rank, voters int) time.Duration {
	round := electionSlot * time.Duration(voters)
	into := (time.Duration(now.UnixNano()) - electionSlot*time.Duration(rank)) % round
	if into < electionSlot/2 {
		return 0
	}
	return round - into
}
