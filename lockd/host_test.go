package lockd_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a log with hosts on it, in a bubble of fake time.
type rig struct {
	*testing.T
	log   *lockdtest.Log
	procs *processes
	h     *lockd.Host
	m     *lockdtest.Member
}

// bubble runs a test with one host, "host1", in fake time: every wait takes no time, and what the test waits
// for is what happens.
func bubble(t *testing.T, f func(r *rig)) { bubbleWith(t, lockd.Config{}, f) }

func bubbleWith(t *testing.T, cfg lockd.Config, f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, log: lockdtest.New(), procs: newProcesses()}
		t.Cleanup(r.log.Close)
		r.h, r.m = r.start(cfg)
		f(r)
	})
}

// start adds a host.
func (r *rig) start(cfg lockd.Config) (*lockd.Host, *lockdtest.Member) {
	r.Helper()
	if cfg.Processes == nil {
		cfg.Processes = r.procs
	}
	cfg.Now = func() int64 { return time.Now().UnixNano() }
	cfg.BootID = "boot"
	cfg.Logger = slog.New(slog.NewTextHandler(r.Output(), nil))
	h, m, err := r.log.Start(cfg)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { h.Close() })
	synctest.Wait()
	return h, m
}

// make makes a file, or a directory if the path ends in a slash, with its directories, and returns its inode.
func (r *rig) make(path string) uint64 {
	r.Helper()
	ino := state.Root
	names := strings.Split(strings.Trim(path, "/"), "/")
	for i, name := range names {
		if n := r.h.View().Lookup(ino, name); n != nil {
			ino = n.Ino
			continue
		}
		res, err := r.h.Do(nil, &statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{
			Parent: ino, Name: []byte(name), Dir: i < len(names)-1 || strings.HasSuffix(path, "/"), Perm: 0o755,
		}}})
		if err != nil {
			r.Fatalf("make %s: %v", path, err)
		}
		ino = res.Ino
	}
	synctest.Wait() // until every host knows it
	return ino
}

// lock takes a lock at once or fails the test.
func (r *rig) lock(ino uint64, mode queue.Mode, pid uint32) *lockd.Lock {
	r.Helper()
	l := new(lockd.Lock)
	if err := r.h.Lock(call(pid), l, lockd.Request{Ino: ino, Mode: mode, Flags: queue.NoQueue}); err != nil {
		r.Fatalf("lock %d %v: %v", ino, mode, err)
	}
	return l
}

// call makes a call of a thread.
func call(pid uint32) *lockd.Call { return &lockd.Call{PID: pid, UID: 1000 + pid} }

// asking is a request that another goroutine makes.
type asking struct {
	r      *rig
	l      *lockd.Lock
	c      *lockd.Call
	cancel chan struct{}
	parked int
	err    error
	done   chan struct{}
}

// ask lets a goroutine ask for a lock; after it returns the request waits or is answered.
func (r *rig) ask(pid uint32, req lockd.Request) *asking {
	return r.asks(pid, new(lockd.Lock), func(c *lockd.Call, l *lockd.Lock) error { return r.h.Lock(c, l, req) })
}

// asks lets a goroutine do something that may wait.
func (r *rig) asks(pid uint32, l *lockd.Lock, f func(*lockd.Call, *lockd.Lock) error) *asking {
	a := &asking{r: r, l: l, cancel: make(chan struct{}), done: make(chan struct{})}
	a.c = &lockd.Call{PID: pid, UID: 1000 + pid, Cancel: a.cancel, Park: func() { a.parked++ }}
	go func() {
		defer close(a.done)
		a.err = f(a.c, a.l)
	}()
	synctest.Wait()
	return a
}

// waits fails the test unless the request waits.
func (a *asking) waits() *asking {
	a.r.Helper()
	synctest.Wait()
	select {
	case <-a.done:
		a.r.Fatalf("the request of %d is answered: %v", a.c.PID, a.err)
	default:
	}
	if a.parked != 1 {
		a.r.Errorf("%d parked %d times", a.c.PID, a.parked)
	}
	return a
}

// ends waits for the answer.
func (a *asking) ends(want error) *asking {
	a.r.Helper()
	<-a.done
	if !errors.Is(a.err, want) {
		a.r.Fatalf("the request of %d: %v, want %v", a.c.PID, a.err, want)
	}
	return a
}

