package lockd

import "time"

// Status is how this host is, for `.lockfs/status` and the like.
type Status struct {
	Name      string
	Session   uint64 // 0: none now
	Lease     time.Duration
	Jeopardy  bool
	Draining  bool
	Index     uint64 // applied
	Leader    string
	Locks     int    // held and waiting
	Waiting   int    // of these, waiting
	Cached    int    // resources held by the host that nobody here uses
	Pending   int    // commands not answered yet
	Deadlocks uint64 // verdicts since the start
	Losses    uint64 // sessions lost since the start
	Counters  Counters
	Nodes     uint64
	Bytes     uint64
}

// States are what State may return.
var States = []string{"safe", "jeopardy", "lost", "draining"}

// State says in one word how the host is: safe, in jeopardy (half of its lease is gone), lost (it has no session) or draining.
func (s Status) State() string {
	switch {
	case s.Draining:
		return "draining"
	case s.Session == 0:
		return "lost"
	case s.Jeopardy:
		return "jeopardy"
	}
	return "safe"
}

// Counters count since the start.
type Counters struct {
	Grants      uint64  // locks and conversions granted
	Warm        uint64  // of these, at once and from what the host had
	Waits       uint64  // requests that could not be granted at once
	Busy        uint64  // of these, refused since they must not wait
	Timeouts    uint64  // whose time was over
	Interrupts  uint64  // interrupted
	Blocking    uint64  // blocking ASTs told to holders
	LocksLost   uint64  // taken away: with the session, or by their time to live
	Commands    uint64  // proposed
	Entries     uint64  // that they were proposed in
	Failed      uint64  // entries whose proposal failed: their commands are proposed again
	RangeLocks  uint64  // byte-range locks asked for
	Notices     uint64  // told to subscribers
	Recalls     uint64  // host locks that were in the way of other hosts
	Reports     uint64  // locks and waits told to the cluster
	Commits     uint64  // of values
	Commit      Latency // of an entry, until it is known to be committed
	Subscribers int
}

// Status returns how this host is.
func (h *Host) Status() Status {
	v := h.View()
	s := Status{Name: h.cfg.Name, Lease: h.LeaseLeft(), Index: v.Index()}
	s.Nodes, s.Bytes = v.Counts()
	h.subsMu.Lock()
	subscribers := len(h.subs)
	h.subsMu.Unlock()
	h.lockNow()
	defer h.unlock()
	s.Session, s.Jeopardy, s.Draining, s.Leader = h.lease.session, h.lease.jeopardy, h.phase == draining, h.leader
	s.Locks, s.Waiting, s.Cached = h.table.Len(), h.table.Waiting(), h.table.Cached()
	s.Deadlocks, s.Losses, s.Counters = h.deadlocks, h.losses, h.counts
	s.Counters.Subscribers = subscribers
	if h.queue != nil {
		s.Pending = len(h.queue.list)
	}
	s.Pending += len(h.held)
	return s
}

// SetLeader tells the host who leads the cluster, for status and notices; empty: nobody. Cluster calls it.
func (h *Host) SetLeader(name string) {
	h.mu.Lock()
	if h.leader != name {
		h.leader = name
		h.publish(Notice{Kind: NoticeLeader, Time: h.wall(), By: Party{Host: name}})
	}
	h.unlock()
}
