package state

import (
	"fmt"
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// What happens to the locks of a host's processes is no change of the state, and mostly passes without any entry. Where the readers of
// notices are on other hosts, these say so (Watch), and the host tells of it through the log (Tell): so it has its place in the one
// order of all that happens.

// Event is what a Told change tells of.
type Event uint8

const (
	EventGranted Event = iota + 1
	EventConverted
	EventReleased
	EventLost
	EventBlocking
	EventDropped // so many others were dropped, since there were too many
	numEvents
)

var eventNames = [numEvents]string{
	EventGranted: "granted", EventConverted: "converted", EventReleased: "released", EventLost: "lost",
	EventBlocking: "blocking", EventDropped: "dropped",
}

// String returns the event's name.
func (e Event) String() string {
	if e < numEvents && eventNames[e] != "" {
		return eventNames[e]
	}
	return fmt.Sprintf("event %d", uint8(e))
}

// Limits of Watch and Tell.
const (
	MaxWatches = 64
	MaxTold    = 1024
)

// watch notes what a session's host wants to be told of.
func (s *State) watch(op *statepb.Watch, done *Change) {
	if !validWatches(op.Inos) {
		done.Code = Invalid
		return
	}
	s.session(done.Session).Watches = slices.Clone(op.Inos)
	s.dirty |= partRest
	s.emit(Change{Kind: Watched, Session: done.Session})
}

// validWatches reports whether inode numbers are few enough, ascending and not 0.
func validWatches(inos []uint64) bool {
	for i, ino := range inos {
		if ino == 0 || i > 0 && inos[i-1] >= ino {
			return false
		}
	}
	return len(inos) <= MaxWatches
}

// tell hands on what a session's host tells. What makes no sense is left out.
func (s *State) tell(op *statepb.Tell, done *Change) {
	if len(op.Told) > MaxTold {
		done.Code = Invalid
		return
	}
	if op.Lost > 0 {
		s.emit(Change{Kind: Told, Event: EventDropped, Session: done.Session, ID: op.Lost})
	}
	for _, t := range op.Told {
		c, ok := told(t)
		if !ok {
			done.Code = Invalid
			continue
		}
		c.Session = done.Session
		s.emit(c)
	}
}

// told returns one notice as a change, or false if it makes no sense.
func told(t *statepb.Told) (Change, bool) {
	c := Change{
		Kind: Told, Event: Event(min(t.Event, 255)), Ino: t.Ino, Mode: queue.Mode(min(t.Mode, 255)), Token: t.Token,
		PID: t.Pid, Name: string(t.Comm), Wanted: queue.Mode(min(t.Wanted, 255)), Host: string(t.Host), NewName: string(t.Reason),
	}
	ok := c.Event >= EventGranted && c.Event <= EventBlocking && c.Ino != 0 && c.Mode.Valid() && c.Mode <= queue.EX &&
		c.Wanted <= queue.EX && (c.Wanted == queue.None) == (c.Event != EventBlocking) &&
		len(c.Name) <= maxComm && len(c.Host) <= maxNameLen && len(c.NewName) <= maxNameLen
	return c, ok
}