// empty fails the test if any lock is left, and shows that one can be had.
func (r *rig) empty() {
	r.Helper()
	synctest.Wait()
	if s := r.h.Status(); s.Locks != 0 || s.Waiting != 0 {
		r.Errorf("locks %d, waiting %d are left", s.Locks, s.Waiting)
		for info := range r.h.AllLocks() {
			r.Errorf("  %+v", info)
		}
	}
}

// modes fails the test unless the lock has that mode.
func (r *rig) mode(l *lockd.Lock, want queue.Mode) {
	r.Helper()
	if got := l.Mode(); got != want {
		r.Errorf("mode %v, want %v", got, want)
	}
}

// recorder is a Listener that keeps what it is told.
type recorder struct {
	mu   sync.Mutex
	list []lockd.Notice
}

func (r *recorder) Notice(n lockd.Notice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, n)
}

// take returns what was told since the last take.
func (r *recorder) take() []lockd.Notice {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// kinds returns the kinds of what was told since the last take, with what is asked for.
func (r *recorder) kinds() string {
	var words []string
	for _, n := range r.take() {
		word := n.Kind.String()
		if n.Wanted != queue.None {
			word += ":" + n.Wanted.String()
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// processes plays the processes of a machine: which threads there are and who inherited what.
type processes struct {
	mu     sync.Mutex
	of     map[uint32]uint32   // thread → process; a thread that is not listed is its own process
	heirs  map[uint32][]uint32 // process → processes that inherited its descriptors
	busy   map[uint32]bool     // processes with a thread that waits for nothing
	gone   map[uint32]bool     // threads that ended
	strict bool                // a process that waits neither here nor for a child may let go
	child  map[uint32]uint32   // that a process waits for
	looks  int
	during func() // called in the midst of a look-up
}

func newProcesses() *processes {
	return &processes{of: map[uint32]uint32{}, heirs: map[uint32][]uint32{}, busy: map[uint32]bool{}, gone: map[uint32]bool{}, child: map[uint32]uint32{}}
}

func (p *processes) process(tid uint32) uint32 {
	if pid, ok := p.of[tid]; ok {
		return pid
	}
	return tid
}

func (p *processes) set(f func(p *processes)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *processes) Look(tid uint32) (process.Info, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone[tid] {
		return process.Info{}, process.ErrGone
	}
	return process.Info{PID: tid, Tgid: p.process(tid), Comm: "comm" + string(rune('A'+tid%26)), Started: time.Duration(tid)}, nil
}

func (p *processes) Tgid(tid uint32) uint32 {
	info, _ := p.Look(tid)
	return info.Tgid
}

func (p *processes) Comm(tid uint32) string {
	info, _ := p.Look(tid)
	return info.Comm
}

func (p *processes) Cmdline(uint32) string { return "cmd line" }

func (p *processes) Owner(tid uint32) lockd.Owner {
	p.mu.Lock()
	p.looks++
	during := p.during
	p.mu.Unlock()
	if during != nil {
		during()
	}
	return owner{p, tid}
}

type owner struct {
	p   *processes
	tid uint32
}

func (o owner) Has(d process.Descriptor) bool {
	o.p.mu.Lock()
	defer o.p.mu.Unlock()
	if d.Opener = o.p.who(d); d.Opener == 0 {
		return false
	}
	me, opener := o.p.process(o.tid), o.p.process(d.Opener)
	return me == opener || slices.Contains(o.p.heirs[opener], me)
}

func (o owner) Files() iter.Seq[process.File] {
	return func(yield func(process.File) bool) { yield(process.File{}) } // as all locks have it here
}

// who returns the thread that is known to have a descriptor, 0 if there is none any more.
func (p *processes) who(d process.Descriptor) uint32 {
	switch {
	case !p.gone[d.Opener]:
		return d.Opener
	case !p.gone[d.Heir]:
		return d.Heir
	}
	return 0
}

func (p *processes) CanLetGo(ds []process.Descriptor, waiting func(uint32) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range ds {
		opener := p.process(p.who(d))
		if opener == 0 {
			return true
		}
		for _, pid := range append([]uint32{opener}, p.heirs[opener]...) {
			if p.busy[pid] || p.strict && !p.stuck(pid, waiting) {
				return true
			}
		}
	}
	return false
}

// stuck reports whether a process with one thread waits in a request or for a child that does.
func (p *processes) stuck(pid uint32, waiting func(uint32) bool) bool {
	if child := p.child[pid]; child != 0 {
		return p.stuck(child, waiting)
	}
	p.mu.Unlock()
	defer p.mu.Lock()
	return waiting(pid)
}

// ctx is a context that ends after a time.
func (r *rig) ctx(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	r.Cleanup(cancel)
	return ctx
}
