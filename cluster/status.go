package cluster

import "github.com/hashicorp/raft"

// Status is how this host's part in the cluster stands, for listings.
type Status struct {
	Cluster string // id
	Host    string // id
	Name    string
	Role    string // leader, follower, candidate or shutdown
	Address string // that the others use
	Leader  string // address of the leader, empty if there is none
	Term    uint64
	Voters  int
	Others  int // members that are no voters

	Durable     bool   // the log is on this host's disk, else in its memory
	First, Last uint64 // entries of the log here
	Committed   uint64
	Applied     uint64
	Snapshot    uint64 // the entry that the newest snapshot is of, 0 if there is none
	SnapBytes   int64
	LogBytes    int64 // of entries since the snapshot
	Free        int64 // bytes that growth may still take; 0 or less: it is refused
	DiskError   string

	// Since the start:
	Appended  uint64 // entries that this host gave to its raft
	Forwarded uint64 // that it sent to the leader
	Received  uint64 // of the appended, those that other hosts sent
	Snapshots uint64 // taken or received
}

var roles = map[raft.RaftState]string{
	raft.Leader: "leader", raft.Follower: "follower", raft.Candidate: "candidate", raft.Shutdown: "shutdown",
}

// Status returns how things stand; valid after Start.
func (n *Node) Status() Status {
	n.Room() // asks the file system if it was not asked lately
	leader, _ := n.raft.LeaderWithID()
	id := n.Identity()
	s := Status{
		Cluster: id.Cluster, Host: id.Host, Name: id.Name,
		Role: roles[n.raft.State()], Address: string(n.trans.LocalAddr()), Leader: string(leader),
		Term: n.raft.CurrentTerm(), Committed: n.raft.CommitIndex(), Applied: n.machine.applied.Load(),
		Snapshot: n.snap.index.Load(), LogBytes: n.snap.sinceLast(), SnapBytes: n.snap.size.Load(), Free: n.room.left.Load(),
	}
	s.Appended, s.Forwarded = n.proposer.counts()
	s.Received, s.Snapshots = n.received.Load(), n.snap.taken.Load()
	s.Durable = n.durable()
	s.First, _ = n.journal.FirstIndex()
	s.Last, _ = n.journal.LastIndex()
	if p := n.diskErr.Load(); p != nil {
		s.DiskError = (*p).Error()
	}
	if f := n.raft.GetConfiguration(); f.Error() == nil {
		for _, m := range f.Configuration().Servers {
			if m.Suffrage == raft.Voter {
				s.Voters++
			} else {
				s.Others++
			}
		}
	}
	return s
}
