// Package queue decides who may have a resource: it holds one resource's
// granted locks and its waiting requests, and the algebra of the six modes.
//
// It is pure: no clock, no goroutine, no I/O, no map order in what comes out.
// It is used twice, over two kinds of holder. In the replicated state
// (lockd/state) the holders of a resource are hosts, few of them, and a queue
// is cloned before it is changed. In a host's table (lockd/table) the holders
// are open descriptors, thousands at times, and [Queue.TryGrant] and
// [Queue.Release] are the hot path: they allocate nothing once the queue has
// its size, and look at counts, not at holders.
//
//	         Request                      Convert
//	            │                            │
//	fits now? ──┼── yes ──► granted ◄── yes ─┼── fits now?
//	            │ no         │  ▲            │ no
//	            ▼            │  │            ▼
//	       wait queue        │  └──── conversion queue
//	            │            ▼               │ first
//	            └──────► Release, Lower, Cancel, SetCeiling,
//	                     SetOwn: look again, first conversions,
//	                     then the wait queue
//
// # Rules
//
// They are those of OpenVMS (System Services: $ENQ, "Programming Concepts",
// chapter "Synchronizing Access to Resources") as Linux implements them in
// fs/dlm/lock.c, function _can_be_granted, whose comments number them 6-3 to
// 6-11. Where lockfs differs the method says so.
//
//   - A new request is granted at once if its mode is compatible with every
//     granted lock and nobody waits. Otherwise it waits, last.
//   - A conversion that is compatible with all other granted locks is granted
//     at once, though others wait, unless QUECVT puts it behind the waiting
//     conversions. Otherwise it waits in the conversion queue and keeps what it has.
//   - A waiting conversion is granted when it is first of its queue and
//     compatible; a waiting new request when no conversion waits, it is first
//     and compatible.
//   - A mode that gives up something and adds nothing is granted at once, always.
//   - NL is compatible with everything and overtakes everyone. (In VMS a new
//     NL request waits its turn unless it is expedited.)
//
// # Ceiling
//
// A host can hand out no more than its host lock covers. The ceiling of a
// queue is that bound: a request is grantable only if the ceiling covers its
// mode, and one that it does not cover waits, in order, for [Queue.SetCeiling].
// In the state the ceiling is EX, always. What is granted already stays so when
// the ceiling falls below it.
//
// # Intents
//
// Whoever holds a resource holds an intent (CR or CW) on each of its
// ancestors. There may be a hundred thousand of them on the root, so a granted
// intent is not listed: it is a count by mode. See [Request.Shared].
//
// # Own entries
//
// An owner's lock on a directory is no obstacle to its locks below, nor the
// other way round (DESIGN 1.3). Only the caller knows who is whose; it names the
// entries that a request need not mind in [Request.Own] and [Request.OwnShared].
//
// # Caveats
//
// A Queue is not safe for use by several goroutines. A holder waits at most once
// in it. It has no limit of its own on locks and waiters (up to 2^31 of each):
// the host's table and the state count them and refuse.
//
// A caller that breaks the rules of a method (a second request of one that
// waits, a conversion of what is not there) has a bug, and the method panics.
// The state checks commands from the log before it comes here.
package queue
