package sim

import (
	"slices"
	"strconv"

	"github.com/lockfs/lockfs/lockd/queue"
)

// token is the last one that was given out for a resource.
type token struct {
	value uint64
	of    *lock
}

// check looks at everything after an event.
func (s *sim) check() {
	for _, h := range s.hosts {
		if !h.up || !h.touched && s.Events%1024 > 0 {
			continue
		}
		h.touched = false
		if err := h.table.Check(); err != nil {
			s.failf("%s: %v", h.name, err)
		}
	}
	if s.granted {
		s.granted = false
		s.exclusive()
	}
	if s.applied >= 16 {
		s.applied = 0
		s.hostLocks()
		if err := s.raft.state.Check(); err != nil {
			s.failf("state: %v", err)
		}
	}
}

// held is a lock that a process believes to have.
type held struct {
	k    *lock
	path []uint64 // from the root to its resource
}

// exclusive: no two locks of different owners that exclude each other, nor two of one owner on one resource.
func (s *sim) exclusive() {
	var all []held
	for _, h := range s.hosts {
		switch {
		case !h.up:
			continue
		case s.now >= h.paused:
			h.onTime() // what is lost by now is lost
		case h.local() >= h.leaseEnd:
			continue // it is the first thing that it will find
		}
		for l := range h.table.All() {
			if l.Mode != queue.None {
				all = append(all, held{l.User.(*lock), h.view.Ancestors(nil, l.Ino)})
			}
		}
	}
	for i, a := range all {
		if len(a.path) == 0 {
			s.failf("%v is held, but inode %d is not there", a.k, a.k.Ino)
		}
		for _, b := range all[i+1:] {
			if x, y, ino := clash(a, b); ino != 0 {
				s.failf("%s:%v has %v and %s:%v has %v: %v and %v of inode %d are incompatible",
					a.k.p.h.name, a.k, a.k.Mode, b.k.p.h.name, b.k, b.k.Mode, x, y, ino)
			}
		}
	}
}

// clash returns the modes in which two locks meet at a resource where they exclude each other, or 0.
func clash(a, b held) (x, y queue.Mode, ino uint64) {
	own := a.k.p == b.k.p
	for _, ino := range a.path {
		if !slices.Contains(b.path, ino) {
			continue
		}
		x, y := a.k.at(ino), b.k.at(ino)
		if ino == a.k.Ino && ino == b.k.Ino || !own {
			if !queue.Compatible(x, y) {
				return x, y, ino
			}
		}
	}
	return 0, 0, 0
}

// at returns what a lock means at a resource of its path.
func (k *lock) at(ino uint64) queue.Mode {
	if ino == k.Ino {
		return k.Mode
	}
	return k.Mode.Intent()
}

// checkToken: tokens grow from grant to grant of PW and EX, over all hosts.
func (s *sim) checkToken(k *lock) {
	if !k.Mode.Writes() {
		return
	}
	last := s.tokens[k.Ino]
	if k.Token < last.value || k.Token == last.value && last.of != k {
		s.failf("%s: %v has token %d.%d, but %v had %d.%d before", k.p.h.name, k, k.Token>>20, k.Token&(1<<20-1),
			last.of, last.value>>20, last.value&(1<<20-1))
	}
	s.tokens[k.Ino] = token{k.Token, k}
}

// checkValue: who has PR or more sees the newest value.
func (s *sim) checkValue(k *lock) {
	if k.Mode < queue.PR {
		return
	}
	mine, newest := k.p.h.view.Node(k.Ino), s.raft.view.Node(k.Ino)
	if mine == nil || newest == nil || mine.Generation != newest.Generation || string(mine.Value) != string(newest.Value) {
		s.failf("%s: %v has %v and sees %+v, the newest is %+v", k.p.h.name, k, k.Mode, mine, newest)
	}
}

// hostLocks: each table believes of its host locks what its copy of the state says.
func (s *sim) hostLocks() {
	for _, h := range s.hosts {
		if !h.up || h.session == 0 {
			continue
		}
		n := 0
		for r := range h.table.Resources() {
			if r.Held != queue.None {
				n++
			}
			if m := h.view.HostLock(r.Ino, h.session); m != r.Held {
				s.failf("%s: inode %d: the table believes in %v, the state has %v", h.name, r.Ino, r.Held, m)
			}
		}
		for x := range h.view.AllHostLocks() {
			if x.Session == h.session && x.Mode != queue.None {
				n--
			}
		}
		if n != 0 {
			s.failf("%s: the state has %d host locks that the table does not know", h.name, -n)
		}
	}
}

// drain: nothing new is asked for, nothing fails any more, and whoever does not wait lets go. One that waits keeps
// what it has and goes on waiting.
func (s *sim) drain() {
	s.tracef("drain")
	s.draining = true
	for _, h := range s.hosts {
		h.heal()
		for _, p := range h.procs {
			p.letGo()
		}
	}
}

