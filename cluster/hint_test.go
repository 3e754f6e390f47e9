package cluster

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// fakeLeads is a raft whose state and term change as a test says.
type fakeLeads struct {
	mu      sync.Mutex
	terms   []uint64 // what CurrentTerm says; the last for ever
	state   raft.RaftState
	servers []raft.Server
}

func (f *fakeLeads) CurrentTerm() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	term := f.terms[0]
	if len(f.terms) > 1 {
		f.terms = f.terms[1:]
	}
	return term
}

func (f *fakeLeads) State() raft.RaftState { return f.state }

func (f *fakeLeads) GetConfiguration() raft.ConfigurationFuture {
	return fakeConfiguration{raft.Configuration{Servers: f.servers}}
}

type fakeConfiguration struct{ c raft.Configuration }

func (fakeConfiguration) Error() error                        { return nil }
func (fakeConfiguration) Index() uint64                       { return 1 }
func (f fakeConfiguration) Configuration() raft.Configuration { return f.c }

// fakeTransport takes hints. answer says what the follower answers to the n-th; it may block.
type fakeTransport struct {
	raft.Transport
	answer func(n int, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error

	mu   sync.Mutex
	sent []raft.AppendEntriesRequest
	to   []raft.ServerID
}

func (*fakeTransport) LocalAddr() raft.ServerAddress { return "self:1" }
func (*fakeTransport) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte {
	return []byte(a)
}

func (f *fakeTransport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	f.mu.Lock()
	f.sent, f.to = append(f.sent, *req), append(f.to, id)
	n := len(f.sent)
	f.mu.Unlock()
	resp.Success = true
	if f.answer != nil {
		return f.answer(n, req, resp)
	}
	return nil
}

// indexes are those of the hints sent.
func (f *fakeTransport) indexes() (all []uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.sent {
		all = append(all, r.LeaderCommitIndex)
	}
	return all
}

// hintTest runs a test in fake time, with a hinter of a leader of term 7 that has one follower.
func hintTest(t *testing.T, answer func(int, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error, f func(*hinter, *fakeLeads, *fakeTransport)) {
	synctest.Test(t, func(t *testing.T) {
		r := &fakeLeads{terms: []uint64{7}, state: raft.Leader, servers: []raft.Server{
			{ID: "self", Address: "self:1"}, {ID: "f", Address: "f:1"},
		}}
		trans := &fakeTransport{answer: answer}
		h := newHinter(trans, "self")
		h.raft = r
		h.lead(true)
		f(h, r, trans)
		h.lead(false)
		h.ended.Wait()
	})
}

func TestHintIsSafe(t *testing.T) {
	hintTest(t, nil, func(h *hinter, _ *fakeLeads, trans *fakeTransport) {
		h.committed(20, 5) // an entry of an older term
		synctest.Wait()
		if len(trans.sent) != 1 || trans.to[0] != "f" {
			t.Fatalf("%d hints, to %v: one follower, and never this host", len(trans.sent), trans.to)
		}
		if r := trans.sent[0]; r.Term != 7 || r.PrevLogEntry != 20 || r.LeaderCommitIndex != 20 || r.PrevLogTerm != 5 || len(r.Entries) != 0 {
			t.Errorf("%+v", r)
		}
	})
	for name, change := range map[string]func(*fakeLeads){
		"not the leader":       func(r *fakeLeads) { r.state = raft.Follower },
		"a candidate":          func(r *fakeLeads) { r.state = raft.Candidate },
		"the term moved while": func(r *fakeLeads) { r.terms = []uint64{7, 8} },
	} {
		t.Run(name, func(t *testing.T) {
			hintTest(t, nil, func(h *hinter, r *fakeLeads, trans *fakeTransport) {
				change(r)
				h.committed(20, 7)
				synctest.Wait()
				if len(trans.sent) != 0 {
					t.Errorf("hinted: %+v", trans.sent)
				}
			})
		})
	}
}

// TestHintNewestWins: one is under way, and of what was applied meanwhile the newest is told.
func TestHintNewestWins(t *testing.T) {
	answer := func(int, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
		time.Sleep(10 * time.Millisecond)
		return nil
	}
	hintTest(t, answer, func(h *hinter, _ *fakeLeads, trans *fakeTransport) {
		for i := uint64(1); i <= 10; i++ {
			h.committed(i, 7)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := trans.indexes(); !slices.Equal(got, []uint64{1, 10}) {
			t.Errorf("hints of %v", got)
		}
	})
}

func TestHintRefused(t *testing.T) {
	for _, x := range []struct {
		name     string
		resp     raft.AppendEntriesResponse
		err      error
		min, max int
	}{
		{"does not have it yet", raft.AppendEntriesResponse{LastLog: 19, Term: 7}, nil, 20, 120},
		{"has another log", raft.AppendEntriesResponse{LastLog: 20, Term: 7}, nil, 1, 1},
		{"has a newer term", raft.AppendEntriesResponse{LastLog: 19, Term: 8}, nil, 1, 1},
		{"is gone", raft.AppendEntriesResponse{}, errors.New("gone"), 2, 2},
	} {
		t.Run(x.name, func(t *testing.T) {
			var last time.Time
			answer := func(_ int, _ *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
				*resp, last = x.resp, time.Now()
				return x.err
			}
			hintTest(t, answer, func(h *hinter, _ *fakeLeads, trans *fakeTransport) {
				started := time.Now()
				h.committed(20, 7)
				time.Sleep(2 * hintFor)
				synctest.Wait()
				if n := len(trans.sent); n < x.min || n > x.max || last.Sub(started) > hintFor+maxHintPause {
					t.Errorf("%d hints, the last after %v", n, last.Sub(started))
				}
			})
		})
	}
}

// TestHintStops: without the lead nothing is said, and a member that is gone hears nothing.
func TestHintStops(t *testing.T) {
	hintTest(t, nil, func(h *hinter, r *fakeLeads, trans *fakeTransport) {
		r.servers = append(r.servers, raft.Server{ID: "g", Address: "g:1", Suffrage: raft.Nonvoter})
		h.changed()
		h.committed(1, 7)
		synctest.Wait()
		r.servers = r.servers[:1]
		h.changed()
		h.committed(2, 7)
		synctest.Wait()
		h.lead(false)
		h.committed(3, 7)
		synctest.Wait()
		if got := trans.indexes(); !slices.Equal(got, []uint64{1, 1}) {
			t.Errorf("hints of %v to %v", got, trans.to)
		}
	})
}
