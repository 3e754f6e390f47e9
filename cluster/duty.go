package cluster

import (
	"log/slog"
	"sync"
	"time"

	pure "github.com/lockfs/lockfs/lockd/duty"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// duty is what the leader does for the sessions of all hosts, see package lockd/duty, with a clock and a timer.
//
// Its clock is CLOCK_MONOTONIC, which stands still while the machine sleeps: a leader that slept ends sessions late,
// never early.
type duty struct {
	log     *slog.Logger
	propose func(cmds []*statepb.Command)
	kick    func() // nil, or told that there is something to hand over
	epoch   time.Time

	mu      sync.Mutex
	core    *pure.Duty
	timer   *time.Timer // armed while there will be something to propose
	stopped bool
}

func newDuty(log *slog.Logger, propose func([]*statepb.Command)) *duty {
	return &duty{log: log, propose: propose, epoch: time.Now(), core: pure.New()}
}

func (d *duty) now() int64 { return int64(time.Since(d.epoch)) }

// watch sees what was applied. Called by the applying goroutine.
func (d *duty) watch(changes []state.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.core.Applied(d.now(), changes)
	d.act()
}

// lead makes this host the leader or not. At the leader's barrier all sessions start afresh. The view is asked for when
// watch cannot come between, so nothing that is applied is missed.
func (d *duty) lead(leading bool, view func() *state.View) {
	d.mu.Lock()
	if leading {
		d.core.Lead(d.now(), view())
	} else {
		d.core.Follow()
	}
	d.act()
	d.mu.Unlock()
	if !leading {
		d.handOn()
	}
}

// replaced gives every session a whole TTL from now, if this host leads: all it knew was of another state.
func (d *duty) replaced(view *state.View) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.core.Leading() {
		d.core.Lead(d.now(), view)
		d.act()
	}
}

// renew takes a host's renewal into the next entry.
func (d *duty) renew(session uint64, stamp int64) {
	d.mu.Lock()
	d.core.Renew(d.now(), session, stamp)
	d.act()
	leading := d.core.Leading()
	d.mu.Unlock()
	if !leading {
		d.handOn()
	}
}

func (d *duty) handOn() {
	if d.kick != nil {
		d.kick()
	}
}

// handOver returns the renewals that are for another host to gather, stamps by session: this one does not lead.
func (d *duty) handOver() map[uint64]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.core.HandOver()
}

// act proposes what is due and sets the timer to what will be. d.mu is held.
func (d *duty) act() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	for !d.stopped {
		at, ok := d.core.Next()
		if !ok {
			return
		}
		now := d.now()
		if at > now {
			d.timer = time.AfterFunc(time.Duration(at-now), func() {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.act()
			})
			return
		}
		cmds, ended := d.core.Due(now, time.Now().UnixNano())
		for _, x := range ended {
			d.log.Warn("a host did not renew its session in time: its session ends, and its locks with it",
				"host", x.Host, "session", x.Session, "ttl", x.TTL)
		}
		d.propose(cmds)
	}
}

// stop ends the timer.
func (d *duty) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopped = true
	d.act()
}
