// Package lockdtest is a replicated log in memory, for tests of what uses a lockd.Host: it applies encoded entries to a
// real state.State, in order, in a goroutine of its own, and tells every host of them.
//
//	host a ─ Member ─┐                     ┌─ feed ─► host a.Applied
//	                 ├─► entries ─► Apply ─┤
//	host b ─ Member ─┘                     └─ feed ─► host b.Applied
//
// Each host has a [Member], by which its way to the log and from it can be cut, delayed or made to fail.
package lockdtest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// ErrNoLeader is what a proposal fails with while the member is cut off.
var ErrNoLeader = errors.New("no leader")

// Log is a log of any number of hosts.
type Log struct {
	mu      sync.Mutex
	entries []entry
	members []*Member
	state   *state.State
	index   uint64
	err     error
	history [][]state.Change // of every entry applied
	room    error

	wake    chan struct{}
	stopped chan struct{}
	work    sync.WaitGroup
	once    sync.Once
}

// entry is one on its way.
type entry struct {
	data []byte
	done func()
}

// New returns an empty log, which runs until Close.
func New() *Log {
	l := &Log{state: state.New(), wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	l.work.Add(1)
	go l.run()
	return l
}

// Close stops the log. Hosts must be closed before.
func (l *Log) Close() {
	l.once.Do(func() { close(l.stopped) })
	l.work.Wait()
}

// View returns the newest state, which hosts may not have seen yet.
func (l *Log) View() *state.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.View()
}

// Err returns the error of an entry that could not be applied.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// History returns all changes so far.
func (l *Log) History() (all []state.Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, changes := range l.history {
		all = append(all, changes...)
	}
	return all
}

// SetRoom makes Room of all members return err.
func (l *Log) SetRoom(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.room = err
}

// Command appends commands that come from no host: of a leader.
func (l *Log) Command(cmds ...*statepb.Command) {
	l.append(entry{data: state.Encode(cmds), done: func() {}})
}

// EndSession ends a session as a leader does that has not heard of it in time.
func (l *Log) EndSession(id uint64) {
	l.Command(&statepb.Command{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{
		Session: id, Reason: statepb.EndReason_EXPIRED, RenewedIndex: 1 << 62,
	}}})
}

func (l *Log) append(e entry) {
	l.mu.Lock()
	l.entries = append(l.entries, e)
	l.mu.Unlock()
	token(l.wake)
}

func token(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// run applies.
func (l *Log) run() {
	defer l.work.Done()
	for {
		select {
		case <-l.stopped:
			return
		case <-l.wake:
		}
		for l.step() {
		}
	}
}

// step applies one entry and hands the outcome to the members.
func (l *Log) step() bool {
	l.mu.Lock()
	if len(l.entries) == 0 || l.err != nil {
		l.mu.Unlock()
		return false
	}
	e := l.entries[0]
	l.entries = l.entries[1:]
	l.index++
	changes, err := l.state.Apply(l.index, e.data)
	if err != nil {
		l.err = err
		l.mu.Unlock()
		panic(err)
	}
	l.history = append(l.history, changes)
	a := applied{index: l.index, changes: changes, view: l.state.View()}
	members := l.members
	l.mu.Unlock()
	e.done()
	for _, m := range members {
		m.feed(a)
	}
	return true
}

// applied is the outcome of an entry.
type applied struct {
	index   uint64
	changes []state.Change
	view    *state.View
}

// Member is one host's connection to the log; it is the host's lockd.Log.
type Member struct {
	log *Log

	telling sync.Mutex // held while the host is told, before log.mu and mu
	mu      sync.Mutex
	host    *lockd.Host
	outbox  []applied
	cut     bool          // nothing gets to the log
	deaf    bool          // nothing gets from the log
	delay   time.Duration // of what comes from the log
	fail    func(entry []byte) Fate
	tries   int // entries proposed
	renewed int
	wake    chan struct{}
}

var _ lockd.Log = (*Member)(nil)

// Fate is what becomes of a proposal.
type Fate uint8

const (
	Commit     Fate = iota // the entry is committed, and the proposer told so
	Drop                   // it is not, and he is told of the failure
	CommitFail             // it is, but he is told of a failure
)

// Member adds a host's connection. Attach must be called before the host is started.
func (l *Log) Member() *Member {
	m := &Member{log: l, wake: make(chan struct{}, 1)}
	l.work.Add(1)
	go m.run()
	return m
}

// Attach tells the member its host, which begins with the state as it is.
func (m *Member) Attach(h *lockd.Host) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	m.mu.Lock()
	m.host = h
	m.mu.Unlock()
	if v := m.log.state.View(); v.Index() > 0 {
		h.Restored(v)
	}
	m.log.members = append(m.log.members, m)
}

