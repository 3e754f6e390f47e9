package sim

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
	"github.com/lockfs/lockfs/lockd/table"
)

// proc is a process: an owner of locks. It asks for one lock at a time, holds
// some, converts and writes, and lets go. One that waits in the wrong order ends up in a deadlock, and gives up
// after a while.
type proc struct {
	h     *host
	owner int
	locks []*lock
	waits *lock // what it waits for
	busy  bool  // it waits for an answer of the log
}

// lock is one descriptor.
type lock struct {
	table.Lock
	p     *proc
	name  string
	asked queue.Mode // what it waits for
	turn  int        // counts requests: a timer of an earlier one does nothing
	since int64      // of the request
	dead  bool       // released or lost
	write bool       // a commit is under way
}

func (k *lock) String() string { return fmt.Sprintf("p%d:%s", k.p.owner, k.name) }

func (p *proc) stepSoon() {
	h := p.h
	pace := h.s.cfg.pace
	if p.waits != nil || p.busy {
		pace += ms
	} else if h.s.chance(h.s.cfg.sleep) {
		pace = second
	}
	h.after(h.s.about(pace), func() {
		if !h.s.draining {
			h.onTime()
			p.step()
			h.flush()
			h.forgetOrphans()
			p.stepSoon()
		}
	})
}

// step does one thing, if the process is free to.
func (p *proc) step() {
	s := p.h.s
	if p.waits != nil || p.busy || p.h.view.Index() < 3 {
		return
	}
	p.h.touched = true
	p.locks = slices.DeleteFunc(p.locks, func(k *lock) bool { return k.dead })
	switch {
	case s.chance(s.cfg.names):
		p.names()
	case len(p.locks) == 0 || len(p.locks) < 4 && s.chance(s.cfg.nested):
		p.open()
	default:
		k := p.locks[s.rng.IntN(len(p.locks))]
		switch x := s.rng.IntN(10); {
		case x < 2 && k.Mode.Writes():
			k.commit()
		case x < 4:
			k.convert()
		default:
			k.release()
		}
	}
}

var modes = []queue.Mode{
	queue.NL, queue.CR, queue.CR, queue.CW, queue.CW, queue.PR, queue.PR, queue.PR, queue.PW, queue.PW,
	queue.EX, queue.EX, queue.EX, queue.EX,
}

// someNode returns a node that this host sees, and its name.
func (p *proc) someNode() *state.Node {
	s, v := p.h.s, p.h.view
	var nodes []*state.Node
	if s.chance(0.02) {
		return v.Node(state.Root)
	}
	var walk func(dir uint64)
	walk = func(dir uint64) {
		for n := range v.ReadDir(dir, "") {
			nodes = append(nodes, n)
			if n.Dir {
				walk(n.Ino)
			}
		}
	}
	walk(state.Root)
	for range 4 {
		if len(nodes) == 0 {
			break
		}
		n := nodes[s.rng.IntN(len(nodes))]
		if !n.Dir || s.chance(0.2) {
			return n
		}
	}
	return nil
}

func (s *sim) someFlags() (f queue.Flags) {
	switch s.rng.IntN(12) {
	case 0, 1:
		return queue.NoQueue
	case 2:
		return queue.AltPR
	case 3:
		return queue.AltCW | queue.NoQueue
	case 4:
		return queue.HeadQue
	}
	return 0
}

// open asks for a lock as a shell does: from the cache, or else with the owner's own locks known.
func (p *proc) open() {
	n := p.someNode()
	if n == nil {
		return
	}
	h := p.h
	k := &lock{p: p, name: n.Name}
	k.Ino, k.PID, k.User = n.Ino, uint32(p.owner), k
	mode, flags := modes[h.s.rng.IntN(len(modes))], h.s.someFlags()
	if h.table.Try(&k.Lock, mode, flags) {
		h.s.Cached++
		h.s.tracef("%s: %v has %v from the cache, token %d.%d", h.name, k, mode, k.Token>>20, k.Token&(1<<20-1))
		p.locks = append(p.locks, k)
		k.granted()
		return
	}
	h.s.tracef("%s: %v asks for %v %v of inode %d", h.name, k, mode, flags, k.Ino)
	own := k.own(h.table.Rivals(&k.Lock, mode))
	k.waiting(mode)
	h.table.Request(&k.Lock, mode, flags, own)
}

