package table

import (
	"fmt"
	"time"

	"github.com/lockfs/lockfs/lockd/queue"
)

// Tree answers questions about the tree as of the last change applied. (The
// shell asks the state's view.)
type Tree interface {
	// Parent returns the directory of a node, 0 for the root and for an orphan; ok is false if there is no such node.
	Parent(ino uint64) (parent uint64, ok bool)
	// Ephemeral reports whether files in the directory vanish with their last lock. False for a file.
	Ephemeral(ino uint64) bool
}

// Config bounds a table. The zero value of each field but Tree means the default.
type Config struct {
	Tree       Tree
	MaxLocks   int           // locks held and waiting; default 1<<20
	MaxWaiters int           // of these, waiting; default 1<<16
	CohortN    int           // grants to local requests after a recall; default 16, negative: none
	CohortTime time.Duration // after the recall; default 50 ms
	IdleMax    int           // locks cached idle; default 10,000
	IdleFor    time.Duration // how long one is cached; default 5 min
	TryFor     time.Duration // how long a try waits for a recall to be answered; default 1 s
}

func (c Config) withDefaults() Config {
	orInt := func(p *int, def int) {
		if *p == 0 {
			*p = def
		}
	}
	orTime := func(p *time.Duration, def time.Duration) {
		if *p == 0 {
			*p = def
		}
	}
	orInt(&c.MaxLocks, 1<<20)
	orInt(&c.MaxWaiters, 1<<16)
	orInt(&c.CohortN, 16)
	c.CohortN = max(c.CohortN, 0)
	orTime(&c.CohortTime, 50*time.Millisecond)
	orInt(&c.IdleMax, 10_000)
	orTime(&c.IdleFor, 5*time.Minute)
	orTime(&c.TryFor, time.Second)
	return c
}

// Table is one host's lock table. It is not safe for use by several goroutines.
type Table struct {
	cfg Config
	res map[uint64]*resource

	first, last         *resource // all, in order of creation
	idleFirst, idleLast *resource // idle ones, least recently used first
	idles               int

	waitFirst, waitLast *Lock // waiting ones, by rank
	waits               int
	pins                int
	locks               int // held or waiting
	rank                uint64
	places              int64       // given out
	recalls             int         // resources with a recall of a request that waits
	tries               int         // waiting locks that are tries
	owners              int         // waiting locks that name others of their owner
	fresh               []*resource // granted but never used, where nothing is cached
	recalled            []*resource // those with a recall of either kind; some whose recall is over

	session  uint64 // 0: none
	base     uint64 // of tokens
	now      int64
	halfway  int64 // of the lease: jeopardy from then on
	end      int64 // of the lease
	jeopardy bool
	frozen   bool // nothing may be granted: no session, or jeopardy

	inflight []flight // proposed and not answered, in order
	work     []passed // grants to be followed up
	dirty    []*resource
	path     []*resource // scratch
	out      Output
}

// New returns an empty table without a session: requests queue until [Table.Session].
func New(cfg Config) *Table {
	return &Table{cfg: cfg.withDefaults(), res: make(map[uint64]*resource), frozen: true}
}

// Len returns the number of locks held or waiting.
func (t *Table) Len() int { return t.locks }

// Waiting returns the number of locks that wait.
func (t *Table) Waiting() int { return t.waits }

// Pending reports whether Take would return anything.
func (t *Table) Pending() bool { return len(t.out.Proposals)+len(t.out.Events) > 0 }

// Take returns what the inputs since the last Take led to.
func (t *Table) Take() Output {
	out := t.out
	t.out = Output{}
	return out
}

// Try grants a new lock here and now, from what the host has, or changes
// nothing and returns false. It is the hot path and emits no event but
// Blocking; it does not allocate.
func (t *Table) Try(l *Lock, mode queue.Mode, flags queue.Flags) bool {
	r := t.res[l.Ino]
	if r == nil || t.frozen || t.locks >= t.cfg.MaxLocks {
		return false
	}
	if l.res != nil {
		panic(fmt.Sprintf("table: try of inode %d: the lock is in use", l.Ino))
	}
	intent := mode.Intent()
	if intent != queue.None && !t.tryIntents(l, r, intent) {
		return false
	}
	if _, ok := r.q.TryGrant(queue.Request[*Lock]{Holder: l, Mode: mode, Flags: flags & deadlockFlags}); !ok {
		if intent != queue.None {
			t.undoIntents(r, nil, intent)
		}
		return false
	}
	t.enterLock(l, r)
	l.Flags = flags
	t.holds(l, mode)
	t.spent(r, mode)
	if t.recalls > 0 {
		t.blocks(l)
	}
	return true
}

