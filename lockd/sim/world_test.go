package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

const (
	ms     = int64(time.Millisecond)
	second = int64(time.Second)
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
	raft     *raft
	tokens   map[uint64]token
	counters map[uint64]*counter // by inode
	cycles   map[uint64]cycle    // by suspicion
	victims  map[state.ReportKey]bool
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
	crash, cut, pause   float64 // a second: of a host, of its network, of its daemon by SIGSTOP
	deaf, depose        float64 // a second: of its log, of the leader
	snapshot, memory    float64 // of catching up by a snapshot, and of beginning with one
	pace                int64   // of a process: mean time between two steps
	nested              float64 // that a process asks for a second lock
	names               float64 // that a step is about names
	sleep               float64 // that a process sleeps for a second between two steps, with its locks
	idleMax             int
	cohort              int
	patience            int64 // how long a process waits, mean
	report              int64 // how often a host tells of locks and waits
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
	s := &sim{seed: seed, rng: rand.New(rand.NewPCG(seed, 20)), tokens: map[uint64]token{}, counters: map[uint64]*counter{},
		cycles: map[uint64]cycle{}, victims: map[state.ReportKey]bool{}}
	pick := func(of ...float64) float64 { return of[s.rng.IntN(len(of))] }
	s.cfg = config{
		hosts: 1 + s.rng.IntN(5), procs: 1 + s.rng.IntN(5), files: 1 + s.rng.IntN(8),
		length: (2 + s.rng.Int64N(5)) * second,
		drop:   pick(0, 0, 0.02, 0.2), twice: pick(0, 0.02, 0.2), late: pick(0, 0.02, 0.2),
		crash: pick(0, 0, 0.1, 0.5), cut: pick(0, 0, 0.1, 0.5), pause: pick(0, 0, 0.1, 0.5), deaf: pick(0, 0, 0.1, 0.3),
		depose: pick(0, 0, 0.1, 0.5), snapshot: pick(0, 0.5, 1), memory: pick(0, 0.5),
		pace: int64(pick(0.3, 2, 10, 40) * float64(ms)), nested: pick(0, 0.2, 0.5), names: pick(0, 0, 0.02, 0.1),
		sleep: pick(0, 0, 0.01, 0.1), idleMax: int(pick(1, 4, 1000)), cohort: int(pick(-1, 1, 8)),
		patience: int64(pick(300, 2000) * float64(ms)), report: int64(pick(10, 50) * float64(ms)),
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
	s.raft = newRaft(s)
	s.plant()
	for i := range s.cfg.hosts {
		h := &host{s: s, name: fmt.Sprintf("h%d", i+1), state: state.New(), id: i}
		h.saved = h.state.View()
		h.rate = 1 + (s.rng.Float64()-0.5)*0.02
		h.ttl = []int64{second, 2 * second, 3 * second}[s.rng.IntN(3)]
		h.offset = s.rng.Int64N(100 * second)
		s.hosts = append(s.hosts, h)
		h.start()
		h.trouble()
	}
	s.raft.heartbeat()
	s.depositions()
	s.until(s.cfg.length)
	s.drain()
	s.untilQuiet(25 * second)
	s.stuck()
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
	opened := s.raft.command(open)
	id := opened[len(opened)-1].Session
	var seq uint64
	do := func(cmd *statepb.Command) uint64 {
		seq++
		cmd.Session, cmd.Seq = id, seq
		changes := s.raft.command(cmd)
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
	s.raft.command(&statepb.Command{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{Session: id, Reason: statepb.EndReason_LEAVE}}})
}
