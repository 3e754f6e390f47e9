package state

import (
	"strconv"
	"time"

	"github.com/lockfs/lockfs/lockd/queue"
)

// Kind says what a [Change] tells of.
type Kind uint8

// The fields that each kind has set, beside Kind and Index. Session is always the session concerned: for [Done] and
// [Gap] the command's, for changes of the tree the one that caused it (0: none, or the leader).
const (
	_ Kind = iota

	// Done answers a command: Session, Seq, Code, Op, and Ino, Generation where there are any. It comes after all other
	// changes of the command. Acquire: Code Waiting with Ino and Wanted of the step that waits, or Busy with Ino of
	// the step refused; TooMany likewise. RangeLock: Code Waiting with ID. Make: Ino, with Exists that of the node there.
	Done
	// Gap refuses a command whose seq is past the session's last plus one: Session, Seq (that of the command), Next
	// (the seq awaited). Nothing was changed; all from Next on must be sent again, in order.
	Gap

	Made        // Parent, Name, Ino, Session
	Removed     // Parent, Name, Ino, Session; Orphan: the node lives on nameless. Parent 0: the end of an orphan
	Moved       // Parent, Name, NewParent, NewName, Ino, Session. An overwritten target was Removed before
	Attr        // Ino, Session: mode, owner or times
	Xattr       // Ino, Name (the attribute), Session
	Value       // Ino, Generation, Session: a new value; it is valid unless View says otherwise
	Invalidated // Ino, Session (the former holder): the value is invalid until the next commit under PW or EX

	// HostGranted tells that a session's host lock was granted or raised: Session, Ino, Mode (all that it has now), Raise,
	// Converted (out of the conversion queue).
	HostGranted
	// HostLowered tells that a session's host lock was lowered to Mode (None: let go): Session, Ino. Not sent for the
	// locks of a session that ended nor for those of a node that was removed.
	HostLowered
	// HostRefused tells that a waiting try was refused, since its recall was answered by InUse of session By:
	// Session, Ino, Wanted. Also sent to the session of a Remove or Rename that was answered Recalling.
	HostRefused
	// Recall tells the holder Session that its lock on Ino stands in the way of By, which asks for Wanted on behalf of PID, of
	// which Name is the name (0 and empty: not known). With Try the
	// request is a try and wants an answer, a release or InUse. It replaces an earlier recall with the same Try; a
	// recall for Remove or Rename replaces none and is never cancelled.
	Recall
	// RecallCancelled tells the holder that no request is held up by its lock on Ino any more: Session, Ino, Try.
	RecallCancelled

	SessionOpened  // Session, Host, Nonce, TTL; if it was refused Session is 0 and Code TooMany or NameTooLong
	SessionRenewed // Session, Stamp
	SessionEnded   // Session, Host, Reason. What follows from it comes after it

	RangeGranted  // Session, Ino, Owner, ID: a waiting byte-range lock was granted
	RangeReleased // Session, Ino, Owner: byte ranges were unlocked
	Delayed       // Ino, Session (that ended): the lock is withheld for the node's lockdelay
	DelayOver     // Ino
	Limited       // the limits were changed; Code Invalid if they may not be had

	// HostSet answers a SetHost: Host (the id), Name. It comes also where nothing changed. Refused, with nothing changed:
	// Code Exists (another host has the name), TooMany, NameTooLong or Invalid (no id or no name).
	HostSet
	HostRemoved // Host (the id), Name: off the list; its session, if any, goes on
	// Suspected asks the hosts of a suspicion (View.Suspicion of ID) to confirm it, each by Confirm in this round.
	Suspected
	// Deadlocked tells that a cycle was a deadlock (View.Cycles, ID) and that the wait that session Session reported on Ino
	// as Owner, for Wanted, is its victim.
	Deadlocked
	// Awaited tells that a request of a process of Session, which its host has reported, waits for Wanted at Ino: PID, Name (that of
	// the thread), ID of the report. It may be the one that a Recall told of, or one behind it.
	Awaited
	Watched // Session: View.Session says what its host wants to be told of
	// Told hands on what a host that is watched tells of a lock of one of its processes: Session, Event, Ino, Mode, Token, PID and
	// Name (of the process; for EventBlocking of who asks, with Host and Wanted), NewName (why it was lost). EventDropped: ID, how many.
	Told
	numKinds
)

