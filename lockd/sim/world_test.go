package sim

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

const (
	ms     = int64(time.Millisecond)
	second = int64(time.Second)
	ttl    = 2 * second // of a session
)

// sim is one run. Time is in nanoseconds; the hosts see it through clocks of their own.
type sim struct {
	seed    uint64
	rng     *rand.Rand
	now     int64
	events  agenda
	serial  uint64
	verbose bool
	trace   [300]string
	traced  int
	counts

	cfg      config
	hosts    []*host
	leader   leader
	log      [][]byte // entry i has index i+1
	tokens   map[uint64]token
	draining bool
	applied  int  // entries since the last look at the host locks
	granted  bool // something was granted since the last look
	procs    int
}

// config is what a seed makes of a run.
type config struct {
	hosts, procs, files int
	length              int64
	drop, twice, late   float64 // of messages
	crash, cut, depose  float64 // a second: of a host, of its network, of the leader
	snapshot            float64 // of catching up after a cut
	pace                int64   // of a process: mean time between two steps
	nested              float64 // that a process asks for a second lock
	names               float64 // that a step is about names
	sleep               float64 // that a process sleeps for a second between two steps, with its locks
	idleMax             int
	cohort              int
}

// event is something that will happen.
type event struct {
	at     int64
	serial uint64
	do     func()
}

type agenda []event

func (q agenda) Len() int { return len(q) }
func (q agenda) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].serial < q[j].serial
}
func (q agenda) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *agenda) Push(x any)   { *q = append(*q, x.(event)) }
func (q *agenda) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

func newSim(seed uint64) *sim {
	s := &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 20)), tokens: map[uint64]token{}}
	pick := func(of ...float64) float64 { return of[s.rng.IntN(len(of))] }
	s.cfg = config{
		hosts: 1 + s.rng.IntN(5), procs: 1 + s.rng.IntN(5), files: 1 + s.rng.IntN(8),
		length: (2 + s.rng.Int64N(5)) * second,
		drop:   pick(0, 0, 0.02, 0.2), twice: pick(0, 0.02, 0.2), late: pick(0, 0.02, 0.2),
		crash: pick(0, 0, 0.1, 0.5), cut: pick(0, 0, 0.1, 0.5), depose: pick(0, 0, 0.1, 0.3), snapshot: pick(0, 0.5, 1),
		pace: int64(pick(0.3, 2, 10, 40) * float64(ms)), nested: pick(0, 0.2, 0.5), names: pick(0, 0, 0.02, 0.1),
		sleep: pick(0, 0, 0.01, 0.1), idleMax: int(pick(1, 4, 1000)), cohort: int(pick(-1, 1, 8)),
	}
	s.tracef("seed %d: %+v", seed, s.cfg)
	return s
}

// after has something done after a time.
func (s *sim) after(d int64, do func()) {
	s.serial++
	heap.Push(&s.events, event{s.now + max(d, 0), s.serial, do})
}

// about returns a random time around a mean.
func (s *sim) about(mean int64) int64 { return int64(s.rng.ExpFloat64() * float64(mean)) }

func (s *sim) chance(p float64) bool { return s.rng.Float64() < p }

// run is the whole of it: the tree is made, the hosts work, everybody lets go, and nobody may wait.
func (s *sim) run() {
	s.leader.s = s
	s.leader.state = state.New()
	s.plant()
	for i := range s.cfg.hosts {
		h := &host{s: s, name: fmt.Sprintf("h%d", i+1), state: state.New(), id: i}
		h.rate = 1 + (s.rng.Float64()-0.5)*0.01
		h.offset = s.rng.Int64N(100 * second)
		s.hosts = append(s.hosts, h)
		h.start()
		h.trouble()
	}
	s.leader.trouble()
	s.until(s.cfg.length)
	s.drain()
	s.untilQuiet(6 * second)
	s.stuck()
	s.breakUp()
	s.untilQuiet(15 * second)
	s.settled()
}

// until runs the events up to a time, with a look at everything after each.
func (s *sim) until(end int64) {
	for len(s.events) > 0 && s.events[0].at <= end {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
		s.Events++
		s.check()
	}
	s.now = end
}

// untilQuiet goes on until nobody waits, at most for a time.
func (s *sim) untilQuiet(atMost int64) {
	for end := s.now + atMost; s.now < end && !s.quiet(); {
		s.until(s.now + 50*ms)
	}
}

// plant makes the tree, by commands of no host in particular.
func (s *sim) plant() {
	open := &statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: "planter", Nonce: 1}}}
	opened := s.leader.append(open)
	id := opened[len(opened)-1].Session
	var seq uint64
	do := func(cmd *statepb.Command) uint64 {
		seq++
		cmd.Session, cmd.Seq = id, seq
		changes := s.leader.append(cmd)
		done := changes[len(changes)-1]
		if done.Code != state.OK {
			s.failf("plant: %v", done.Code)
		}
		return done.Ino
	}
	mk := func(parent uint64, name string, dir bool) uint64 {
		return do(&statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{Parent: parent, Name: []byte(name), Dir: dir}}})
	}
	xattr := func(ino uint64, name, value string) {
		do(&statepb.Command{Op: &statepb.Command_SetXattr{SetXattr: &statepb.SetXattr{Ino: ino, Name: []byte(name), Value: []byte(value)}}})
	}
	dirs := []uint64{state.Root, mk(state.Root, "a", true)}
	dirs = append(dirs, mk(dirs[1], "b", true))
	for i := range s.cfg.files {
		mk(dirs[s.rng.IntN(len(dirs))], fmt.Sprintf("f%d", i), false)
	}
	if s.cfg.names > 0 {
		tmp := mk(state.Root, "tmp", true)
		xattr(tmp, state.XattrEphemeral, "1")
	}
	if s.chance(0.3) {
		xattr(mk(state.Root, "slow", false), state.XattrLockDelay, "1")
	}
	s.leader.append(&statepb.Command{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{Session: id, Reason: statepb.EndReason_LEAVE}}})
}

