package state

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tidwall/btree"
	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Version is that of the log entries that this program writes, and the newest that it reads.
const Version = 1

// ErrUnknown is wrapped by the errors of [State.Apply] for entries that a newer program wrote.
var ErrUnknown = errors.New("written by a newer version of lockfs")

// ErrCorrupt is wrapped by the errors of [State.Apply] and [Read] for bytes that nobody wrote.
var ErrCorrupt = errors.New("corrupt")

// State is the replicated state machine. It is used by one goroutine; others read a [View].
type State struct {
	cur       View
	published *View // the last view given out, or nil
	dirty     parts // what changed since
	epoch     uint64
	sessEpoch uint64 // in which cur.sessions may be written to

	graph     graph       // of the reports
	suspects  []ReportKey // waits to look for cycles from, at the end of the command
	steps     int         // that this entry may still take for it
	suspected uint64      // suspicions of this entry

	changes []Change
	index   uint64   // of the entry being applied
	now     int64    // of the command being applied
	path    []uint64 // room to work in
}

// parts are the parts of the state, as a set.
type parts uint8

const (
	partNodes parts = 1 << iota
	partNames
	partLocks
	partRanges
	partOrphans
	partReports
	partRest
)

// New returns the state before the first entry: a root directory, mode 0755, that has no owner yet.
func New() *State {
	s := &State{epoch: 1, graph: newGraph()}
	s.cur = View{
		nextIno: Root + 1,
		limits:  DefaultLimits(),
		nodes:   btree.NewMap[uint64, *Node](degree),
		names:   btree.NewBTreeGOptions(direntLess, btree.Options{NoLocks: true, Degree: degree}),
		locks:   newLockTree(),
		ranges:  btree.NewMap[uint64, *fileRanges](degree),
		orphans: btree.NewMap[uint64, uint64](degree),
		reports: newReports(),
	}
	s.cur.nodes.Set(Root, &Node{Ino: Root, Dir: true, Perm: 0o755})
	return s
}

// degree is that of the trees: a publication costs copies of the nodes on the way to what changes next.
const degree = 16

// Encode returns the log entry of some commands.
func Encode(cmds []*statepb.Command) []byte {
	b, err := proto.Marshal(&statepb.Batch{Version: Version, Commands: cmds})
	if err != nil {
		panic("lockfs: state: encode of a batch: " + err.Error()) // only invalid UTF-8 in a host's name
	}
	return b
}

// Apply applies a log entry and returns what that did, in order. Index must grow from entry to entry. An error means
// that this program cannot apply the entry: the state is as before, and the node must stop.
func (s *State) Apply(index uint64, entry []byte) ([]Change, error) {
	if index <= s.cur.index {
		return nil, fmt.Errorf("lockfs: apply entry %d: entry %d is applied already; the log and the state do not fit: "+
			"restore this host from a snapshot, or reset it and join again", index, s.cur.index)
	}
	batch := new(statepb.Batch) // its byte slices become the state's
	if err := proto.Unmarshal(entry, batch); err != nil {
		return nil, fmt.Errorf("lockfs: apply entry %d: %w: %w; the log of this host is damaged: "+
			"reset the host and join again", index, ErrCorrupt, err)
	}
	if err := known(batch); err != nil {
		return nil, fmt.Errorf("lockfs: apply entry %d: %w; install the version of lockfs that the other hosts run", index, err)
	}
	s.index, s.cur.index = index, index
	s.suspected, s.steps = 0, maxSteps
	s.suspects = append(s.suspects[:0], s.cur.unsearched...)
	s.dirty |= partRest
	s.changes = make([]Change, 0, 2*len(batch.Commands))
	for _, c := range batch.Commands {
		s.command(c)
	}
	if len(s.suspects) > 0 || len(s.cur.unsearched) > 0 {
		s.putOff()
	}
	changes := s.changes
	s.changes = nil
	return changes, nil
}

// View returns the state as it is. It costs the same however large the state is.
func (s *State) View() *View {
	if s.published != nil && s.dirty == 0 {
		return s.published
	}
	v := new(View)
	*v = s.cur
	old := s.published
	if old != nil && s.dirty&partNodes == 0 {
		v.nodes = old.nodes
	} else {
		v.nodes = s.cur.nodes.Copy()
	}
	if old != nil && s.dirty&partNames == 0 {
		v.names = old.names
	} else {
		v.names = s.cur.names.Copy()
	}
	if old != nil && s.dirty&partLocks == 0 {
		v.locks = old.locks
	} else {
		v.locks = s.cur.locks.Copy()
	}
	if old != nil && s.dirty&partRanges == 0 {
		v.ranges = old.ranges
	} else {
		v.ranges = s.cur.ranges.Copy()
	}
	if old != nil && s.dirty&partOrphans == 0 {
		v.orphans = old.orphans
	} else {
		v.orphans = s.cur.orphans.Copy()
	}
	if old != nil && s.dirty&partReports == 0 {
		v.reports = old.reports
	} else {
		v.reports = s.cur.reports.Copy()
	}
	s.published, s.dirty = v, 0
	s.epoch++
	return v
}

// emit adds a change.
func (s *State) emit(c Change) {
	c.Index = s.index
	s.changes = append(s.changes, c)
}

// setNode stores a node that is new or replaces the one of its number, and keeps count of the bytes.
func (s *State) setNode(n *Node) {
	old, _ := s.cur.nodes.Set(n.Ino, n)
	if old != nil {
		s.cur.bytes -= old.weight()
	}
	s.cur.bytes += n.weight()
	s.dirty |= partNodes
}

func (s *State) deleteNode(ino uint64) {
	if old, ok := s.cur.nodes.Delete(ino); ok {
		s.cur.bytes -= old.weight()
		s.dirty |= partNodes
	}
}

func (s *State) setName(parent uint64, name string, ino uint64) {
	s.cur.names.Set(dirent{parent: parent, name: name, ino: ino})
	s.dirty |= partNames
}

func (s *State) deleteName(parent uint64, name string) {
	s.cur.names.Delete(dirent{parent: parent, name: name})
	s.dirty |= partNames
}

// session returns a session to write to, or nil.
func (s *State) session(id uint64) *session {
	i, ok := s.cur.findSession(id)
	if !ok {
		return nil
	}
	x := s.cur.sessions[i]
	if x.epoch == s.epoch {
		return x
	}
	s.ownSessions()
	y := new(session)
	*y = *x
	y.epoch = s.epoch
	s.cur.sessions[i] = y
	return y
}

// ownSessions makes the list of sessions one that no view has.
func (s *State) ownSessions() {
	if s.sessEpoch != s.epoch {
		s.cur.sessions = slices.Clone(s.cur.sessions)
		s.sessEpoch = s.epoch
	}
	s.dirty |= partRest
}
