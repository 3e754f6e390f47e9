package sim

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// raft is what raft makes of the hosts' logs, without its messages: one order of committed entries, and one host at a time
// that can commit more, while it reaches a majority. All hosts are voters. A host that led and does not know that it
// no longer does can append what it likes: nothing comes of it. What a leader had appended and not committed
// when it was deposed is lost from some point on; what is before that the next one commits.
type raft struct {
	s       *sim
	log     [][]byte            // committed: entry i has index i+1
	changes [][]state.Change    // what each did, on every host
	digests map[uint64][32]byte // of the state at some indexes
	state   *state.State        // as of the last entry
	view    *state.View
	ended   map[uint64]bool // sessions

	term     int
	leader   *host // nil: none
	sick     int64 // since when the leader reaches no majority; 0: it does
	open     int64 // no election before
	appended []appended
}

// appended is an entry that is not committed.
type appended struct {
	data    []byte
	barrier int // the term that begins with it, or 0
}

func newRaft(s *sim) *raft {
	return &raft{s: s, state: state.New(), digests: map[uint64][32]byte{}, ended: map[uint64]bool{}}
}

// able reports whether a host can vote, follow and lead.
func (h *host) able() bool { return h.up && h.s.now >= h.paused && h.s.now >= h.cut }

func (r *raft) majority() bool {
	n := 0
	for _, h := range r.s.hosts {
		if h.able() {
			n++
		}
	}
	return 2*n > len(r.s.hosts)
}

// heartbeat finds out now and then who leads, and lets those who can know it.
func (r *raft) heartbeat() {
	s := r.s
	switch {
	case r.leader == nil:
		if s.now >= r.open && r.majority() {
			r.elect()
		}
	case r.leader.leads != r.term: // it has stepped down
		r.depose()
	case r.leader.able() && r.majority():
		r.sick = 0
		r.commit(len(r.appended) * s.rng.IntN(2))
	case r.sick == 0:
		r.sick = s.now
	case s.now-r.sick > 100*ms+s.rng.Int64N(400*ms):
		r.depose()
	}
	for _, h := range s.hosts {
		h.heartbeat()
	}
	s.after(10*ms+s.rng.Int64N(20*ms), r.heartbeat)
}

// depose ends the leader's time, whether it knows it or not.
func (r *raft) depose() {
	s := r.s
	if r.leader == nil {
		return
	}
	s.tracef("raft: %s leads no longer", r.leader.name)
	n := s.rng.IntN(len(r.appended) + 1)
	s.Survived += n
	r.appended = r.appended[:n:n]
	r.leader, r.sick, r.open = nil, 0, s.now+s.about(100*ms)
}

// elect makes one of those who can the leader, not always another.
func (r *raft) elect() {
	s := r.s
	var all []*host
	for _, h := range s.hosts {
		if h.able() {
			all = append(all, h)
		}
	}
	h := all[s.rng.IntN(len(all))]
	r.term++
	r.leader = h
	h.stepDown() // from an earlier term
	h.leads = r.term
	s.Elections++
	s.tracef("raft: %s leads term %d", h.name, r.term)
	barrier := state.Encode([]*statepb.Command{{Op: &statepb.Command_Barrier{Barrier: &statepb.Barrier{}}}})
	r.appended = append(r.appended, appended{barrier, r.term})
	s.after(r.fsync(), func() { r.commit(len(r.appended)) })
}

func (r *raft) fsync() int64 { return 50_000 + r.s.about(300_000) }

// append takes an entry from who believes to lead.
func (r *raft) append(h *host, entry []byte) {
	if r.leader != h || h.leads != r.term {
		r.s.Stale++
		return
	}
	r.appended = append(r.appended, appended{data: entry})
	r.s.after(r.fsync(), func() { r.commit(1) })
}

// commit commits the first n of what is appended, if the leader reaches a majority.
func (r *raft) commit(n int) {
	for ; n > 0 && len(r.appended) > 0 && r.leader != nil && r.leader.able() && r.majority(); n-- {
		a := r.appended[0]
		r.appended = r.appended[1:]
		r.entry(a.data)
		if a.barrier == r.term {
			r.leader.barrier = uint64(len(r.log))
		}
	}
}

// entry puts an entry into the log and lets the hosts know.
func (r *raft) entry(entry []byte) []state.Change {
	s := r.s
	r.log = append(r.log, entry)
	s.Entries++
	index := uint64(len(r.log))
	changes, err := r.state.Apply(index, entry)
	if err != nil {
		s.failf("apply: %v", err)
	}
	r.view = r.state.View()
	r.changes = append(r.changes, changes)
	if index%digestEvery == 0 {
		r.digests[index] = r.view.Digest()
	}
	for i := range changes {
		switch c := &changes[i]; c.Kind {
		case state.Done:
			if c.Code == state.NotHolder || c.Code == state.Invalid {
				r.refused(entry, c)
			}
		case state.Suspected:
			s.suspected(c.ID)
		case state.Deadlocked:
			s.verdict(c)
		case state.SessionRenewed:
			s.Renewals++
		case state.SessionEnded:
			r.sessionEnded(c)
		}
	}
	for _, h := range s.hosts {
		h.catchUpSoon()
	}
	return changes
}

