package table

import "github.com/lockfs/lockfs/lockd/queue"

// resource is one resource as this host knows it: who has it here, and what
// the host has of it in the replicated state.
type resource struct {
	ino    uint64
	q      queue.Queue[*Lock]
	parent *resource // nil: the root, or an orphan
	child  *resource // first of the children
	sibPrev,
	sibNext *resource

	// The host lock.
	host    queue.Mode // granted, as of the last change applied
	keep    queue.Mode // what was last proposed to keep; counts while lowers > 0
	asked   queue.Mode // of a raise that is proposed or waits in the state; None: none
	askTry  bool       // the raise is a try
	askConv bool       // the raise is a conversion

	// What stands in the way of others.
	wanted queue.Mode // by a request elsewhere, None: none waits
	capped bool       // the cohort is used up

	foreign   bool  // somebody else had it since the last raise
	bounce    uint8 // how often it was recalled unused, see bounced
	idle      bool
	ephemeral bool // the directory's files vanish with their last lock: nothing below is cached idle
	dirty     bool
	listed    bool // in Table.recalled
	gone      bool // no longer in the table

	lowers uint32 // commands proposed and not answered yet that lower the host lock to keep or more
	asks   uint32 // of these, raises
	count  uint32 // grants of PW and EX under raise
	grants uint32 // grants and intents since the last raise
	pins   uint32
	locks  int32 // locks and requests of this resource, wherever they wait

	raise uint64  // number of the last raise
	asker *Lock   // for whom the raise was proposed
	told  *recall // nil: nobody elsewhere is held up

	idlePrev, idleNext *resource
	idleAt             int64

	prev, next *resource // all resources, in order of creation
}

// recall is what few resources need: what is known of the requests elsewhere that they hold up.
type recall struct {
	by     Asker       // the one that waits
	since  int64       // when its recall came
	budget int32       // grants left to the cohort
	tries  []tryRecall // those that want an answer
}

// recalls returns what is known of the recalls, to be changed.
func (r *resource) recalls() *recall {
	if r.told == nil {
		r.told = new(recall)
	}
	return r.told
}

// tries returns the recalls that want an answer.
func (r *resource) tries() []tryRecall {
	if r.told == nil {
		return nil
	}
	return r.told.tries
}

// answered forgets the recalls that wanted an answer.
func (r *resource) answered() {
	switch {
	case r.wanted == queue.None:
		r.told = nil
	case r.told != nil:
		r.told.tries = nil
	}
}

// tryRecall is a recall that wants an answer.
type tryRecall struct {
	by     uint64
	wanted queue.Mode
}

// has returns the host lock as it will be when all that is proposed is applied,
// raises aside: what counts here.
func (r *resource) has() queue.Mode {
	m := r.host
	if r.lowers > 0 {
		m = meet(m, r.keep)
	}
	return m
}

// bouncing is the number of recalls without use in between after which a lock is not cached.
const bouncing = 3

// maxCount is the greatest count of local grants under one raise: 20 bits of the token.
const maxCount = 1<<20 - 1

// ceiling returns the strongest mode that may be handed out.
func (t *Table) ceiling(r *resource) queue.Mode {
	if t.frozen || t.pins > 0 && t.pinned(r) {
		return queue.None
	}
	m := r.has()
	if r.capped && !r.mayConvert(m) {
		m = meet(m, room[r.wanted])
	}
	if r.count >= maxCount {
		m = meet(m, queue.CR)
	}
	return m
}

// mayConvert reports whether a conversion is first in the queue and has what it
// needs of the host lock: it goes ahead of the recall, since its holder will not
// let go of what is recalled while it waits.
func (r *resource) mayConvert(has queue.Mode) bool {
	head, waiting := r.q.Head()
	return waiting && head.Convert && has.Covers(head.Wanted)
}

// lookup returns the resource of a node, made if need be with its ancestors, or
// nil if the node is not in the tree.
func (t *Table) lookup(ino uint64) *resource {
	if r := t.res[ino]; r != nil {
		return r
	}
	up, ok := t.cfg.Tree.Parent(ino)
	if !ok {
		return nil
	}
	r := &resource{ino: ino}
	if up != 0 {
		p := t.lookup(up)
		if p == nil {
			return nil
		}
		r.link(p)
	}
	r.ephemeral = t.cfg.Tree.Ephemeral(ino)
	t.res[ino] = r
	r.prev = t.last
	if t.last != nil {
		t.last.next = r
	} else {
		t.first = r
	}
	t.last = r
	return r
}

func (r *resource) link(p *resource) {
	r.parent = p
	r.sibNext = p.child
	if p.child != nil {
		p.child.sibPrev = r
	}
	p.child = r
}

func (r *resource) unlink() {
	if r.parent == nil {
		return
	}
	if r.sibPrev != nil {
		r.sibPrev.sibNext = r.sibNext
	} else {
		r.parent.child = r.sibNext
	}
	if r.sibNext != nil {
		r.sibNext.sibPrev = r.sibPrev
	}
	r.parent, r.sibPrev, r.sibNext = nil, nil, nil
}

// forget takes a resource out of the table.
func (t *Table) forget(r *resource) {
	t.unidle(r)
	t.unrecall(r)
	r.unlink()
	delete(t.res, r.ino)
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		t.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		t.last = r.prev
	}
	r.prev, r.next, r.gone = nil, nil, true
}

// below reports whether r is strictly below a.
func (r *resource) below(a *resource) bool {
	for p := r.parent; p != nil; p = p.parent {
		if p == a {
			return true
		}
	}
	return false
}

// toIdle puts a resource at the end of the list of idle ones.
func (t *Table) toIdle(r *resource) {
	if r.idle {
		return
	}
	r.idle, r.idleAt = true, t.now
	r.idlePrev, r.idleNext = t.idleLast, nil
	if t.idleLast != nil {
		t.idleLast.idleNext = r
	} else {
		t.idleFirst = r
	}
	t.idleLast = r
	t.idles++
}

func (t *Table) unidle(r *resource) {
	if !r.idle {
		return
	}
	if r.idlePrev != nil {
		r.idlePrev.idleNext = r.idleNext
	} else {
		t.idleFirst = r.idleNext
	}
	if r.idleNext != nil {
		r.idleNext.idlePrev = r.idlePrev
	} else {
		t.idleLast = r.idlePrev
	}
	r.idle, r.idlePrev, r.idleNext = false, nil, nil
	t.idles--
}
