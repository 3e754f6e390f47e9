package table

import (
	"fmt"

	"github.com/lockfs/lockfs/lockd/queue"
)

// Check reports a broken invariant, nil if there is none. It is for tests and
// simulations, between inputs.
func (t *Table) Check() error {
	if len(t.work)+len(t.dirty) > 0 {
		return fmt.Errorf("table: %d grants and %d resources were not followed up", len(t.work), len(t.dirty))
	}
	c := checker{t: t, refs: make(map[*Lock]int32), intents: make(map[*resource]*[2]int), lowers: make(map[*resource][2]uint32)}
	c.locks()
	c.flights()
	n := 0
	for r := t.first; r != nil && c.err == nil; r = r.next {
		n++
		c.resource(r)
	}
	c.that(n == len(t.res), "%d resources listed, %d in the map", n, len(t.res))
	c.totals()
	if c.err != nil {
		return fmt.Errorf("table: %w", c.err)
	}
	return nil
}

// checker gathers what the resources should show, from the locks.
type checker struct {
	t       *Table
	seen    int
	waits   int
	tries   int
	owners  int
	idles   int
	recalls int
	refs    map[*Lock]int32
	intents map[*resource]*[2]int
	lowers  map[*resource][2]uint32 // lowers, asks
	err     error
}

func (c *checker) that(ok bool, format string, args ...any) {
	if !ok && c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// locks looks at every lock once.
func (c *checker) locks() {
	for r := c.t.first; r != nil; r = r.next {
		for e := range r.q.All() {
			l := e.Holder
			if l.res == r && e.Mode != queue.None {
				c.lock(l)
				c.that(l.Mode == e.Mode, "inode %d: a lock has %v, the queue says %v", r.ino, l.Mode, e.Mode)
			}
		}
	}
	var last *Lock
	for l := c.t.waitFirst; l != nil; l = l.ask.next {
		c.that(l.ask.prev == last, "the list of waiting locks is broken")
		last = l
		c.waits++
		if l.try() {
			c.tries++
		}
		if len(l.own()) > 0 {
			c.owners++
		}
		if l.Mode == queue.None {
			c.lock(l)
		}
		c.that(l.at() != nil && l.at().q.Waiting(l) == l.needs(l.at()), "inode %d: a request does not wait in the queue where it should", l.Ino)
		c.that(l.conv() == (l.Mode != queue.None), "inode %d: conversion %v of %v", l.Ino, l.conv(), l.Mode)
		for _, o := range l.own() {
			c.refs[o]++
		}
	}
	c.that(last == c.t.waitLast, "the end of the list of waiting locks is wrong")
}

// lock counts one lock's intents.
func (c *checker) lock(l *Lock) {
	c.seen++
	c.that(l.res != nil && !l.res.gone && l.res.ino == l.Ino, "inode %d: a lock of a resource that is gone", l.Ino)
	c.that(l.ask == nil || l.at() != nil, "inode %d: a lock that does not wait asks for something", l.Ino)
	if c.err != nil {
		return
	}
	for a := l.res.parent; a != nil; a = a.parent {
		n := l.intentAt(a)
		if c.intents[a] == nil {
			c.intents[a] = new([2]int)
		}
		c.intents[a][0] += int(n[0])
		c.intents[a][1] += int(n[1])
	}
}

// flights counts what is under way.
func (c *checker) flights() {
	for _, f := range c.t.inflight {
		for _, s := range f.steps {
			n := c.lowers[s.r]
			n[0]++
			if s.ask {
				n[1]++
			}
			c.lowers[s.r] = n
		}
	}
}

// resource looks at one resource.
func (c *checker) resource(r *resource) {
	t := c.t
	if err := r.q.Check(); err != nil {
		c.that(false, "inode %d: %w", r.ino, err)
		return
	}
	c.that(t.res[r.ino] == r && !r.gone, "inode %d is not in the map", r.ino)
	c.that(r.q.Ceiling() == t.ceiling(r), "inode %d: ceiling %v, should be %v", r.ino, r.q.Ceiling(), t.ceiling(r))
	use := r.q.InUse()
	c.that(r.has().Covers(use), "inode %d: %v is granted here, but the host has %v (of %v)", r.ino, use, r.has(), r.host)
	var n [2]int
	if p := c.intents[r]; p != nil {
		n = *p
	}
	got := [2]int{r.q.Shared(queue.CR), r.q.Shared(queue.CW)}
	c.that(got == n, "inode %d: intents %v counted, %v held", r.ino, got, n)
	low := c.lowers[r]
	c.that(r.lowers == low[0] && r.asks == low[1], "inode %d: %d lowerings and %d raises counted, %v under way", r.ino, r.lowers, r.asks, low)
	c.that(r.asked != queue.None || r.asker == nil, "inode %d: a raise of nothing for somebody", r.ino)
	if r.idle {
		c.idles++
		c.that(r.q.Empty(), "inode %d: idle and in use", r.ino)
	}
	if r.wanted != queue.None {
		c.recalls++
		c.that(r.listed && r.host != queue.None, "inode %d: recalled, held %v, listed %v", r.ino, r.host, r.listed)
	}
	c.that((r.told != nil) == (r.wanted != queue.None || len(r.tries()) > 0), "inode %d: recalled for %v, and it is known %v", r.ino, r.wanted, r.told)
	c.stuck(r)
}

// stuck looks whether those who wait have something to wait for.
func (c *checker) stuck(r *resource) {
	t := c.t
	head, waiting := r.q.Head()
	if !waiting || t.session == 0 || t.pinned(r) {
		return
	}
	switch {
	case r.asked != queue.None, t.frozen, t.hardBlocked(head.Holder, r):
	case r.capped && !queue.Compatible(r.q.InUse(), r.wanted) && !r.mayConvert(r.has()):
	default:
		c.that(false, "inode %d: a request for %v waits for nothing (host %v, ceiling %v)", r.ino, head.Wanted, r.has(), r.q.Ceiling())
	}
}

// totals compares the table's counts.
func (c *checker) totals() {
	t := c.t
	for _, x := range []struct {
		what      string
		got, want int
	}{
		{"locks", t.locks, c.seen}, {"waiting", t.waits, c.waits}, {"tries", t.tries, c.tries}, {"owners", t.owners, c.owners},
		{"idle", t.idles, c.idles}, {"recalls", t.recalls, c.recalls},
	} {
		c.that(x.got == x.want, "%s: %d counted, %d there", x.what, x.got, x.want)
	}
	for l, n := range c.refs {
		c.that(l.refs == n && l.res != nil, "inode %d: %d references counted, %d there", l.Ino, l.refs, n)
	}
}
