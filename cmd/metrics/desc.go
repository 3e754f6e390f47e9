package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
)

const prefix = "lockfs_"

// figure describes one metric.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// described are all figures, for Describe.
var described []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc(prefix+name, help, labels, nil)
	described = append(described, d)
	return d
}

func gauge(name, help string, labels ...string) figure {
	return figure{describe(name, help, labels...), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) figure {
	return figure{describe(name+"_total", help, labels...), prometheus.CounterValue}
}

// The figures of this host's locks.
var (
	locksHeld     = gauge("locks_held", "Locks that processes of this host have.")
	locksWaiting  = gauge("locks_waiting", "Requests and conversions of this host that wait.")
	locksCached   = gauge("locks_cached", "Resources of which this host has kept a lock that no process uses.")
	grants        = counter("grants", "Locks and conversions granted: from the cache, without the log, or cold.", "path")
	waits         = counter("waits", "Requests that could not be granted at once.")
	refused       = counter("refused", "Requests that ended without a lock, by why.", "reason")
	blocking      = counter("blocking_notices", "Blocking ASTs told to holders.")
	recalls       = counter("recalls", "Locks of this host that were asked back for other hosts.")
	locksLost     = counter("locks_lost", "Locks taken away, with the session or by their time to live.")
	deadlocks     = counter("deadlocks", "Requests of this host that were ended to break a deadlock.")
	rangeRequests = counter("range_requests", "Byte-range locks asked for by fcntl(2).")
	valueCommits  = counter("value_commits", "Values committed by this host.")
	reports       = counter("reports", "Locks and waits that this host told the others of.")
	notices       = counter("notices", "Notices told to readers of events.")
	subscribers   = gauge("subscribers", "Open descriptors of events.")
)

// The figures of this host's session.
var (
	sessionState = gauge("session_state", "1 for the state that this host is in, 0 for the others.", "state")
	leaseLeft    = gauge("lease_remaining_seconds", "How long this host may act on what it knows.")
	sessionsLost = counter("sessions_lost", "Sessions that this host lost, and all locks with them.")
)

// The figures of what this host proposes.
var (
	commands = counter("commands", "Commands of this host that were proposed, those proposed again included.")
	entries  = counter("proposals", "Log entries that they were proposed in.")
	failed   = counter("proposals_failed", "Proposals whose outcome was an error; their commands are proposed again.")
	pending  = gauge("commands_pending", "Commands of this host that are not answered yet.")
	commit   = describe("commit_duration_seconds", "From the proposal of an entry by this host until it is known to be committed.")
)

// The figures of the replicated state, the same on all hosts that have applied the same entries.
var (
	stateNodes     = gauge("nodes", "Files and directories of the cluster.")
	stateNodesMax  = gauge("nodes_limit", "Their limit.")
	stateBytes     = gauge("value_bytes", "Size of all values and attributes of the cluster.")
	stateBytesMax  = gauge("value_bytes_limit", "Its limit.")
	stateSessions  = gauge("sessions", "Sessions of the cluster.")
	stateHostLocks = gauge("host_locks", "Locks that a host has or waits for, cached and intents included.", "host")
	stateRanges    = gauge("host_ranges", "Byte-range locks that a host has or waits for.", "host")
	stateReports   = gauge("host_reports", "Locks and waits that a host has told the others of.", "host")
	hosts          = gauge("hosts", "Hosts of the cluster, by role and state.", "role", "state")
)

// The figures of this host's copy of the log.
var (
	leader        = gauge("leader", "1 if this host leads the cluster.")
	leaderKnown   = gauge("leader_known", "1 if this host knows a leader.")
	voter         = gauge("voters", "Hosts with a vote.")
	term          = gauge("term", "Raft's term.")
	committed     = gauge("commit_index", "The last entry that this host knows to be committed.")
	applied       = gauge("applied_index", "The last entry that this host has applied.")
	logFirst      = gauge("log_first_index", "The first entry that this host still has.")
	logLast       = gauge("log_last_index", "The last entry that this host has.")
	logBytes      = gauge("log_bytes", "Size of the entries since the last snapshot.")
	snapshotIndex = gauge("snapshot_index", "The entry that the last snapshot is of.")
	snapshotBytes = gauge("snapshot_bytes", "Size of the last snapshot.")
	snapshots     = counter("snapshots", "Snapshots taken, or received from the leader.")
	diskLeft      = gauge("disk_left_bytes", "What values and the log may still grow by on the disk of the data directory.")
	diskError     = gauge("disk_error", "1 while the log cannot be written.")
	appended      = counter("entries_appended", "Entries that this host gave to the log as the leader.")
	forwarded     = counter("entries_forwarded", "Entries that this host sent to the leader.")
	received      = counter("entries_received", "Entries that other hosts sent to this one as the leader.")
	certificate   = gauge("certificate_expiry_timestamp_seconds", "When this host's certificate ends.")
)

// The figures of the mounts.
var (
	fuseRequests = counter("fuse_requests", "Requests of the kernel.", "mountpoint", "view", "op")
	fuseWaiting  = gauge("fuse_requests_waiting", "Requests of the kernel that wait for a lock or for the cluster.", "mountpoint", "view")
)

// What runs.
var (
	build = gauge("build_info", "Always 1.", "version", "goversion", "revision")
	host  = gauge("host_info", "Always 1.", "host", "cluster", "address")
)
