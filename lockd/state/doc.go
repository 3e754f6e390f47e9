// Package state is the replicated state machine of lockfs: the tree, its attributes and values, the sessions of the
// hosts, the locks that hosts hold and wait for, the byte-range locks of their processes, and the list of the hosts.
//
//	log entry ──► Apply ──► State ──► []Change     what happened, in order: grants, recalls, answers, events
//	(Batch)                   │
//	                          └─► View            an immutable copy, O(1): reads, listings, the snapshot
//
// Every host applies the same entries in the same order and comes to the same state and the same changes. So nothing
// here has a clock, randomness, a goroutine, I/O (a snapshot's writer aside) or map order, and time is what a
// command says it is.
//
// # Nouns
//
// A [Node] is a file or directory: a resource, with its value block. A session is one run of one host's daemon;
// its id is never used again. The holder of a lock is a session: which of the host's processes share it is the
// host's own affair (package lockd/table). A host lock is raised by Acquire, lowered by Release, and recalled
// when it is in another's way. The rules of the queues are those of package lockd/queue.
//
// What processes hold and wait for in detail a host tells by reports, some time after the fact ([Report]): for listings,
// and for the search for deadlocks, which goes over reports, queues and byte ranges alike. A cycle is a [Suspicion] until all
// its hosts have confirmed it; then the youngest wait is its victim.
//
// # Exactly once
//
// A command of a session is applied only if its seq is the session's last plus one. A repeat is ignored, a gap is
// answered with [Gap] and changes nothing, so the host may send all again from there; a command of a session that
// has ended is answered with [Done] and [Ended]. Commands without a session are harmless when repeated.
//
// # Recalls
//
// For each holder of a lock the state knows the first request that it holds up, and the first try among them.
// Whenever one of these two changes, the holder is told ([Recall], [RecallCancelled]). A waiting request is told
// of by one recall only, so a queue of a thousand costs a recall a hand-off and not a thousand.
//
// # Tokens
//
// Every grant and every raise of a host lock takes the next number of one counter that only grows and is never
// below the index of its log entry (Change.Raise). A token is (View.TokenBase + raise) << 20 | the host's count.
//
// # Views and memory
//
// The trees are copy-on-write B-trees (tidwall/btree): a copy is O(1), and the first change after it copies the nodes on its
// way. (An immutable radix tree takes 320 bytes an entry, its two channels alone more than this whole state: a small
// file with its name and one host lock takes some 330 bytes, see TestMemory.) Only parts that changed since are
// copied, so publishing a view after every entry costs little. What an entry writes to in place, contentions, byte
// ranges and sessions, carries the epoch that it was made in, and is cloned once a view has it.
//
// # Caveats
//
// An error of [State.Apply] means that this program does not know what the entry wants: the state must not be used
// any further and the node must stop. Values in a [Node] or [Change] are shared with the state and never to be
// written to.
package state
