package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// noProcesses knows nobody: every caller is a process of its own.
type noProcesses struct{}

type noOwner struct{}

func (noOwner) Has(process.Descriptor) bool                                   { return false }
func (noOwner) Files() iter.Seq[process.File]                                 { return func(func(process.File) bool) {} }
func (noProcesses) Look(uint32) (process.Info, error)                         { return process.Info{}, errors.New("unknown") }
func (noProcesses) Tgid(tid uint32) uint32                                    { return tid }
func (noProcesses) Cmdline(uint32) string                                     { return "" }
func (noProcesses) Comm(uint32) string                                        { return "" }
func (noProcesses) Owner(uint32) lockd.Owner                                  { return noOwner{} }
func (noProcesses) CanLetGo([]process.Descriptor, func(tid uint32) bool) bool { return true }
func hostOf(n *testNode) *lockd.Host                                          { return n.host.(*lockd.Host) }

// withLockd puts a lockd.Host on each node.
func withLockd(o testOptions) testOptions {
	o.host = func(n *testNode) Host {
		return lockd.New(lockd.Config{
			Name: n.name(), Log: n.Node, Version: "test", FormerGone: true, Logger: n.config.Logger, Processes: noProcesses{},
			SessionTTL: 5 * time.Second, OpTimeout: 5 * time.Second,
		})
	}
	o.started = func(n *testNode) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := hostOf(n).Start(ctx); err != nil {
			n.cluster.t.Error(err)
		}
	}
	ending := o.ending
	o.ending = func(n *testNode) {
		if ending != nil {
			ending(n)
		}
		hostOf(n).Close()
	}
	return o
}

// work is clients that count in values under EX and make files, on all nodes, and what they were told of it.
type work struct {
	t     testing.TB
	files []uint64

	mu      sync.Mutex
	acked   map[uint64]map[uint64]bool // counts acknowledged, by file
	unsure  int
	made    map[string]uint64 // files whose making was acknowledged
	failed  int               // files that may be there
	longest time.Duration

	clients map[*testNode]*clients
}

// clients are those of one node, while it runs.
type clients struct {
	stop chan struct{}
	all  sync.WaitGroup
}

func newWork(t testing.TB) *work {
	return &work{t: t, acked: map[uint64]map[uint64]bool{}, made: map[string]uint64{}, clients: map[*testNode]*clients{}}
}

// begin starts the clients of a node.
func (w *work) begin(n *testNode) {
	c := &clients{stop: make(chan struct{})}
	w.mu.Lock()
	w.clients[n] = c
	w.mu.Unlock()
	h := hostOf(n)
	for i := range 4 {
		rnd := rand.New(rand.NewPCG(rand.Uint64(), 0))
		c.all.Go(func() {
			for k := 0; c.running(); k++ {
				w.count(h, uint32(i+1), w.files[rnd.IntN(len(w.files))])
			}
		})
	}
	c.all.Go(func() {
		for k := 0; c.running(); k++ {
			w.make(h, fmt.Sprintf("%s-%d-%d", n.name(), h.Session(), k))
		}
	})
}

func (c *clients) running() bool {
	select {
	case <-c.stop:
		return false
	default:
		return true
	}
}

// end ends a node's clients; those that wait are waited for if wait.
func (w *work) end(n *testNode, wait bool) {
	w.mu.Lock()
	c := w.clients[n]
	delete(w.clients, n)
	w.mu.Unlock()
	if c == nil {
		return
	}
	close(c.stop)
	if wait {
		c.all.Wait()
	}
}

func count(value []byte) uint64 {
	if len(value) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}

// count adds one to a file's count.
func (w *work) count(h *lockd.Host, pid uint32, file uint64) {
	var l lockd.Lock
	started := time.Now()
	if err := h.Lock(&lockd.Call{PID: pid}, &l, lockd.Request{Ino: file, Mode: queue.EX, Wait: 10 * time.Second}); err != nil {
		time.Sleep(time.Millisecond)
		return
	}
	defer h.Release(&l)
	waited := time.Since(started)
	n := h.View().Node(file)
	next := count(n.Value) + 1
	_, err := h.Commit(nil, &l, &statepb.Commit{Ino: file, BaseGeneration: n.Generation, Change: &statepb.Commit_Whole{
		Whole: binary.BigEndian.AppendUint64(nil, next),
	}})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.longest = max(w.longest, waited)
	switch {
	case err != nil:
		w.unsure++
	case w.acked[file][next]:
		w.t.Errorf("file %d: %d was acknowledged twice", file, next)
	default:
		w.acked[file][next] = true
	}
}

