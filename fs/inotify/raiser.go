package inotify

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/thread"
)

// Mount is the mount on which events are raised.
type Mount interface {
	// OpenRoot opens its root with O_PATH, by raw calls; false if it is not at its place.
	OpenRoot() (fd int, ok bool)
	// Known reports whether the kernel has a node.
	Known(node uint64) bool
	// Expire has the kernel look a name up again.
	Expire(parent uint64, name string)
	// Settle waits until the kernel was told of all that an entry of the log made stale, or stop is closed.
	Settle(index uint64, stop <-chan struct{})
}

// Tree is the tree as it is.
type Tree interface {
	// Where returns the name of a node; false if it has none, as the root.
	Where(node uint64) (Name, bool)
	// Gone reports whether a node is no more, or nameless for good.
	Gone(node uint64) bool
	// Root is the node of the root.
	Root() uint64
}

// Options are what [New] needs. All must be set.
type Options struct {
	Mount  Mount
	Tree   Tree
	Logger *slog.Logger
}

// Raiser raises the events of one mount. What it is told of, by the loop that applies the log, it only notes.
type Raiser struct {
	mount  Mount
	tree   Tree
	logger *slog.Logger
	thread *thread.Thread

	work chan struct{} // capacity 1
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	world   World
	nodes   map[uint64]Event
	order   []uint64               // of nodes
	blocked map[uint64]func() bool // blocking ASTs
	index   uint64                 // of the newest change
	node    uint64                 // whose event is being raised, 0: none's
	started bool
	closed  bool
}

// Event is one of a node.
type Event uint8

const (
	Modify Event = 1 << iota // IN_MODIFY
	Attrib                   // IN_ATTRIB
)

// maxPending is how many names, and how many nodes, may wait: as many as the kernel keeps for a watcher
// (fs.inotify.max_queued_events).
const maxPending = 16384

// New makes a Raiser, which does nothing yet but to note what it is told.
func New(o Options) (*Raiser, error) {
	calls, err := thread.New()
	if err != nil {
		return nil, err
	}
	return &Raiser{
		mount: o.Mount, tree: o.Tree, logger: o.Logger, thread: calls,
		work: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		nodes: make(map[uint64]Event), blocked: make(map[uint64]func() bool),
	}, nil
}

// Start begins to raise events, unless it is closed. The mount must be served.
func (r *Raiser) Start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.started = true
		go r.run()
	}
}

// closeTime bounds how long Close waits for a call that hangs, which it should not once the connection has ended.
const closeTime = 10 * time.Second

// Close ends a Raiser. A call under way must be at an end or come to one: requests are still answered, or the connection has ended.
func (r *Raiser) Close() {
	r.mu.Lock()
	again, started := r.closed, r.started
	r.closed = true
	r.mu.Unlock()
	if !again {
		close(r.stop)
	}
	if !started {
		if !again {
			r.thread.Close()
		}
		return
	}
	select {
	case <-r.done:
	case <-time.After(closeTime):
		r.logger.Warn("inotify: a call in the mount does not end")
	}
}

// Told takes in what an entry of the log changed.
type Told struct{ r *Raiser }

// Tell has what an entry of the log changed told, all of it before any of it is shown. It does not block.
func (r *Raiser) Tell(index uint64, changes func(t *Told)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index = max(r.index, index)
	changes(&Told{r})
	if r.world.Len()+len(r.order) > 0 {
		prod(r.work)
	}
}

// Made tells that a name was made, by somebody whose kernel is not this mount's.
func (t *Told) Made(n Name, e Entry) {
	if t.room(n) {
		t.r.world.Made(n, e)
	}
}

// Removed tells that a name was removed.
func (t *Told) Removed(n Name, e Entry) {
	if t.room(n) {
		t.r.world.Removed(n, e)
	}
}

// Moved tells that a name was moved. What it replaced was removed before.
func (t *Told) Moved(from, to Name, e Entry) {
	if t.room(from) && t.room(to) {
		t.r.world.Moved(from, to, e)
	}
}

// Known tells that the kernel has raised the events of a name by itself.
func (t *Told) Known(n Name) { t.r.world.Known(n) }

// Node tells of an event of a node.
func (t *Told) Node(node uint64, e Event) { t.r.want(node, e) }

// room reports whether there is room for a change of a name. If not it becomes one of the directory.
func (t *Told) room(n Name) bool {
	if t.r.world.Len() < maxPending {
		return true
	}
	t.r.want(n.Parent, Attrib)
	return false
}