var kindNames = [numKinds]string{
	Done: "done", Gap: "gap", Made: "made", Removed: "removed", Moved: "moved", Attr: "attr", Xattr: "xattr",
	Value: "value", Invalidated: "invalidated", HostGranted: "granted", HostLowered: "lowered", HostRefused: "refused",
	Recall: "recall", RecallCancelled: "recall-cancelled", SessionOpened: "session-opened",
	SessionRenewed: "session-renewed", SessionEnded: "session-ended", RangeGranted: "range-granted",
	RangeReleased: "range-released", Delayed: "delayed", DelayOver: "delay-over", Limited: "limited",
	Suspected: "suspected", Deadlocked: "deadlocked", Awaited: "awaited", Watched: "watched", Told: "told",
	HostSet: "host-set", HostRemoved: "host-removed",
}

// Tree reports whether it tells of a change of names, values or attributes.
func (k Kind) Tree() bool { return k >= Made && k <= Invalidated }

// String returns the kind's name.
func (k Kind) String() string {
	if k < numKinds && kindNames[k] != "" {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// Reason says why a session ended.
type Reason uint8

const (
	Expired   Reason = iota // not renewed in time
	Leave                   // by itself
	Restarted               // its daemon was started anew
)

// String returns the reason's name.
func (r Reason) String() string {
	switch r {
	case Expired:
		return "expired"
	case Leave:
		return "leave"
	case Restarted:
		return "restarted"
	}
	return "reason " + strconv.Itoa(int(r))
}

// Change is one thing that applying an entry did, or an answer. Which fields are set depends on Kind.
type Change struct {
	Kind      Kind
	Code      Code
	Mode      queue.Mode
	Wanted    queue.Mode
	Reason    Reason
	Try       bool
	Converted bool
	Orphan    bool
	Dir       bool // Made, Removed, Moved: the node is a directory
	Event     Event
	PID       uint32

	Index      uint64 // of the log entry
	Session    uint64
	Seq        uint64
	Next       uint64
	Ino        uint64
	Parent     uint64
	NewParent  uint64
	By         uint64 // session
	Generation uint64
	Raise      uint64 // number of the grant, see the package comment
	Owner      uint64 // of a byte range
	ID         uint64 // of a byte-range wait
	Nonce      uint64
	Token      uint64
	Stamp      int64
	TTL        time.Duration

	Name    string
	NewName string
	Host    string
}

// String returns the change on one line: its kind and the fields that are not zero, but the index.
func (c Change) String() string {
	b := []byte(c.Kind.String())
	if c.Kind == Done || c.Code != OK {
		b = append(b, ' ')
		b = append(b, c.Code.String()...)
	}
	number := func(name string, v uint64) {
		if v != 0 {
			b = strconv.AppendUint(append(append(append(b, ' '), name...), '='), v, 10)
		}
	}
	word := func(name, v string, is bool) {
		if is {
			b = append(append(append(append(b, ' '), name...), '='), v...)
		}
	}
	flag := func(name string, is bool) {
		if is {
			b = append(append(b, ' '), name...)
		}
	}
	lowered := c.Kind == HostLowered
	number("session", c.Session)
	number("seq", c.Seq)
	number("next", c.Next)
	number("ino", c.Ino)
	number("parent", c.Parent)
	word("name", strconv.Quote(c.Name), c.Name != "")
	number("new-parent", c.NewParent)
	word("new-name", strconv.Quote(c.NewName), c.NewName != "")
	word("mode", c.Mode.String(), c.Mode != queue.None || lowered)
	word("wanted", c.Wanted.String(), c.Wanted != queue.None)
	number("by", c.By)
	number("generation", c.Generation)
	number("raise", c.Raise)
	number("owner", c.Owner)
	number("id", c.ID)
	word("event", c.Event.String(), c.Event != 0)
	number("pid", uint64(c.PID))
	number("token", c.Token)
	word("host", c.Host, c.Host != "")
	number("nonce", c.Nonce)
	number("stamp", uint64(c.Stamp))
	word("ttl", c.TTL.String(), c.TTL != 0)
	word("reason", c.Reason.String(), c.Kind == SessionEnded)
	flag("try", c.Try)
	flag("converted", c.Converted)
	flag("orphan", c.Orphan)
	flag("dir", c.Dir)
	return string(b)
}
