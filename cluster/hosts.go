package cluster

import (
	"cmp"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/cluster/gossip"
)

// HostStatus is how a host of the cluster stands, as this one knows it.
type HostStatus struct {
	Name    string // empty: it has yet to say
	ID      string
	Address string
	Role    string // leader, voter, nonvoter; empty: it is on the list only
	State   HostState
	Session uint64 // 0: none
	Renewed uint64 // the entry that last renewed the session
	Version string
	Durable bool // its log is on disk
}

// HostState is whether a host seems to be there.
type HostState string

const (
	StateAlive   HostState = "alive"
	StateSuspect HostState = "suspect" // gossip does not find it, but its session goes on
	StateFailed  HostState = "failed"  // neither
	StateLeft    HostState = "left"    // it said that it stops
)

// Hosts lists the hosts of the cluster, by name; valid after Start.
func (n *Node) Hosts() []HostStatus {
	view, leader := n.view(), n.leader()
	all := map[string]HostStatus{}
	for h := range view.Hosts() {
		all[h.ID] = HostStatus{ID: h.ID, Name: h.Name, Address: h.Address, Version: h.Version, Durable: h.Durable}
	}
	for _, s := range n.book.configured() {
		h, listed := all[string(s.ID)]
		if !listed {
			h = HostStatus{ID: string(s.ID), Address: string(s.Address)}
		}
		switch {
		case s.ID == leader.id:
			h.Role = "leader"
		case s.Suffrage == raft.Voter:
			h.Role = "voter"
		default:
			h.Role = "nonvoter"
		}
		all[h.ID] = h
	}
	var list []HostStatus
	for id, h := range all {
		h.State = n.seems(id)
		for s := range view.Sessions() {
			if s.Host == h.Name {
				h.Session, h.Renewed = s.ID, s.Renewed
			}
		}
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b HostStatus) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Found lists the hosts that gossip finds beside this one, members or not, as NAME (ADDRESS); valid after Start. A host that waits to
// be admitted and finds none has wrong addresses in Join, no way to them, or another GossipKey than they.
func (n *Node) Found() []string {
	var list []string
	for _, m := range n.heard() {
		if m.State == gossip.Alive {
			list = append(list, printable(m.Name)+" ("+printable(m.Address)+")")
		}
	}
	slices.Sort(list)
	return list
}

// seems says whether a host seems to be there: by gossip and by its session.
func (n *Node) seems(id string) HostState {
	if id == n.id() {
		return StateAlive
	}
	state := StateFailed
	for _, m := range n.heard() {
		if m.ID == id {
			state = heardStates[m.State]
		}
	}
	if state == StateAlive || !n.hasSession(id) {
		return state
	}
	if n.gossip == nil {
		return StateAlive
	}
	return StateSuspect
}

var heardStates = map[gossip.State]HostState{gossip.Alive: StateAlive, gossip.Failed: StateFailed, gossip.Left: StateLeft}

// hasSession says whether a host has a session.
func (n *Node) hasSession(id string) bool {
	view := n.view()
	h, listed := view.Host(id)
	if !listed {
		return false
	}
	for s := range view.Sessions() {
		if s.Host == h.Name {
			return true
		}
	}
	return false
}