// make makes a file of a name that nobody else makes.
func (w *work) make(h *lockd.Host, name string) {
	r, err := h.Do(nil, &statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{Parent: state.Root, Name: []byte(name), Perm: 0o600}}})
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil && r.Code == state.OK:
		w.made[name] = r.Ino
	case r.Code == state.Exists || errors.Is(err, state.Exists):
		w.t.Errorf("%s was made twice", name)
	default:
		w.failed++
	}
}

// check wants everything that was acknowledged, once.
func (w *work) check(c *testCluster) {
	c.agree()
	v := c.leader().view()
	w.mu.Lock()
	defer w.mu.Unlock()
	total := 0
	for file, acked := range w.acked {
		last := count(v.Node(file).Value)
		for k := range acked {
			if k > last {
				w.t.Errorf("file %d: %d was acknowledged, the value is %d", file, k, last)
			}
		}
		if uint64(len(acked)+w.unsure) < last {
			w.t.Errorf("file %d: the value is %d, acknowledged %d, unsure %d", file, last, len(acked), w.unsure)
		}
		total += len(acked)
	}
	for name, ino := range w.made {
		if n := v.Lookup(state.Root, name); n == nil || n.Ino != ino {
			w.t.Errorf("%s was made and is not there", name)
		}
	}
	w.t.Logf("%d counts, %d unsure; %d files, %d unsure; the longest wait %v", total, w.unsure, len(w.made), w.failed, w.longest)
	if total == 0 || len(w.made) == 0 {
		w.t.Error("nothing was done")
	}
}

// done returns how many files were made and counts were made, as far as acknowledged.
func (w *work) done() (files, counts int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, acked := range w.acked {
		counts += len(acked)
	}
	return len(w.made), counts
}

// progress waits until some more files were made, which shows that there is a leader, and something more was counted: the locks on the
// counts may be a gone host's, until its session ends.
func (w *work) progress() (file, counted time.Duration) {
	w.t.Helper()
	files, counts := w.done()
	w.mu.Lock()
	more := len(w.clients) // as many may have been on their way already
	w.mu.Unlock()
	started := time.Now()
	eventually(w.t, "a file", func() bool { now, _ := w.done(); return now > files+more })
	file = time.Since(started)
	eventually(w.t, "a count", func() bool { _, now := w.done(); return now > counts })
	return file.Round(time.Millisecond), time.Since(started).Round(time.Millisecond)
}

// TestLeaderGoes has clients on three hosts count under EX and make files while the leader is stopped, killed, cut off and
// replaced, many times. Everything acknowledged must be there, once, on all.
func TestLeaderGoes(t *testing.T) {
	w := newWork(t)
	c := newTestCluster(t, 3, withLockd(testOptions{ending: func(n *testNode) { w.end(n, false) }}))
	for _, name := range []string{"x", "y"} {
		r, err := hostOf(c.nodes[0]).Do(nil, &statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{Parent: state.Root, Name: []byte(name), Perm: 0o600}}})
		if err != nil || r.Code != state.OK {
			t.Fatal(r, err)
		}
		w.files = append(w.files, r.Ino)
		w.acked[r.Ino] = map[uint64]bool{}
	}
	c.agree()
	for _, n := range c.nodes {
		w.begin(n)
	}
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		for _, step := range []struct {
			name string
			do   func(n *testNode)
		}{
			{"transfer", func(n *testNode) { n.raft.LeadershipTransfer().Error() }},
			{"stop", func(n *testNode) { n.stop() }},
			{"crash", func(n *testNode) { n.crash() }},
			{"cut off", func(n *testNode) { c.net.freeze(n.ip()) }},
			{"cut off for a moment", func(n *testNode) {
				c.net.freeze(n.ip())
				time.Sleep(300 * time.Millisecond)
				c.net.thaw(n.ip())
			}},
		} {
			n := c.leader()
			step.do(n)
			file, counted := w.progress()
			t.Logf("%s of %s: the next file after %v, the next count after %v", step.name, n.name(), file, counted)
			if n.Node == nil {
				n.again()
				w.begin(n)
			}
			c.net.thaw(n.ip())
			w.progress()
		}
	}
	for _, n := range c.nodes {
		w.end(n, true)
	}
	w.check(c)
}