// own picks those of the process.
func (k *lock) own(rivals []*table.Lock) []*table.Lock {
	return slices.DeleteFunc(rivals, func(l *table.Lock) bool { return l.User.(*lock).p != k.p })
}

// waiting notes that the process waits, and for how long.
func (k *lock) waiting(mode queue.Mode) {
	h := k.p.h
	k.p.waits, k.asked = k, mode
	h.s.Waits++
	k.turn++
	k.since = h.s.now
	turn := k.turn
	h.after(5*ms+h.s.about(h.s.cfg.patience), func() {
		if k.turn == turn && k.p.waits == k && !h.s.draining {
			h.onTime()
			k.cancel()
			h.flush()
		}
	})
}

func (k *lock) cancel() {
	if k.p.waits != k {
		return
	}
	h := k.p.h
	h.s.Cancels++
	h.touched = true
	granted := h.table.Cancel(&k.Lock)
	h.s.tracef("%s: %v gives up, has %v", h.name, k, k.Mode)
	k.p.waits = nil
	if !granted {
		k.dead = true
	}
	k.over()
}

// over is the end of a wait.
func (k *lock) over() {
	if k.p.h.s.draining {
		k.p.letGo()
	}
}

func (k *lock) convert() {
	h := k.p.h
	mode, flags := modes[h.s.rng.IntN(len(modes))], h.s.someFlags()&^queue.HeadQue
	if k.write && !mode.Writes() {
		return
	}
	h.s.tracef("%s: %v converts %v to %v %v", h.name, k, k.Mode, mode, flags)
	if h.table.TryConvert(&k.Lock, mode, flags) {
		k.granted()
		return
	}
	own := k.own(h.table.Rivals(&k.Lock, mode))
	k.waiting(mode)
	h.table.Convert(&k.Lock, mode, flags, own)
}

func (k *lock) release() {
	if k.write {
		return
	}
	h := k.p.h
	h.s.tracef("%s: %v releases %v", h.name, k, k.Mode)
	k.dead = true
	h.table.Release(&k.Lock)
}

// counter is what is known of the number in a value, which every commit makes greater by one.
type counter struct{ proposed, done, refused int }

// commit adds one to the number in the value. Nobody else may have written since the lock was granted.
func (k *lock) commit() {
	h := k.p.h
	n := h.view.Node(k.Ino)
	if n == nil {
		h.s.failf("%s: %v has no node", h.name, k)
	}
	if k.write || h.session == 0 {
		return
	}
	base := n.Generation
	number, _ := strconv.Atoi(string(n.Value))
	value := strconv.Itoa(number + 1)
	x := h.s.counters[k.Ino]
	if x == nil {
		x = new(counter)
		h.s.counters[k.Ino] = x
	}
	x.proposed++
	k.write, k.p.busy = true, true
	h.propose(&statepb.Command{Op: &statepb.Command_Commit{Commit: &statepb.Commit{
		Ino: k.Ino, BaseGeneration: base, Change: &statepb.Commit_Whole{Whole: []byte(value)},
	}}}, func(c state.Change, known bool) {
		k.write, k.p.busy = false, false
		switch {
		case known && c.Code == state.OK:
			h.s.Commits++
			x.done++
		case known:
			x.refused++
		}
		if k.dead || k.Mode == queue.None {
			return
		}
		if n := h.view.Node(k.Ino); known && c.Code != state.OK || n == nil || n.Generation != base+1 || string(n.Value) != value {
			h.s.failf("%s: %v: commit on generation %d: %v, and now %+v", h.name, k, base, c.Code, n)
		}
	})
	h.transmit(h.seq)
}

// event hears of the lock.
func (k *lock) event(e table.Event) {
	h := k.p.h
	switch e.Kind {
	case table.Granted:
		if k.dead || k.Mode == queue.None {
			h.s.failf("%s: %v granted after its end", h.name, k)
		}
		k.p.waits = nil
		if !e.Converted {
			k.p.locks = append(k.p.locks, k)
		}
		k.granted()
		k.over()
	case table.Refused:
		h.s.Refused++
		k.p.waits = nil
		k.dead = k.Mode == queue.None
		k.over()
	case table.Waiting:
		if k.p.waits == k && k.Waits() {
			h.table.SetOwn(&k.Lock, k.own(h.table.Rivals(&k.Lock, k.Wanted)))
		}
	case table.Deadlock:
		h.s.Deadlocks++
		if k.p.waits == k && h.s.chance(0.9) {
			k.cancel()
		}
	case table.Lost:
		h.s.Lost++
		k.dead = true
		if k.p.waits == k {
			k.p.waits = nil
			k.over()
		}
	}
}