// Detach ends the member: its host hears nothing any more.
func (m *Member) Detach() {
	m.SetDeaf(true)
	m.SetCut(true)
}

// SetCut cuts the member's way to the log: proposals fail, renewals vanish.
func (m *Member) SetCut(cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = cut
}

// SetDeaf holds back what comes from the log, or lets it come.
func (m *Member) SetDeaf(deaf bool) {
	m.mu.Lock()
	m.deaf = deaf
	m.mu.Unlock()
	token(m.wake)
}

// Restore throws away what was held back and gives the host a snapshot of the newest state in its place.
func (m *Member) Restore() {
	m.telling.Lock()
	defer m.telling.Unlock()
	m.log.mu.Lock()
	m.mu.Lock()
	m.outbox = nil
	m.deaf = false
	v, h := m.log.state.View(), m.host
	m.mu.Unlock()
	m.log.mu.Unlock()
	h.Restored(v)
}

// SetDelay delays what comes from the log.
func (m *Member) SetDelay(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

// SetFate sets what decides the fate of each proposal; nil: all are committed.
func (m *Member) SetFate(f func(entry []byte) Fate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// Proposals returns how many entries were proposed.
func (m *Member) Proposals() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tries
}

// Renewals returns how many renewals were asked for.
func (m *Member) Renewals() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.renewed
}

// Propose implements lockd.Log.
func (m *Member) Propose(data []byte, done func(error)) {
	m.mu.Lock()
	fate := Commit
	if m.fail != nil {
		fate = m.fail(data)
	}
	if m.cut {
		fate = Drop
	}
	m.tries++
	m.mu.Unlock()
	switch fate {
	case Drop:
		m.later(func() { done(ErrNoLeader) })
	case CommitFail:
		m.log.append(entry{data, func() { done(ErrNoLeader) }})
	default:
		m.log.append(entry{data, func() { done(nil) }})
	}
}

// later calls f from a goroutine of its own.
func (m *Member) later(f func()) {
	m.log.work.Add(1)
	go func() {
		defer m.log.work.Done()
		f()
	}()
}

// Renew implements lockd.Log.
func (m *Member) Renew(session uint64, stamp int64) {
	m.mu.Lock()
	cut := m.cut
	m.renewed++
	m.mu.Unlock()
	if !cut {
		m.log.Command(&statepb.Command{TimeUnixNs: time.Now().UnixNano(), Op: &statepb.Command_Renew{Renew: &statepb.Renew{
			Renewals: []*statepb.Renewal{{Session: session, Stamp: stamp}},
		}}})
	}
}

// Room implements lockd.Log.
func (m *Member) Room() error {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	return m.log.room
}

func (m *Member) feed(a applied) {
	m.mu.Lock()
	m.outbox = append(m.outbox, a)
	m.mu.Unlock()
	token(m.wake)
}

// run tells the host what was applied.
func (m *Member) run() {
	defer m.log.work.Done()
	for {
		select {
		case <-m.log.stopped:
			return
		case <-m.wake:
		}
		for m.step() {
		}
	}
}

func (m *Member) step() bool {
	m.mu.Lock()
	delay, wait := m.delay, m.delay > 0 && !m.deaf && len(m.outbox) > 0
	m.mu.Unlock()
	if wait {
		select {
		case <-time.After(delay):
		case <-m.log.stopped:
			return false
		}
	}
	m.telling.Lock()
	defer m.telling.Unlock()
	m.mu.Lock()
	if m.deaf || len(m.outbox) == 0 {
		m.mu.Unlock()
		return false
	}
	a, h := m.outbox[0], m.host
	m.outbox = m.outbox[1:]
	m.mu.Unlock()
	h.Applied(a.index, a.changes, a.view)
	return true
}

// Start makes a log with one host on it and starts the host. Stop closes both. Config's Name defaults to "host1", its
// Log is set.
func Start(cfg lockd.Config) (h *lockd.Host, m *Member, stop func(), err error) {
	l := New()
	h, m, err = l.Start(cfg)
	if err != nil {
		l.Close()
		return nil, nil, nil, err
	}
	return h, m, func() {
		h.Close()
		l.Close()
	}, nil
}

// Start adds a host to the log and starts it.
func (l *Log) Start(cfg lockd.Config) (*lockd.Host, *Member, error) {
	m := l.Member()
	if cfg.Name == "" {
		cfg.Name = "host1"
	}
	cfg.Log = m
	h := lockd.New(cfg)
	m.Attach(h)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return h, m, h.Start(ctx)
}