// leader is whoever appends to the log. It has the newest state.
type leader struct {
	s       *sim
	state   *state.State
	view    *state.View
	down    int64 // until then there is none
	renews  []*statepb.Renewal
	gathers bool
}

// append puts an entry into the log and lets the hosts know.
func (l *leader) append(cmds ...*statepb.Command) []state.Change {
	return l.appendEntry(state.Encode(cmds))
}

func (l *leader) appendEntry(entry []byte) []state.Change {
	s := l.s
	s.log = append(s.log, entry)
	s.Entries++
	changes, err := l.state.Apply(uint64(len(s.log)), entry)
	if err != nil {
		s.failf("apply: %v", err)
	}
	l.view = l.state.View()
	for _, c := range changes {
		switch c.Kind {
		case state.SessionOpened, state.SessionRenewed:
			l.watch(c.Session)
		case state.Done:
			if c.Code == state.NotHolder || c.Code == state.Invalid {
				l.refused(entry, c)
			}
		}
	}
	for _, h := range s.hosts {
		h.catchUpSoon()
	}
	return changes
}

// refused: no host asks for what makes no sense. (But it may say of a lock that is gone meanwhile that it is in use.)
func (l *leader) refused(entry []byte, c state.Change) {
	var batch statepb.Batch
	if err := proto.Unmarshal(entry, &batch); err != nil {
		l.s.failf("%v", err)
	}
	for _, cmd := range batch.Commands {
		if cmd.Session == c.Session && cmd.Seq == c.Seq && cmd.GetInUse() == nil {
			l.s.failf("a command of session %d was answered %v: %v", c.Session, c.Code, cmd)
		}
	}
}

// watch ends a session that is not renewed within its time, from now.
func (l *leader) watch(session uint64) {
	x, ok := l.view.Session(session)
	if !ok {
		return
	}
	l.s.after(ttl, func() {
		y, ok := l.view.Session(session)
		switch {
		case !ok || y.Renewed != x.Renewed:
		case l.s.now < l.down: // the next leader starts afresh
		default:
			l.s.Expired++
			l.s.tracef("leader: session %d expired", session)
			l.append(&statepb.Command{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{
				Session: session, RenewedIndex: x.Renewed,
			}}})
		}
	})
}

// receive takes a message, if there is a leader.
func (l *leader) receive(entry []byte) {
	if l.s.now >= l.down {
		l.appendEntry(entry)
	}
}

// renew gathers renewals into one entry.
func (l *leader) renew(r *statepb.Renewal) {
	l.renews = append(l.renews, r)
	if l.gathers {
		return
	}
	l.gathers = true
	l.s.after(20*ms, func() {
		l.gathers = false
		cmd := &statepb.Command{TimeUnixNs: l.s.now + 1, Op: &statepb.Command_Renew{Renew: &statepb.Renew{Renewals: l.renews}}}
		l.renews = nil
		if l.s.now >= l.down {
			l.append(cmd)
		}
	})
}

// trouble deposes the leader at times: nothing is appended until there is another.
func (l *leader) trouble() {
	s := l.s
	if s.cfg.depose == 0 {
		return
	}
	s.after(s.about(int64(float64(second)/s.cfg.depose)), func() {
		if s.draining {
			return
		}
		s.Failovers++
		l.down = s.now + s.about(300*ms)
		s.tracef("leader: down for %v", time.Duration(l.down-s.now))
		s.after(l.down-s.now, func() {
			l.append(&statepb.Command{Op: &statepb.Command_Barrier{Barrier: &statepb.Barrier{}}})
			for x := range l.view.Sessions() {
				l.watch(x.ID)
			}
		})
		l.trouble()
	})
}

// snapshot returns a copy of the newest state, as it is sent to a host that is far behind.
func (l *leader) snapshot() *state.State {
	var b bytes.Buffer
	if _, err := l.view.WriteTo(&b); err != nil {
		l.s.failf("snapshot: %v", err)
	}
	st, err := state.Read(&b)
	if err != nil {
		l.s.failf("snapshot: %v", err)
	}
	return st
}

// send carries a message to the leader: it may be lost, late or come twice.
func (s *sim) send(from *host, deliver func()) {
	if from.cut > s.now || !s.draining && s.chance(s.cfg.drop) {
		return
	}
	d := 50_000 + s.about(300_000)
	if !s.draining && s.chance(s.cfg.late) {
		d += s.about(300 * ms)
	}
	s.after(d, deliver)
	if !s.draining && s.chance(s.cfg.twice) {
		s.after(d+s.about(20*ms), deliver)
	}
}
