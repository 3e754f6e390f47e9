package lockd

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
	"github.com/lockfs/lockfs/lockd/table"
)

// Host is one host's part of the lock manager. Its methods may be called by any goroutine.
type Host struct {
	cfg Config
	log *slog.Logger

	view       atomic.Pointer[state.View]
	onChange   []func(index uint64, changes []state.Change, from []any) // set before Start
	from       []any                                                    // of the entry being applied
	onLost     []func()                                                 // set before Start
	probes     probes
	subsMu     sync.Mutex
	subs       []*Subscription // replaced, never changed
	subscribed atomic.Bool     // there are subscriptions
	leaseEnd   atomic.Int64    // until when this host may act on what it knows; 0: no session
	sessionID  atomic.Uint64   // the present session, 0: none
	answered   atomic.Int64    // when the ticker last found that all probes answer

	pendingBytes atomic.Int64 // of commands that somebody waits for

	stopped  chan struct{}  // closed by Close
	work     sync.WaitGroup // all goroutines of this host
	kick     chan struct{}  // wakes the proposer; one token
	prod     chan struct{}  // wakes the ticker; one token
	tellKick chan struct{}  // wakes who tells of locks and waits; one token
	closing  sync.Once
	closeErr error

	mu         sync.Mutex
	phase      phase
	table      *table.Table
	lease      lease
	opening    opening
	queue      *proposals // of the present session; nil: none
	former     *proposals // of a session that is lost here and may not have ended in the state yet
	control    []*statepb.Command
	held       []*pending // waiting for a session
	outbox     []delivery
	spare      []delivery
	sending    bool           // somebody delivers the outbox
	waiters    map[uint32]int // threads that wait for a lock
	ranges     map[uint64]*rangeWait
	rangeID    uint64
	recalls    map[*recallWatch]struct{}
	order      uint64        // of the last wait
	opened     chan struct{} // closed when a session is open; replaced when it is lost
	idle       chan struct{} // closed when the last lock goes while draining
	brisk      int64         // until then tick often
	prodded    bool          // wake the ticker
	leaving    bool          // the session ends by Close
	joined     uint64        // the last session that a notice told of
	leader     string
	deadlocks  uint64 // verdicts
	losses     uint64 // sessions lost
	lossReason string
	reports    reports
	examined   map[uint64]chan struct{} // suspicions that are looked after; a token: look now
	news       news
	counts     Counters
}

// phase is how far a Host has come.
type phase uint8

const (
	fresh phase = iota
	running
	draining
	closed
)

// New returns a host that does nothing yet but remember the state that is applied.
func New(cfg Config) *Host {
	cfg = cfg.withDefaults()
	h := &Host{
		cfg:      cfg,
		log:      cfg.Logger,
		stopped:  make(chan struct{}),
		kick:     make(chan struct{}, 1),
		prod:     make(chan struct{}, 1),
		tellKick: make(chan struct{}, 1),
		examined: make(map[uint64]chan struct{}),
		opened:   make(chan struct{}),
		waiters:  make(map[uint32]int),
		ranges:   make(map[uint64]*rangeWait),
		recalls:  make(map[*recallWatch]struct{}),
	}
	h.view.Store(state.New().View())
	h.table = table.New(table.Config{
		Tree:       tree{h},
		MaxLocks:   cfg.Limits.Locks,
		MaxWaiters: cfg.Limits.Waiters,
		CohortN:    cfg.Limits.CohortN,
		CohortTime: cfg.Limits.CohortTime,
		IdleMax:    cfg.Limits.IdleMax,
		IdleFor:    cfg.Limits.IdleFor,
		TryFor:     cfg.TryFor,
	})
	return h
}

func (c Config) withDefaults() Config {
	orTime := func(p *time.Duration, def time.Duration) {
		if *p == 0 {
			*p = def
		}
	}
	orTime(&c.SessionTTL, state.DefaultTTL)
	c.SessionTTL = min(c.SessionTTL, state.MaxTTL) // a longer lease than the session's would be a lie
	orTime(&c.OpTimeout, 5*time.Second)
	orTime(&c.DeadlockWait, 10*time.Second)
	orTime(&c.TryFor, time.Second)
	if c.Limits.Notices <= 0 {
		c.Limits.Notices = 1024
	}
	if c.Limits.Pending <= 0 {
		c.Limits.Pending = 128 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Processes == nil {
		c.Processes = machine{}
	}
	if c.Now == nil {
		c.Now = bootTime
	}
	if c.BootID == "" {
		id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
		c.BootID = strings.TrimSpace(string(id))
	}
	return c
}

// OnChange adds a function that is told of every entry applied, and of what a snapshot changed, by the goroutine that
// applies, before anybody who waits for the entry goes on. from[i], where from is so long, is the Call.From of whoever waits for the
// command that made changes[i]; nil: nobody here does. It must be quick and not block. OnChange must be called before Start.
func (h *Host) OnChange(f func(index uint64, changes []state.Change, from []any)) {
	h.onChange = append(h.onChange, f)
}

// OnLost adds a function that is called whenever the session is lost: kernel caches are to be dropped. It is called
// like a [Listener], after the lease's end. OnLost must be called before Start.
func (h *Host) OnLost(f func()) { h.onLost = append(h.onLost, f) }

// View returns the state as of the last entry applied here.
func (h *Host) View() *state.View { return h.view.Load() }

// Name returns the host's name in the cluster.
func (h *Host) Name() string { return h.cfg.Name }

// Session returns the present session, 0 if there is none.
func (h *Host) Session() uint64 { return h.sessionID.Load() }

// Start ends sessions that a former daemon of this host left behind, if nobody can still work under them, opens a session and
// waits until that is applied. Entries applied before, by Applied and Restored, only change the view. After an error the host goes
// on trying until it is closed.
func (h *Host) Start(ctx context.Context) error {
	if h.cfg.Name == "" || !utf8.ValidString(h.cfg.Name) || h.cfg.Log == nil {
		return errors.New("lockd: a host needs a name, in UTF-8, and a log")
	}
	h.mu.Lock()
	if h.phase != fresh {
		h.mu.Unlock()
		return ErrClosed
	}
	h.phase = running
	h.endFormer()
	h.openSession()
	opened := h.opened
	h.work.Add(3)
	h.unlock()
	go h.propose()
	go h.tick()
	go h.tell()
	select {
	case <-opened:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.stopped:
		return ErrClosed
	}
}

// Drain refuses new locks and waits until all are released, or the context is done. What is left then is lost.
// Names can still be worked on, values committed and locks released.
func (h *Host) Drain(ctx context.Context) {
	h.mu.Lock()
	if h.phase != running {
		h.mu.Unlock()
		return
	}
	h.phase = draining
	h.idle = make(chan struct{})
	idle := h.idle
	h.refuseWaiting(ErrDraining)
	h.unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	case <-h.stopped:
	}
	h.mu.Lock()
	h.loseLocks("the host shuts down")
	h.unlock()
}