// digestEvery is the distance of the entries after which the states of all hosts are compared as a whole.
const digestEvery = 8

func (r *raft) command(cmd *statepb.Command) []state.Change {
	return r.entry(state.Encode([]*statepb.Command{cmd}))
}

// refused: no host asks for what makes no sense. (But it may say of a lock that is gone meanwhile that it is in use.)
func (r *raft) refused(entry []byte, c *state.Change) {
	var batch statepb.Batch
	if err := proto.Unmarshal(entry, &batch); err != nil {
		r.s.failf("%v", err)
	}
	for _, cmd := range batch.Commands {
		if cmd.Session == c.Session && cmd.Seq == c.Seq && cmd.GetInUse() == nil {
			r.s.failf("a command of session %d was answered %v: %v", c.Session, c.Code, cmd)
		}
	}
}

// sessionEnded: no lease outlives its session, by the clock of the host that has it, running or not.
func (r *raft) sessionEnded(c *state.Change) {
	s := r.s
	if c.Reason == state.Expired {
		s.Expired++
	}
	r.ended[c.Session] = true
	for _, h := range s.hosts {
		if h.up && h.session == c.Session && h.local() < h.leaseEnd {
			s.failf("session %d of %s ends (%v) and its lease goes on for %v", c.Session, h.name, c.Reason,
				time.Duration(h.leaseEnd-h.local()))
		}
	}
}

// same: every host comes to the same changes, and to the same state.
func (r *raft) same(h *host, index uint64, changes []state.Change) {
	if !slices.Equal(changes, r.changes[index-1]) {
		r.s.failf("%s: entry %d: %v, elsewhere %v", h.name, index, changes, r.changes[index-1])
	}
	if want, ok := r.digests[index]; ok {
		r.s.Digests++
		if h.view.Digest() != want {
			r.s.failf("%s: another state at index %d", h.name, index)
		}
	}
}

// snapshot returns a view as it comes out of its snapshot.
func (s *sim) snapshot(v *state.View) *state.State {
	var b bytes.Buffer
	if _, err := v.WriteTo(&b); err != nil {
		s.failf("snapshot: %v", err)
	}
	st, err := state.Read(&b)
	if err != nil {
		s.failf("snapshot: %v", err)
	}
	if st.View().Digest() != v.Digest() {
		s.failf("another state comes out of a snapshot of index %d", v.Index())
	}
	return st
}

// heartbeat is what a host hears of the leader. One that led steps down when it hears of another or reaches nobody any more.
func (h *host) heartbeat() {
	s := h.s
	switch {
	case !h.up || s.now < h.paused || s.now < h.unaware:
	case s.now < h.cut:
		h.follows = nil
		if h.leads != 0 && s.chance(0.1) {
			h.stepDown()
		}
	default:
		if h.leads != 0 && s.raft.leader != h {
			h.stepDown()
		}
		h.follows = s.raft.leader
	}
}

func (h *host) stepDown() {
	if h.tenure {
		s := h.s
		s.tracef("%s: steps down", h.name)
	}
	h.leads, h.tenure, h.barrier = 0, false, 0
	if h.duty != nil {
		h.duty.Follow()
	}
}

// takeOver begins a tenure, once the host has applied its barrier.
func (h *host) takeOver() {
	if h.leads == 0 || h.tenure || h.barrier == 0 || h.view.Index() < h.barrier {
		return
	}
	h.tenure = true
	h.duty.Lead(h.mono(), h.view)
}

// act proposes what is due for the sessions of all, if this host leads, or believes to.
func (h *host) act() {
	for {
		at, ok := h.duty.Next()
		if !ok {
			return
		}
		now := h.mono()
		if at > now {
			if h.alarm == at {
				return
			}
			h.alarm = at
			h.after(int64(float64(at-now)/h.rate)+1, func() {
				h.alarm = 0
				h.act()
			})
			return
		}
		cmds, ended := h.duty.Due(now, h.local())
		for _, x := range ended {
			h.s.tracef("%s: session %d of %s is to end", h.name, x.Session, x.Host)
		}
		entry := state.Encode(cmds)
		h.receive(entry)
		if h.leads != h.s.raft.term && h.s.chance(0.5) { // what it could not append it may hand on
			h.after(h.s.about(300*ms), func() { h.send(func(to *host) { to.receive(entry) }) })
		}
	}
}

// receive takes an entry for the log.
func (h *host) receive(entry []byte) {
	if h.tenure {
		h.s.raft.append(h, entry)
	}
}

// handOver sends the renewals that are here to who leads.
func (h *host) handOver() {
	list := h.duty.HandOver()
	if len(list) == 0 {
		return
	}
	h.send(func(to *host) {
		for session, stamp := range list {
			to.duty.Renew(to.mono(), session, stamp)
		}
		to.act()
	})
}
