package cluster

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// memory is the replicated log of a host that is no voter: nobody counts on what it acknowledged, so it need not be on
// disk. Its journal's mu guards it.
type memory struct {
	entries []*raft.Log // without gaps
	bytes   int64       // of them, with entryOverhead

	// Snapshots keep it small. What it refuses past these bounds the leader sends again.
	maxEntries int
	maxBytes   func() int64
}

// memorySlack is how many times the log between two snapshots may be in memory, when these cannot be written.
const memorySlack = 4

var errMemoryFull = errors.New("the log in memory is full: no snapshot could be written that would make room")

func newMemory(s *snapper) *memory {
	return &memory{
		maxEntries: memorySlack * int(s.limits.entries+s.limits.trailing),
		maxBytes:   func() int64 { return memorySlack * (s.logBytes() + s.limits.trailingBytes) },
	}
}

func (m *memory) first() uint64 {
	if len(m.entries) == 0 {
		return 0
	}
	return m.entries[0].Index
}

func (m *memory) last() uint64 {
	if len(m.entries) == 0 {
		return 0
	}
	return m.entries[len(m.entries)-1].Index
}

func (m *memory) append(logs []*raft.Log) error {
	if len(m.entries) >= m.maxEntries || m.bytes >= m.maxBytes() {
		return errMemoryFull
	}
	last := m.last()
	for _, l := range logs {
		if last > 0 && l.Index != last+1 {
			return fmt.Errorf("entry %d does not follow entry %d", l.Index, last)
		}
		last = l.Index
	}
	for _, l := range logs {
		m.entries = append(m.entries, l)
		m.bytes += entryBytes(l)
	}
	return nil
}

func (m *memory) get(index uint64, l *raft.Log) error {
	if first := m.first(); first == 0 || index < first || index > m.last() {
		return raft.ErrLogNotFound
	}
	*l = *m.entries[index-m.entries[0].Index]
	return nil
}

// drop drops entries at the start or the end.
func (m *memory) drop(first, last uint64) error {
	have := m.first()
	if have == 0 || last < have || first > m.last() {
		return nil
	}
	from, to := int(max(first, have)-have), int(min(last, m.last())-have)+1
	if from > 0 && to < len(m.entries) {
		return fmt.Errorf("entries %d to %d are in the middle of the log", first, last)
	}
	for _, l := range m.entries[from:to] {
		m.bytes -= entryBytes(l)
	}
	left := m.entries[to:]
	if from > 0 {
		left = m.entries[:from]
	}
	m.entries = append([]*raft.Log(nil), left...) // a new array: the old one holds what was dropped
	return nil
}

// batches calls f with all entries in order, as many at a time as raft would append.
func (m *memory) batches(f func([]*raft.Log) error) error {
	for at := 0; at < len(m.entries); {
		bytes, to := int64(0), at
		for to < len(m.entries) && to-at < maxAppend && (to == at || bytes < messageBytes) {
			bytes += entryBytes(m.entries[to])
			to++
		}
		if err := f(m.entries[at:to]); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// entryBytes is about what an entry takes in the log.
func entryBytes(l *raft.Log) int64 { return int64(len(l.Data)) + entryOverhead }
