// Package lockd is one host's part of the lock manager: the thin shell of goroutines around the host's lock table
// (lockd/table) and the replicated log that keeps the state (lockd/state).
//
//	fs ── Lock Convert Release Do Commit … ──► Host ──► Table        who on this host may have what
//	 ▲                                          │  ▲
//	 │ grants, notices, answers                 │  │ Applied(changes, view)
//	 └──────────────────────────────────────────┤  │
//	                              Log.Propose ──►  cluster           raft, forwarding
//
// # Nouns
//
// A [Host] is this daemon as a lock manager; there is one for all its mounts. A [Lock] is the lock of one open
// descriptor, allocated inside the handle that fs keeps for it. A [Call] is who asks and how he can be interrupted.
// A [Notice] is one line of an event stream, and what a lock's [Listener] is told. The [Log] is what cluster provides.
//
// # What blocks
//
// Lock, Convert, Do, Remove, Rename, Commit, Invalidate, LockRange and Barrier may wait; before they do so for the
// first time they call Call.Park, once. Granting from the cache (Lock), Release, Token, listings and reads of
// [Host.View] never wait. Nothing waits without an end but a lock request that was asked to: Do and its like end
// after Config.OpTimeout with [ErrNoQuorum].
//
// # The answer is in the log
//
// A command gets the session's next number, goes to the log in a batch with all that others asked meanwhile, and is
// answered when this host applies it. A proposal that fails is sent again, with all that came after it; the
// state applies each number once. What was being asked when the session ended is asked again in the next one, unless
// it needed a lock that is lost now.
//
// # The lease
//
// The host may act on its locks until its lease ends, by CLOCK_BOOTTIME, TTL less 2% after it sent the last renewal
// that it has applied itself. Half-way nothing new is granted from the cache (notice jeopardy). At the end every lock is
// lost, and a new session is opened. [Host.Check] looks at the clock itself, so that a host that was stopped
// does not answer by what it knew before.
//
// # Locking order
//
// Host.mu guards the table, the locks and the queue of commands. It is held for microseconds, never across I/O, a
// process look-up, a callback or a channel send. Notices and calls of listeners go out after it was let go, by one
// goroutine at a time, in the order in which they happened.
package lockd