// granted looks at a grant: its token, and the value that it shows.
func (k *lock) granted() {
	s := k.p.h.s
	s.Grants++
	s.granted = true
	s.checkToken(k)
	s.checkValue(k)
}

// releaseSoon lets go, while everybody does.
func (k *lock) releaseSoon() {
	h := k.p.h
	h.after(h.s.about(ms), func() {
		switch {
		case k.dead:
		case k.write:
			k.releaseSoon()
		default:
			h.onTime()
			if !k.dead {
				k.release()
			}
			h.touched = true
			h.flush()
			h.forgetOrphans()
		}
	})
}

// letGo lets the process let go of what it has, if it does not wait.
func (p *proc) letGo() {
	if p.waits == nil {
		for _, k := range p.locks {
			k.releaseSoon()
		}
	}
}

// names makes, removes or moves something.
func (p *proc) names() {
	h, s := p.h, p.h.s
	if h.session == 0 {
		return
	}
	n := p.someNode()
	if n == nil {
		return
	}
	switch s.rng.IntN(4) {
	case 0:
		p.make()
	case 1:
		p.remove(n, false)
	case 2:
		p.remove(n, true)
	case 3:
		p.move(n)
	}
}

func (p *proc) someDir() uint64 {
	var dirs []uint64
	for n := range p.h.view.ReadDir(state.Root, "") {
		if n.Dir {
			dirs = append(dirs, n.Ino)
		}
	}
	if len(dirs) == 0 {
		return state.Root
	}
	return dirs[p.h.s.rng.IntN(len(dirs))]
}

func (p *proc) make() {
	if nodes, _ := p.h.view.Counts(); nodes > 20 {
		return
	}
	p.do(&statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{
		Parent: p.someDir(), Name: []byte(fmt.Sprintf("n%d", p.h.s.rng.IntN(30))), Lock: p.h.s.chance(0.7),
	}}}, nil)
}

// do proposes a command of the process and waits for its answer.
func (p *proc) do(cmd *statepb.Command, then func(state.Change, bool)) {
	h := p.h
	p.busy = true
	h.s.tracef("%s: p%d: %v", h.name, p.owner, cmd)
	h.propose(cmd, func(c state.Change, known bool) {
		p.busy = false
		if then != nil {
			then(c, known)
		}
	})
	h.transmit(h.seq)
}

// remove removes a name. A posix unlink needs no pin: the locks live on.
func (p *proc) remove(n *state.Node, posix bool) {
	h := p.h
	if n.Parent == 0 || n.Name == "slow" || n.Name == "tmp" {
		return
	}
	posix = posix && !n.Dir
	if !posix && !h.table.Pin(n.Ino) {
		return
	}
	p.do(&statepb.Command{Op: &statepb.Command_Remove{Remove: &statepb.Remove{
		Parent: n.Parent, Name: []byte(n.Name), Dir: n.Dir, Posix: posix, Ino: n.Ino,
	}}}, func(c state.Change, known bool) {
		if c.Code == state.OK && known {
			h.s.Removals++
		}
		if !posix {
			h.table.Unpin(n.Ino)
		}
	})
}

// move moves a node into another directory.
func (p *proc) move(n *state.Node) {
	h := p.h
	if n.Parent == 0 || n.Name == "slow" || n.Name == "tmp" || !h.table.Pin(n.Ino) {
		return
	}
	p.do(&statepb.Command{Op: &statepb.Command_Rename{Rename: &statepb.Rename{
		Parent: n.Parent, Name: []byte(n.Name), NewParent: p.someDir(), NewName: []byte(n.Name), Noreplace: true, Ino: n.Ino,
	}}}, func(c state.Change, known bool) {
		if c.Code == state.OK && known {
			h.s.Moves++
		}
		h.table.Unpin(n.Ino)
	})
}
