package cluster

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// sending knows which snapshots are on their way to other hosts. When such a one is there its host needs the entries after it, so
// the log keeps these meanwhile; else a host might be sent one snapshot after the other as long as much is written.
type sending struct {
	mu   sync.Mutex
	open map[*sentSnapshot]struct{}
	sent map[uint64]time.Time // by entry: until when its entries are kept after it was sent
}

// keepSent is how long after a snapshot was sent the entries that follow it are kept.
const keepSent = 10 * time.Second

// sentSnapshot is a snapshot being read.
type sentSnapshot struct {
	io.ReadCloser
	of    *sending
	index uint64
}

// Open opens a snapshot for another host, or for this one when it was installed.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, r, err := s.FileSnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, s.sending.begin(meta.Index, r), nil
}

func (s *sending) begin(index uint64, r io.ReadCloser) io.ReadCloser {
	sent := &sentSnapshot{ReadCloser: r, of: s, index: index}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open, s.sent = map[*sentSnapshot]struct{}{}, map[uint64]time.Time{}
	}
	s.open[sent] = struct{}{}
	return sent
}

func (r *sentSnapshot) Close() error {
	r.of.mu.Lock()
	delete(r.of.open, r)
	r.of.sent[r.index] = time.Now().Add(keepSent)
	r.of.mu.Unlock()
	return r.ReadCloser.Close()
}

// oldest returns the entry of the oldest snapshot whose host still needs what follows it; false if there is none.
func (s *sending) oldest(now time.Time) (index uint64, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	see := func(i uint64) {
		if !is || i < index {
			index, is = i, true
		}
	}
	for r := range s.open {
		see(r.index)
	}
	for i, until := range s.sent {
		if now.After(until) {
			delete(s.sent, i)
		} else {
			see(i)
		}
	}
	return index, is
}
