package cluster

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
)

// Host is what the log's entries are applied for: lockd's *Host.
type Host interface {
	// Applied is called after each batch of entries was applied to this host's state, in order, from the one goroutine
	// that applies; index is that of the last, the changes are those of all. It must be quick and never block.
	Applied(index uint64, changes []state.Change, view *state.View)
	// Restored is called instead when the whole state was replaced: at the start, and by a snapshot from the leader.
	Restored(view *state.View)
}

// machine is raft's FSM: it applies entries to the state and tells the host.
type machine struct {
	state     *state.State
	host      Host
	committed func(index, term uint64) // hears of each batch before it is applied
	watch     func(appliedBatch)       // the node's own look at what was applied, before the host's
	replaced  func(*state.View)        // and at a whole new state
	installed func()                   // after that, if it came from the leader
	fail      func(error)              // the node must stop

	failed  error // set by the applying goroutine, which alone reads it
	applied atomic.Uint64
	view    atomic.Pointer[state.View]
}

// appliedBatch is some entries that were applied in one go.
type appliedBatch struct {
	members bool // the members of the cluster may have changed
	changes []state.Change
}

var _ raft.BatchingFSM = (*machine)(nil)

func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries in one go and publishes one view. The answers are nil or an error.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	last := logs[len(logs)-1]
	m.committed(last.Index, last.Term)
	var changes []state.Change
	members := false
	for i, l := range logs {
		members = members || l.Type == raft.LogConfiguration
		if m.failed == nil && l.Type == raft.LogCommand {
			c, err := m.apply(l)
			if err != nil {
				m.failed = err
				m.fail(err)
			}
			if changes == nil {
				changes = c
			} else {
				changes = append(changes, c...)
			}
		}
		if m.failed != nil {
			answers[i] = m.failed
		}
	}
	if m.failed == nil {
		view := m.state.View()
		m.view.Store(view)
		m.applied.Store(last.Index)
		m.watch(appliedBatch{members, changes})
		m.host.Applied(last.Index, changes, view)
	}
	return answers
}

func (m *machine) apply(l *raft.Log) ([]state.Change, error) {
	changes, err := m.state.Apply(l.Index, l.Data)
	if err != nil {
		return nil, fmt.Errorf("%w (this host stops here, so as not to diverge from the others)", err)
	}
	return changes, nil
}

// Snapshot takes the state as it is, in O(1).
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if m.failed != nil {
		return nil, m.failed
	}
	return snapshot{m.state.View()}, nil
}

// Restore replaces the state by a snapshot's. One that cannot be read stops the node: the leader has no other, and would
// send this one again and again.
func (m *machine) Restore(r io.ReadCloser) error {
	s, err := state.Read(r)
	if err != nil {
		m.failed = err
		m.fail(err)
		return err
	}
	m.replace(s)
	m.installed()
	return nil
}

func (m *machine) replace(s *state.State) {
	m.state = s
	view := s.View()
	m.view.Store(view)
	m.applied.Store(view.Index())
	m.replaced(view)
	m.host.Restored(view)
}

// snapshot is a view being written while applying goes on.
type snapshot struct{ view *state.View }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if to, is := sink.(*snapshotSink); is {
		to.mine()
	}
	if _, err := s.view.WriteTo(sink); err != nil {
		return fmt.Errorf("write a snapshot: %w", err)
	}
	return nil // raft closes the sink, or cancels it
}

func (snapshot) Release() {}
