// Package table is one host's lock table: it shares what the host holds in the
// replicated state out to the descriptors of its processes, and decides what to
// ask of the state, what to keep cached and when to give it up.
//
//	Try, Request, Convert, Cancel, Release ──►┌───────┐──► Events     granted, refused, blocking,
//	Applied(state.Change), Restored(view) ───►│ Table │               waiting, deadlock, lost …
//	Tick(now), Renewed, Session, Lost ───────►└───────┘──► Proposals  Acquire, Release, Cancel,
//	                                                                  InUse: in this order
//
// It is pure: no clock, no goroutine, no I/O, no map order in what comes out.
// The shell (package lockd) feeds it under one mutex and, after each input,
// takes the output ([Table.Take]).
//
// # Nouns
//
// A [Lock] is one descriptor's lock or request. A resource is a node of the tree;
// its queue (package queue) orders the locks of this host. The host lock is what
// the host has of the resource in the state; it is the ceiling of that queue. It is
// raised by Acquire and lowered by Release. A lock with a mode of CR or more has
// an intent, CR or CW, on each ancestor of its resource: a count in the ancestor's queue.
//
// # The way of a request
//
// A request passes the queues of its path, root first: at each ancestor it
// needs the intent, at the end the lock. Where it has to wait it keeps the
// intents behind it.
//
//	open db/x EX:   /  CW ──► db  CW ──► db/x  EX ──► granted
//	                    what the host lock does not cover is asked for: one Acquire
//	                    for the resource where it waits and all below it on the path
//
// [Table.Try] is the same without waiting, and the hot path: a map look-up, a
// counter on each ancestor, an entry in one queue. It allocates nothing.
//
// # What counts when
//
// What the state granted counts when its change is applied here. What the table
// gives up counts from the moment it is proposed: the table would otherwise share out
// what the log has taken away already. A host lock is never lowered below what is in
// use here, so what a lock was told stays true until it is released or [Lost].
//
// # Recalls and the cache
//
// The last user gone, the host keeps the lock, idle. A recall (the host lock is in
// another host's way) ends that: idle it is given up at once, in use when what
// is in use no longer conflicts. Until then up to Config.CohortN more grants are made
// here, and none after Config.CohortTime. A try elsewhere wants an answer:
// given up, or InUse at the next Tick, since a release may be on its way from the
// kernel. What is recalled three times without a second use here is not cached
// until it comes back without another host having had it. Idle locks go when they
// are more than Config.IdleMax, the least recently used first, and after Config.IdleFor.
// Files below an ephemeral directory are never cached once they were used.
//
// # Owners
//
// Who belongs together only the shell knows, and it looks only when a request
// would wait: it asks for [Table.Rivals], and names those of the same owner in
// Request, Convert or SetOwn. An owner's lock on a directory does not hold up its
// requests below, nor its intents its requests above; where it has an intent
// already it reuses it; and such a request counts as a conversion, ahead of who
// waits. Its other locks on the same resource do hold it up: a [Deadlock].
//
// # Tokens
//
// A grant of PW or EX has the token (base + raise) << 20 | count, where raise is
// the number of the last raise of the host lock and count that of such grants
// under it. A conversion from PW to EX goes on under the same token. When the count
// is full the next grant raises the host lock afresh.
//
// # What the shell must do
//
//   - Set Session and Seq of proposed commands in place, send them in order, and
//     hand every change of every applied entry to Applied, in order.
//   - Answer Tree by the view after that entry, before it hands the changes over.
//   - Call Tick every some 10 ms, and before anything else when its clock is
//     past [Table.Deadline].
//   - After Lost, open a session; requests that wait go on in it.
package table