// tryIntents takes the intents on all ancestors of r, or none.
func (t *Table) tryIntents(l *Lock, r *resource, intent queue.Mode) bool {
	for a := r.parent; a != nil; a = a.parent {
		if _, ok := a.q.TryGrant(queue.Request[*Lock]{Holder: l, Mode: intent, Shared: true}); !ok {
			t.undoIntents(r, a, intent)
			return false
		}
		if a.idle {
			t.unidle(a)
		}
		t.spent(a, intent)
	}
	return true
}

// undoIntents gives back the intents of r's ancestors below a that were just
// taken. That grants nothing: what waits was not grantable before either.
func (t *Table) undoIntents(r, a *resource, intent queue.Mode) {
	for p := r.parent; p != a; p = p.parent {
		p.q.ReleaseShared(intent)
		if p.q.Empty() {
			t.touch(p)
		}
	}
	t.run()
}

// enterLock makes l a lock of r.
func (t *Table) enterLock(l *Lock, r *resource) {
	l.res = r
	r.locks++
	t.locks++
	if r.idle {
		t.unidle(r)
	}
}

// holds notes that l was granted mode, with its token.
func (t *Table) holds(l *Lock, mode queue.Mode) {
	r := l.res
	if mode.Writes() && !l.Mode.Writes() { // PW to EX goes on under the same token
		r.count++
		l.Token = t.token(r)
		if r.count >= maxCount {
			t.follow(r, r.q.SetCeiling(t.ceiling(r))) // lowered, unless as in spent
		}
	} else if !mode.Writes() {
		l.Token = t.token(r)
	}
	l.Mode, l.Since = mode, t.now
	if l.refs > 0 {
		t.ownChanged(l)
	}
}

// token returns the token of the last grant of PW or EX at r.
func (t *Table) token(r *resource) uint64 { return (t.base+r.raise)<<20 | uint64(r.count) }

// Release lets go of a lock and withdraws what it waits for. It does nothing
// for a lock that is not in the table (any more).
func (t *Table) Release(l *Lock) {
	if l.res == nil {
		return
	}
	if l.at() != nil {
		t.withdraw(l)
	}
	t.release(l)
	t.run()
}

// release lets go of what l has and takes it out of the table.
func (t *Table) release(l *Lock) {
	r := l.res
	mode := l.Mode
	l.Mode, l.Token = queue.None, 0
	t.leave(l)
	if l.refs > 0 {
		t.disown(l)
	}
	if mode != queue.None {
		t.follow(r, r.q.Release(l))
		t.let(r)
		if intent := mode.Intent(); intent != queue.None {
			for a := r.parent; a != nil; a = a.parent {
				t.follow(a, a.q.ReleaseShared(intent))
				t.let(a)
			}
		}
	}
}

// leave takes l out of the table's counts.
func (t *Table) leave(l *Lock) {
	l.res.locks--
	l.res, l.Flags = nil, 0
	if l.own() != nil {
		t.setOwn(l, nil)
	}
	t.locks--
}

// let looks after a resource that somebody let go of. The usual case, a
// resource that becomes idle and stays cached, is done with here.
func (t *Table) let(r *resource) {
	switch {
	case r.wanted != queue.None || r.asked != queue.None || len(r.tries()) > 0 || r.q.Waiters() > 0:
		t.touch(r)
	case !r.q.Empty():
	case r.host != queue.None && r.lowers == 0 && r.pins == 0 && !t.uncached(r):
		t.toIdle(r)
	default:
		t.touch(r)
	}
}

// pinned reports whether r or one of its ancestors is pinned.
func (t *Table) pinned(r *resource) bool {
	for ; r != nil; r = r.parent {
		if r.pins > 0 {
			return true
		}
	}
	return false
}