// stuck: nobody waits still. Those who do either wait for each other, a deadlock that nobody found, or one whom nobody excludes, and who
// is not behind somebody who is excluded, waits for nothing.
func (s *sim) stuck() {
	var all, stuck []*lock
	for _, h := range s.hosts {
		for _, p := range h.procs {
			for _, k := range p.locks {
				if k.Mode != queue.None {
					all = append(all, k)
				}
			}
			if p.waits != nil {
				stuck = append(stuck, p.waits)
			}
		}
	}
	excluded := func(k *lock) bool {
		return slices.ContainsFunc(all, func(o *lock) bool { return k.excludedBy(o) }) ||
			slices.ContainsFunc(stuck, func(o *lock) bool { return k.behind(o) })
	}
	for _, k := range stuck {
		if !excluded(k) && !slices.ContainsFunc(stuck, func(o *lock) bool { return o != k && o.At() == k.At() && excluded(o) }) {
			s.situation(k.p.h.view.Ancestors(nil, k.Ino))
			s.failf("%s: %v has %v and waits for %v of inode %d at %d, and nobody is in its way",
				k.p.h.name, k, k.Mode, k.Wanted, k.Ino, k.At())
		}
	}
	if len(stuck) > 0 {
		for _, k := range stuck {
			s.situation(k.p.h.view.Ancestors(nil, k.Ino))
		}
		s.reports()
		s.failf("%d are in a deadlock that nobody found", len(stuck))
	}
}

// reports shows what the cluster was told and makes of it.
func (s *sim) reports() {
	for r := range s.raft.view.AllReports() {
		s.tracef("report %+v", *r)
	}
	for _, x := range s.raft.view.Suspicions() {
		s.tracef("suspicion %+v", *x)
	}
}

// situation shows who has and wants what of some resources.
func (s *sim) situation(inos []uint64) {
	for _, ino := range inos {
		for x := range s.raft.view.HostLocks(ino) {
			s.tracef("state: inode %d: %+v", ino, x)
		}
		for _, h := range s.hosts {
			s.tracef("%s: %+v", h.name, h.table.Resource(ino))
		}
	}
	for _, h := range s.hosts {
		for l := range h.table.All() {
			s.tracef("%s: %v of inode %d has %v, waits for %v at %d", h.name, l.User, l.Ino, l.Mode, l.Wanted, l.At())
		}
	}
}

// excludedBy reports whether what o has keeps k from what it waits for.
func (k *lock) excludedBy(o *lock) bool {
	path, other := k.p.h.view.Ancestors(nil, k.Ino), o.p.h.view.Ancestors(nil, o.Ino)
	for _, ino := range path {
		want := k.Wanted.Intent()
		if ino == k.Ino {
			want = k.Wanted
		}
		if o != k && slices.Contains(other, ino) && (o.p != k.p || ino == k.Ino && ino == o.Ino) && !queue.Compatible(want, o.at(ino)) {
			return true
		}
	}
	return false
}

// behind reports whether the intents that o has taken on its way to where it waits keep k from what it waits for, and o
// would not retreat: it does so only for a conversion and for another host, and only if its owner has nothing there.
func (k *lock) behind(o *lock) bool {
	if o.p == k.p {
		return false
	}
	at := k.At()
	plain := o.p.h == k.p.h && !k.Converts() && !k.present(at)
	passed := o.p.h.view.Ancestors(nil, o.At())
	if len(passed) == 0 || !slices.Contains(passed[:len(passed)-1], at) || !plain && !o.present(at) {
		return false
	}
	want := k.Wanted.Intent()
	if at == k.Ino {
		want = k.Wanted
	}
	return !queue.Compatible(want, o.Wanted.Intent())
}

// present reports whether k's owner has something at a resource: k's request there counts as a conversion of it.
func (k *lock) present(ino uint64) bool {
	return slices.ContainsFunc(k.p.locks, func(l *lock) bool {
		return l.at(ino) >= queue.CR && (l == k || l.Ino != ino || k.Ino != ino) &&
			slices.Contains(k.p.h.view.Ancestors(nil, l.Ino), ino)
	})
}

// quiet reports whether nobody waits any more, for anything, and all sessions of the past have ended.
func (s *sim) quiet() bool {
	sessions := 0
	for range s.raft.view.Sessions() {
		sessions++
	}
	if sessions != len(s.hosts) {
		return false
	}
	for _, h := range s.hosts {
		if !h.up || h.session == 0 || h.table.Len() > 0 || len(h.unacked) > 0 {
			return false
		}
	}
	return true
}

// settled: nobody waits, and all hosts have come to the same state.
func (s *sim) settled() {
	for _, h := range s.hosts {
		if !h.up || h.session == 0 {
			s.failf("%s is not back", h.name)
		}
		for l := range h.table.All() {
			s.failf("%s: %v has %v and waits for %v of inode %d at %d", h.name, l.User, l.Mode, l.Wanted, l.Ino, l.At())
		}
		if len(h.unacked) > 0 {
			s.failf("%s: %d commands are not answered: %v", h.name, len(h.unacked), h.unacked[0].cmd)
		}
	}
	if !s.quiet() {
		s.failf("a session of the past does not end")
	}
	for _, h := range s.hosts {
		h.applyNext(len(s.raft.log) - int(h.view.Index()))
	}
	want := s.raft.view.Digest()
	for _, h := range s.hosts {
		if h.view.Digest() != want {
			s.failf("%s has come to another state", h.name)
		}
	}
	for ino, x := range s.counters {
		n := s.raft.view.Node(ino)
		if n == nil {
			continue
		}
		if number, _ := strconv.Atoi(string(n.Value)); number < x.done || number > x.proposed-x.refused {
			s.failf("inode %d: %d of %d commits were acknowledged and %d refused, and the value is %d", ino, x.done, x.proposed, x.refused, number)
		}
	}
	for x := range s.raft.view.AllHostLocks() {
		if x.Wanted != queue.None {
			s.failf("session %d waits for %v of inode %d in the state", x.Session, x.Wanted, x.Ino)
		}
	}
}
