package table

import (
	"fmt"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Lock is the lock of one open descriptor, or its request. The caller allocates
// it (inside its handle), sets the fields of the first group before the first
// request, and leaves it alone until it is released: the pointer is its
// identity. All fields are guarded by whatever guards the [Table].
type Lock struct {
	Ino  uint64 // of the resource
	PID  uint32 // of the thread that asked, for listings and owners
	UID  uint32
	User any // the caller's own

	// Set by the table, read by anybody.
	Mode   queue.Mode  // granted, or None
	Wanted queue.Mode  // waited for, or None
	Flags  queue.Flags // of the last request
	Since  int64       // of the grant, or of the request while nothing is granted: ns as given to Tick (the caller may refine it)
	Token  uint64      // of the last grant; for modes below PW a lower bound of the next

	res  *resource // nil: not in the table
	ask  *asking   // nil: asks for nothing now
	refs int32     // in how many own lists this lock is
}

// asking is what there is to know of a request or conversion until it is granted or withdrawn.
type asking struct {
	at     *resource // where it waits, an ancestor or res; nil: does not wait
	rank   uint64    // order of arrival of what waits
	place  int64     // order in the queue where it waits, which it may have come to late: see Place
	own    []*Lock   // of the same owner, as far as the caller found out
	tryEnd int64     // of a try: refused then at the latest
	prev   *Lock     // list of waiting locks, by rank
	next   *Lock
	alts   queue.Flags // what is still to be tried when the present try fails
	main   queue.Mode  // what was asked for, where an alternate is being tried
	conv   bool        // a conversion
	try    bool        // to be refused when it is busy
}

func (l *Lock) at() *resource {
	if l.ask == nil {
		return nil
	}
	return l.ask.at
}

func (l *Lock) own() []*Lock {
	if l.ask == nil {
		return nil
	}
	return l.ask.own
}

func (l *Lock) conv() bool { return l.ask != nil && l.ask.conv }

func (l *Lock) try() bool { return l.ask != nil && l.ask.try }

// Waits reports whether a request or conversion of the lock waits.
func (l *Lock) Waits() bool { return l.at() != nil }

// Held reports whether the lock has something granted.
func (l *Lock) Held() bool { return l.Mode != queue.None }

// Converts reports whether what waits is a conversion.
func (l *Lock) Converts() bool { return l.at() != nil && l.conv() }

// At returns the resource at which the request is held up, an ancestor's inode
// or the lock's own, and 0 if it does not wait.
func (l *Lock) At() uint64 {
	if l.at() == nil {
		return 0
	}
	return l.at().ino
}

// EventKind says what an [Event] tells.
type EventKind uint8

const (
	_ EventKind = iota
	// Granted: the request or conversion of Lock was granted in Mode, under Token.
	Granted
	// Refused: the request or conversion of Lock is withdrawn, for Reason. What was granted before stays.
	Refused
	// Blocking: Lock holds up a request for Mode: of By here, or of Asker elsewhere.
	Blocking
	// Waiting: Lock, which waited elsewhere on its path, now waits at Ino, where somebody has something. The caller
	// looks for rivals of its owner and says so by SetOwn.
	Waiting
	// Deadlock: what waits in Cycle, Lock first, can never be granted unless some other thread of an owner lets go. A
	// cycle of Lock and a granted lock of its own owner is a self-deadlock. The caller decides the victim and cancels it.
	Deadlock
	// Lost: Lock is taken away; it is no longer in the table.
	Lost
	// Jeopardy: the lease is half gone, nothing is granted until Safe. No lock.
	Jeopardy
	// Safe ends Jeopardy. No lock.
	Safe
)

var eventNames = [...]string{
	Granted: "granted", Refused: "refused", Blocking: "blocking", Waiting: "waiting",
	Deadlock: "deadlock", Lost: "lost", Jeopardy: "jeopardy", Safe: "safe",
}

// String returns the kind's name.
func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// Reason says why a request was refused. It is an error.
type Reason uint8

const (
	Busy     Reason = iota + 1 // a try or NOQUEUE request that cannot be had
	NoLocks                    // a limit of locks or waiters, here or in the cluster
	NotFound                   // the resource is gone
	NoLease                    // a try while the host may grant nothing
)

var reasonNames = [...]string{Busy: "busy", NoLocks: "too many locks", NotFound: "no such resource", NoLease: "no lease"}

// Error returns the reason in words.
func (r Reason) Error() string {
	if int(r) < len(reasonNames) && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// Event tells the shell what happened to a lock. Events come in the order in
// which things happened.
type Event struct {
	Kind      EventKind
	Reason    Reason     // Refused
	Mode      queue.Mode // Granted: what the lock has now; Blocking: what is wanted
	Lock      *Lock
	By        *Lock   // Blocking: who wants, if here
	Asker     Asker   // Blocking: who wants, if elsewhere
	Ino       uint64  // Waiting, Blocking: the resource where
	Token     uint64  // Granted
	Converted bool    // Granted: it was a conversion
	Cycle     []*Lock // Deadlock
}

// Asker is who wants something on another host.
type Asker struct {
	Session uint64
	PID     uint32 // the thread; 0: not known
	Comm    string // its name; empty: not known
}

// askerOf returns who asks, by a Recall or by an Awaited.
func askerOf(c *state.Change) Asker {
	if c.Kind == state.Recall {
		return Asker{Session: c.By, PID: c.PID, Comm: c.Name}
	}
	return Asker{Session: c.Session, PID: c.PID, Comm: c.Name}
}

// Output is what came of the inputs since the last [Table.Take]: commands to propose, in
// order, without session, seq and time, and what to tell the lock's users.
type Output struct {
	// Proposals are to be proposed in this order. The shell sets Session and Seq of each command in place, before
	// anything of the log is handed to Applied again: by them the table knows its own commands' answers.
	Proposals []*statepb.Command
	Events    []Event
}
