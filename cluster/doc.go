// Package cluster is a host's part in its cluster: the replicated log, on this host's disk and through raft, and what the
// leader does for everybody. It applies the log to the state (lockd/state) and tells the host (lockd) of every change.
//
//	lockd ── Propose, Renew ──► proposer, duty ──► raft ──► journal (raft-wal)      log/*.wal
//	                                                 │  └──► store (bbolt)           lockfs.db
//	lockd ◄─ Applied, Restored ── machine ◄──────────┘  └──► snapshots               snapshots/*
//
// A [Node] is opened in two steps. [Open] locks the data directory, verifies all that is in it and takes the port: it
// answers whether this host can run at all, and changes nothing if not. [Node.Start] applies the log and goes on.
//
// # What is on disk
//
//	lock         flock of the running daemon, and its pid
//	lockfs.db    who this host is, raft's term and vote, the list of the log's segments, the mounts of the last run, where to
//	             look for the others, whether the log is in memory, and the snapshot that last took the log's place
//	log/         the log's segments, 4 MiB each, and a reserve of two more
//	snapshots/   the newest snapshot
//	init         RequestInit asks for a cluster, and init.answer says why there is none
//	old-TIME/    what Config.Reset moved aside
//
// An entry is on disk, with one fsync for all that are appended together, before it is applied or answered. A
// snapshot is taken after 32,768 entries or 16 MiB of them (or the size of the last snapshot, if that is more), and
// the log before it is dropped but for the last 8 MiB, at most 4,096 entries. So beside twice the state's size the
// disk holds some 40 MiB at most, the reserve included, and what is appended while a snapshot is written; 16 MiB more
// while one is sent to another host.
//
// # Damage
//
// A crash leaves a torn batch at the end of the log, unfinished snapshots and files that were about to be removed. These
// are told apart from damage (segments.go) and put in order. Damage is never worked around: an older snapshot or a
// shorter log would silently undo what was acknowledged. Every entry and every value has a checksum that is checked
// at the start and at each read. What cannot be told from a crash: after a power cut, damage to the very last
// batch that looks like sectors never written; after a clean stop even that is noticed.
//
// # A full disk
//
// [Node.Room] refuses growth while there is still room for the next segment and snapshot. Segments are allocated whole, so
// appends do not need room until the next one; when there is none for it, the reserve gives way. When that is
// used up too, appends fail: raft steps down, proposals fail with [ErrNoSpace], and the node elects itself and
// goes on as soon as there is room. Nothing acknowledged is lost, reads go on, but leases run out.
//
// # Members
//
// A host is founder of its cluster, or waits until a member admits it (announce.go, admit.go, founding.go); what it is stands in
// lockfs.db before anything follows from it, so a crash neither founds a second cluster nor forgets a first.
//
//	           RequestInit
//	waiting ─────────────────► founding ──► member ──────────────► gone
//	   │                          ▲            ▲   Leave, RemoveHost
//	   └── gossip shows a member, │            │
//	       its leader admits ─────┼────────────┘
//	                  no Join ────┘
//
// The leader alone changes the members, one at a time, and sees to it that enough of those that are there have a vote
// (members.go). Names and addresses are on the list of hosts in the state; the newest address that is known of a host counts, and
// whoever answers there has to be that host (addresses.go).
//
// # Voters and others
//
// What the log has is committed once most voters have it on disk. A host that is no voter keeps its log in memory (memory.go) and
// begins at its snapshot when it is started again. Before it may become a voter all goes to disk (prepare.go), for good.
//
// # Snapshots from elsewhere
//
// A host that is new, or was away while the others dropped what it lacks, gets the leader's snapshot. It is read to its end, checksums
// and all, before anything gives way to it, and lockfs.db notes it before it is there (install.go): so a log that ends before
// its snapshot is told from one that lost its end. While one is sent the leader keeps the entries that follow it (sending.go),
// at most as many as there may be between two snapshots.
//
// An operator's snapshot ([Node.SaveSnapshot], saved.go) is the state in a frame with a checksum of its own. [Restore] makes a new
// cluster of it.
package cluster
