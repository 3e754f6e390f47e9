package state

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/lockfs/lockfs/lockd/queue"
)

// Check reports a broken invariant. Simulations and tests run it after every step, [Read] on what it has read. Its cost
// grows with the size of the state.
func (s *State) Check() error {
	if err := s.cur.check(); err != nil {
		return err
	}
	return s.checkGraph()
}

// Check reports a broken invariant, see [State.Check].
func (v *View) Check() error { return v.check() }

func (v *View) check() error {
	for _, part := range []func() error{v.checkCounters, v.checkNodes, v.checkTree, v.checkSessions, v.checkLocks, v.checkRanges, v.checkReports, v.checkDelays, v.checkHosts} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// firstError runs a check on all entries of a tree until one fails.
func firstError[K, V any](scan func(func(K, V) bool), check func(K, V) error) (err error) {
	scan(func(k K, x V) bool {
		err = check(k, x)
		return err == nil
	})
	return err
}

// maxCounter is what no counter ever comes to; package fs uses the bits above in inode numbers.
const maxCounter = 1 << 60

func (v *View) checkCounters() error {
	if n := max(v.index, v.nextIno, v.raises, v.lastSession, v.tokenBase); n >= maxCounter {
		return fmt.Errorf("a counter is at %d", n)
	}
	return nil
}

func (v *View) checkNodes() error {
	var bytes uint64
	var orphans int
	err := firstError(v.nodes.Scan, func(ino uint64, n *Node) error {
		bytes += n.weight()
		if n.Orphan != 0 {
			orphans++
		}
		return v.checkNode(ino, n)
	})
	switch root := v.Node(Root); {
	case err != nil:
		return err
	case root == nil || !root.Dir || root.Parent != 0 || root.Name != "" || root.Orphan != 0:
		return fmt.Errorf("the root is no root directory")
	case bytes != v.bytes:
		return fmt.Errorf("%d bytes of values and attributes, counted %d", bytes, v.bytes)
	case v.orphans.Len() != orphans:
		return fmt.Errorf("%d orphans, %d listed", orphans, v.orphans.Len())
	case v.names.Len() != v.nodes.Len()-1-orphans:
		return fmt.Errorf("%d names for %d nodes and %d orphans", v.names.Len(), v.nodes.Len(), orphans)
	}
	return nil
}

func (v *View) checkNode(ino uint64, n *Node) error {
	switch {
	case n.Ino != ino || ino == 0 || ino >= v.nextIno || n.Perm > 0o7777:
		return fmt.Errorf("node %d is numbered %d (next %d) or has mode %o", ino, n.Ino, v.nextIno, n.Perm)
	case len(n.Value) > maxValueLen:
		return fmt.Errorf("node %d has a value of %d bytes", ino, len(n.Value))
	}
	if err := n.checkXattrs(); err != nil {
		return err
	}
	if ino == Root {
		return nil
	}
	if n.Orphan != 0 {
		owner, _ := v.orphans.Get(ino)
		_, live := v.findSession(owner)
		if n.Dir || n.Parent != 0 || n.Name != "" || owner != n.Orphan || !live {
			return fmt.Errorf("node %d is an orphan of session %d (listed: %d)", ino, n.Orphan, owner)
		}
		return nil
	}
	if e, ok := v.names.Get(dirent{parent: n.Parent, name: n.Name}); !ok || e.ino != ino {
		return fmt.Errorf("node %d: %d/%q leads to %d", ino, n.Parent, n.Name, e.ino)
	}
	if p := v.Node(n.Parent); p == nil || !p.Dir || v.checkAnyName(n) != OK {
		return fmt.Errorf("node %d: %q is no name below %d", ino, n.Name, n.Parent)
	}
	return nil
}

// checkAnyName checks a name against the longest that there ever can be, since the limit may have been lowered.
func (v *View) checkAnyName(n *Node) Code {
	w := View{limits: Limits{NameLen: maxNameLen}}
	return w.CheckName(n.Parent, []byte(n.Name))
}

func (n *Node) checkXattrs() error {
	ephemeral := false
	for i, x := range n.Xattrs {
		if i > 0 && n.Xattrs[i-1].Name >= x.Name || x.Name == "" || len(x.Name) > maxNameLen || strings.ContainsRune(x.Name, 0) ||
			len(x.Value) > maxXattrLen || !checkXattr(n, x.Name, x.Value) {
			return fmt.Errorf("node %d: attribute %q", n.Ino, x.Name)
		}
		ephemeral = ephemeral || x.Name == XattrEphemeral && string(x.Value) == "1"
	}
	if ephemeral != n.Ephemeral {
		return fmt.Errorf("node %d: ephemeral is %v", n.Ino, n.Ephemeral)
	}
	return nil
}

// checkTree looks for every node from the root, level by level.
func (v *View) checkTree() error {
	seen, level := 1, []uint64{Root}
	for depth := 0; len(level) > 0; depth++ {
		if depth > maxDepth {
			return fmt.Errorf("a path of more than %d names", maxDepth)
		}
		var next []uint64
		for _, dir := range level {
			v.names.Ascend(dirent{parent: dir}, func(e dirent) bool {
				if e.parent != dir {
					return false
				}
				seen++
				next = append(next, e.ino)
				return true
			})
		}
		level = next
	}
	if seen != v.names.Len()+1 {
		return fmt.Errorf("%d of %d nodes are below the root", seen, v.names.Len()+1)
	}
	return nil
}

func (v *View) checkSessions() error {
	if !slices.IsSortedFunc(v.sessions, func(a, b *session) int { return cmp.Compare(a.ID, b.ID) }) {
		return fmt.Errorf("sessions out of order")
	}
	locks, ranges := map[uint64]uint64{}, map[uint64]uint64{}
	for l := range v.AllHostLocks() {
		locks[l.Session]++
	}
	v.ranges.Scan(func(_ uint64, f *fileRanges) bool {
		for i := range f.held {
			ranges[f.held[i].Session]++
		}
		for i := range f.waits {
			ranges[f.waits[i].Session]++
		}
		return true
	})
	for i, x := range v.sessions {
		switch {
		case x.ID == 0 || x.ID > v.lastSession || i > 0 && v.sessions[i-1].ID == x.ID || x.Renewed > v.index || x.TTL < MinTTL || x.TTL > MaxTTL:
			return fmt.Errorf("session %d, renewed %d, lasting %v, after %d at index %d", x.ID, x.Renewed, x.TTL, v.lastSession, v.index)
		case !validWatches(x.Watches):
			return fmt.Errorf("session %d watches %v", x.ID, x.Watches)
		case x.Locks != locks[x.ID] || x.Ranges != ranges[x.ID]:
			return fmt.Errorf("session %d counts %d locks and %d ranges, has %d and %d",
				x.ID, x.Locks, x.Ranges, locks[x.ID], ranges[x.ID])
		}
		delete(locks, x.ID)
		delete(ranges, x.ID)
	}
	if len(locks)+len(ranges) > 0 {
		return fmt.Errorf("%d sessions that are not there have locks or ranges", len(locks)+len(ranges))
	}
	return nil
}

func (v *View) checkLocks() error {
	return firstError(v.locks.Scan, func(ino uint64, l lock) error {
		n := v.Node(ino)
		if n == nil {
			return fmt.Errorf("locks of node %d that is not there", ino)
		}
		for h := range v.HostLocks(ino) {
			if n.Orphan != 0 && h.Session != n.Orphan || h.Raise > v.raises || (h.Raise == 0) != (h.Mode == queue.None) {
				return fmt.Errorf("node %d: lock %+v", ino, h)
			}
		}
		if l.more == nil {
			if !l.mode.Valid() {
				return fmt.Errorf("node %d: lock of mode %v", ino, l.mode)
			}
			return nil
		}
		if err := l.more.check(); err != nil {
			return fmt.Errorf("node %d: %w", ino, err)
		}
		if _, delayed := v.findDelay(ino); delayed != v.Withheld(ino) {
			return fmt.Errorf("node %d: withheld is %v", ino, v.Withheld(ino))
		}
		return nil
	})
}

// check compares a contention with its queue.
func (c *contention) check() error {
	if err := c.q.Check(); err != nil {
		return err
	}
	free := c.q.Ceiling() == queue.EX
	switch {
	case !free && c.q.Ceiling() != withheld:
		return fmt.Errorf("ceiling %v", c.q.Ceiling())
	case free && len(c.waits) == 0 && len(c.holds) < 2:
		return fmt.Errorf("nobody contends")
	case len(c.holds) != c.q.Holders() || len(c.waits) != c.q.Waiters():
		return fmt.Errorf("%d holders and %d waiters, in the queue %d and %d",
			len(c.holds), len(c.waits), c.q.Holders(), c.q.Waiters())
	}
	again := c.q.Clone()
	if gs := again.SetCeiling(again.Ceiling()); len(gs) > 0 {
		return fmt.Errorf("session %d waits for %v that it could have", gs[0].Holder, gs[0].Mode)
	}
	for i, h := range c.holds {
		switch {
		case i > 0 && c.holds[i-1].session >= h.session || c.q.Granted(h.session) == queue.None:
			return fmt.Errorf("session %d holds nothing in the queue", h.session)
		case h.recalls != c.recalls(h.session):
			return fmt.Errorf("session %d is recalled %v, should be %v", h.session, h.recalls, c.recalls(h.session))
		}
		for _, x := range c.holds[:i] {
			if !queue.Compatible(c.q.Granted(h.session), c.q.Granted(x.session)) {
				return fmt.Errorf("sessions %d and %d hold incompatible locks", x.session, h.session)
			}
		}
	}
	for i, w := range c.waits {
		if i > 0 && c.waits[i-1].session >= w.session || c.q.Waiting(w.session) == queue.None {
			return fmt.Errorf("session %d waits for nothing in the queue", w.session)
		}
	}
	for e := range c.q.Line() {
		if e.Convert != c.wait(e.Holder).convert || e.Convert && e.Mode == queue.None {
			return fmt.Errorf("session %d waits in the wrong queue", e.Holder)
		}
	}
	return nil
}

func (v *View) checkDelays() error {
	for i, d := range v.delays {
		if i > 0 && v.delays[i-1].ino >= d.ino || d.left < 0 || !v.Withheld(d.ino) {
			return fmt.Errorf("node %d is not withheld", d.ino)
		}
	}
	return nil
}

func (v *View) checkHosts() error {
	names := map[string]bool{}
	for i := range v.hosts {
		h := &v.hosts[i]
		if i > 0 && v.hosts[i-1].ID >= h.ID || names[h.Name] || h.check() != OK {
			return fmt.Errorf("host %q, named %q", h.ID, h.Name)
		}
		names[h.Name] = true
	}
	if len(v.hosts) > maxHosts {
		return fmt.Errorf("%d hosts", len(v.hosts))
	}
	return nil
}

func (v *View) checkRanges() error {
	var waits uint64
	err := firstError(v.ranges.Scan, func(ino uint64, f *fileRanges) error {
		waits += uint64(len(f.waits))
		n := v.Node(ino)
		if n == nil || len(f.held) == 0 {
			return fmt.Errorf("byte ranges of node %d", ino)
		}
		if n.Orphan != 0 && f.others(n.Orphan) {
			return fmt.Errorf("byte ranges of orphan %d", ino)
		}
		if err := f.check(); err != nil {
			return fmt.Errorf("byte ranges of node %d: %w", ino, err)
		}
		return nil
	})
	if err == nil && waits != v.rangeWaits {
		err = fmt.Errorf("%d waits for byte ranges, counted %d", waits, v.rangeWaits)
	}
	return err
}

func (f *fileRanges) check() error {
	last := map[rangeOwner]Range{}
	var reach, writes furthest
	for i := range f.held {
		r := &f.held[i]
		if r.Start > r.End || r.End > MaxRange || i > 0 && rangeOrder(f.held[i-1], *r) >= 0 {
			return fmt.Errorf("%+v is no range, or out of order", *r)
		}
		if l, ok := last[r.owner()]; ok && (r.Start <= l.End || r.Start == l.End+1 && r.Write == l.Write) {
			return fmt.Errorf("%+v overlaps or continues %+v", *r, l)
		}
		last[r.owner()] = *r
		if r.Write && reach.other(r.owner()) > r.Start || writes.other(r.owner()) > r.Start {
			return fmt.Errorf("%+v conflicts with another", *r)
		}
		reach.add(r)
		if r.Write {
			writes.add(r)
		}
	}
	ids := map[rangeOwner]bool{}
	for i := range f.waits {
		w := &f.waits[i]
		id := rangeOwner{w.Session, w.ID}
		if w.Start > w.End || w.End > MaxRange || w.ID == 0 || ids[id] || f.mayHave(&w.Range, i) {
			return fmt.Errorf("%+v is no wait", *w)
		}
		ids[id] = true
	}
	return nil
}

// furthest is how far some ranges reach: the first byte after the last, of the owner that reaches furthest and
// of the next.
type furthest struct {
	first, second struct {
		owner rangeOwner
		end   uint64
	}
}

func (f *furthest) add(r *Range) {
	switch end := r.End + 1; {
	case r.owner() == f.first.owner:
		f.first.end = max(f.first.end, end)
	case end > f.first.end:
		f.second = f.first
		f.first.owner, f.first.end = r.owner(), end
	case end > f.second.end:
		f.second.owner, f.second.end = r.owner(), end
	}
}

// other returns how far the ranges of others reach.
func (f *furthest) other(o rangeOwner) uint64 {
	if f.first.owner == o {
		return f.second.end
	}
	return f.first.end
}