// Close ends the session as one that leaves, waits for that to be applied, at most for OpTimeout, and stops all goroutines.
// Whoever waits gets ErrClosed, ErrDraining or ErrLost.
func (h *Host) Close() error {
	h.closing.Do(h.close)
	return h.closeErr
}

func (h *Host) close() {
	h.mu.Lock()
	started := h.phase != fresh
	h.phase = draining
	h.refuseWaiting(ErrDraining)
	h.loseLocks("the host shuts down")
	session := h.lease.session
	h.leaving = true
	h.unlock()
	if started && session != 0 {
		h.closeErr = h.leave(session)
	}
	h.mu.Lock()
	h.phase = closed
	h.leaseEnd.Store(0)
	h.failPending(ErrClosed)
	h.unlock()
	close(h.stopped)
	h.work.Wait()
}

// unlock is how every method that may have changed something lets go of the mutex: what the table wants proposed is
// queued, what it has to tell is told.
func (h *Host) unlock() {
	h.settle()
	kick := h.wantsKick()
	if len(h.outbox) > 0 && !h.sending {
		h.deliver()
		kick = kick || h.wantsKick()
	}
	prod := h.prodded
	h.prodded = false
	h.mu.Unlock()
	if kick {
		wake(h.kick)
	}
	if prod {
		wake(h.prod)
	}
}

// wantsKick reports whether the proposer has something to do.
func (h *Host) wantsKick() bool {
	return len(h.control) > 0 || h.queue != nil && h.queue.wants() || h.newsPending()
}

// wake puts the token into a channel that holds one.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// settle takes what the table has put out until there is nothing more.
func (h *Host) settle() {
	for h.table.Pending() {
		out := h.table.Take()
		for _, cmd := range out.Proposals {
			h.command(cmd)
		}
		for i := range out.Events {
			h.event(&out.Events[i])
		}
	}
	if h.idle != nil && h.table.Len() == 0 {
		close(h.idle)
		h.idle = nil
	}
}

// delivery is a notice on its way: to a lock's listener, or to the subscribers if there is none; or a call.
type delivery struct {
	to   Listener
	call func()
	n    Notice
}

// deliver sends what is in the outbox, and what comes in meanwhile, with the mutex let go of during the calls.
func (h *Host) deliver() {
	h.sending = true
	for len(h.outbox) > 0 {
		batch := h.outbox
		h.outbox, h.spare = h.spare[:0], nil
		h.mu.Unlock()
		h.subsMu.Lock()
		subs := h.subs
		h.subsMu.Unlock()
		for i := range batch {
			d := &batch[i]
			if by := &d.n.By; by.PID != 0 && by.Comm == "" && by.Host == h.cfg.Name {
				by.Comm = h.cfg.Processes.Comm(by.PID)
			}
			switch {
			case d.call != nil:
				d.call()
			case d.to != nil:
				d.to.Notice(d.n)
			default:
				for _, s := range subs {
					s.offer(&d.n)
				}
			}
		}
		clear(batch)
		h.mu.Lock()
		h.spare = batch
	}
	h.sending = false
}

// tree is the table's window to the tree.
type tree struct{ h *Host }

func (t tree) Parent(ino uint64) (uint64, bool) {
	n := t.h.View().Node(ino)
	if n == nil {
		return 0, false
	}
	return n.Parent, true
}

func (t tree) Ephemeral(ino uint64) bool {
	n := t.h.View().Node(ino)
	return n != nil && n.Ephemeral
}

// say logs, after the mutex is let go of.
func (h *Host) say(level slog.Level, msg string, args ...any) {
	h.outbox = append(h.outbox, delivery{call: func() { h.log.Log(context.Background(), level, msg, args...) }})
}

// wall returns the time of day.
func (h *Host) wall() time.Time { return time.Now().Round(0) }

// nonce names one opening of a session.
func nonce() uint64 { return rand.Uint64() | 1 }