// Blocking tells that somebody is blocked by a lock of a node. Most locks are let go of right then: the event is raised if stands says
// a moment later that this one still blocks somebody.
func (r *Raiser) Blocking(node uint64, stands func() bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.blocked) < maxPending {
		r.blocked[node] = stands
		prod(r.work)
	}
}

// want notes an event of a node. Called with mu held.
func (r *Raiser) want(node uint64, e Event) {
	old, queued := r.nodes[node]
	if !queued {
		if len(r.nodes) >= maxPending {
			return
		}
		r.order = append(r.order, node)
	}
	r.nodes[node] = old | e
}

// Rests: the least, how many times as long as the work before, and the most, since some of that may be waiting.
const (
	minRest  = 5 * time.Millisecond
	restTime = 4
	maxRest  = 100 * time.Millisecond
)

// run is the Raiser's goroutine.
func (r *Raiser) run() {
	defer close(r.done)
	defer r.thread.Close()
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-r.work:
		}
		names, nodes := r.settle()
		began := time.Now()
		r.round(names, nodes)
		blocked := r.takeBlocked()
		rest.Reset(min(max(minRest, restTime*time.Since(began)), maxRest))
		select {
		case <-r.stop:
			return
		case <-rest.C:
		}
		for node, stands := range blocked {
			if stands() {
				r.Tell(0, func(t *Told) { t.Node(node, Attrib) })
			}
		}
	}
}

func (r *Raiser) takeBlocked() map[uint64]func() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.blocked) == 0 {
		return nil
	}
	blocked := r.blocked
	r.blocked = make(map[uint64]func() bool)
	return blocked
}

// maxRound is how many names, and how many nodes, are shown before a rest.
const maxRound = 64

// settle waits until the kernel has been told of all that is pending, and returns how many names and nodes that are, for one round.
func (r *Raiser) settle() (names, nodes int) {
	r.mu.Lock()
	index := r.index
	names, nodes = r.world.Len(), len(r.order)
	if names > maxRound || nodes > maxRound {
		names, nodes = min(names, maxRound), min(nodes, maxRound)
		prod(r.work)
	}
	r.mu.Unlock()
	r.mount.Settle(index, r.stop)
	return names, nodes
}

// round raises what is pending: first names, then nodes, so that one that was made is there.
func (r *Raiser) round(names, nodes int) {
	known := make(map[uint64]bool)
	for ; names > 0 && !r.stopped(); names-- {
		if !r.nextName(known) {
			break
		}
	}
	for ; nodes > 0 && !r.stopped(); nodes-- {
		r.nextNode(known)
	}
}

// nextName takes one step of the world, and reports whether there was one.
func (r *Raiser) nextName(known map[uint64]bool) bool {
	r.mu.Lock()
	s, ok := r.world.Next()
	r.mu.Unlock()
	if !ok {
		return false
	}
	if r.known(known, s.Name.Parent) || s.Move() && r.known(known, s.To.Parent) {
		if err := r.show(&s); err != nil {
			r.logger.Debug("inotify: showing a change of names", "name", s.Name.Name, "to", s.To.Name, "error", err)
			r.instead(&s)
		}
	}
	r.mu.Lock()
	r.world.Done()
	r.mu.Unlock()
	return true
}

// instead has the directories of a step that could not be taken looked at again.
func (r *Raiser) instead(s *Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.want(s.Name.Parent, Attrib)
	if s.Move() {
		r.want(s.To.Parent, Attrib)
	}
	prod(r.work)
}

// nextNode raises the events of one node.
func (r *Raiser) nextNode(known map[uint64]bool) {
	r.mu.Lock()
	if len(r.order) == 0 {
		r.mu.Unlock()
		return
	}
	node := r.order[0]
	r.order = r.order[1:]
	if len(r.order) == 0 {
		r.order = nil
	}
	events := r.nodes[node]
	delete(r.nodes, node)
	at, named := r.where(node)
	r.node = node
	r.mu.Unlock()
	if r.known(known, node) || named && r.known(known, at.Parent) {
		if err := r.touch(node, events); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) {
			r.logger.Debug("inotify: raising an event", "node", node, "error", err)
		}
	}
	r.mu.Lock()
	r.node = 0
	r.mu.Unlock()
}

// known asks the kernel once in a round whether it has a node.
func (r *Raiser) known(asked map[uint64]bool, node uint64) bool {
	has, ok := asked[node]
	if !ok {
		has = r.mount.Known(node)
		asked[node] = has
	}
	return has
}

func (r *Raiser) stopped() bool {
	select {
	case <-r.stop:
		return true
	default:
		return false
	}
}

func prod(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
