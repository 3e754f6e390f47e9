package lockd_test

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

var firstSeed = flag.Uint64("seed", 1, "of the tests that take chances: that of the first round, the next has the next; 0: by the clock")

// seedOf returns the seed of a round and tells it.
func seedOf(t *testing.T, round int) uint64 {
	t.Helper()
	if *firstSeed == 0 {
		*firstSeed = uint64(time.Now().UnixNano())
	}
	seed := *firstSeed + uint64(round)
	t.Logf("seed %d: -seed %[1]d", seed)
	return seed
}

// chaos counts in value blocks under EX, from clients of several hosts whose ways to the log and from it fail.
type chaos struct {
	*rig
	hosts   []*lockd.Host
	members []*lockdtest.Member
	files   []uint64

	mu     sync.Mutex
	inside map[uint64]map[*lockd.Lock]*lockd.Host
	token  map[uint64]uint64          // the last of each file
	acked  map[uint64]map[uint64]bool // values whose commit was acknowledged
	unsure int
	losses int
}

// TestChaos: never two hosts hold a lock that is valid, tokens grow, every acknowledged increment is there and none twice.
func TestChaos(t *testing.T) {
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		seed := seedOf(t, round)
		bubbleWith(t, chaosConfig, func(r *rig) {
			c := &chaos{rig: r, inside: map[uint64]map[*lockd.Lock]*lockd.Host{}, token: map[uint64]uint64{}, acked: map[uint64]map[uint64]bool{}}
			c.run(seed)
		})
	}
}

var chaosConfig = lockd.Config{SessionTTL: 2 * time.Second, OpTimeout: time.Second}

// begin adds two hosts, and a leader.
func (c *chaos) begin() {
	c.log.Lead()
	c.hosts, c.members = []*lockd.Host{c.h}, []*lockdtest.Member{c.m}
	for _, name := range []string{"host2", "host3"} {
		cfg := chaosConfig
		cfg.Name = name
		h, m := c.start(cfg)
		c.hosts, c.members = append(c.hosts, h), append(c.members, m)
	}
}

func (c *chaos) run(seed uint64) {
	c.begin()
	c.files = []uint64{c.make("/d/a"), c.make("/d/b")}
	for _, f := range c.files {
		c.inside[f], c.acked[f] = map[*lockd.Lock]*lockd.Host{}, map[uint64]bool{}
	}
	stop := make(chan struct{})
	var work sync.WaitGroup
	for i, h := range c.hosts {
		for j := range 4 {
			rnd := rand.New(rand.NewPCG(seed, uint64(100*i+j)))
			work.Go(func() {
				for running(stop) {
					c.count(h, rnd, uint32(100*i+j+1))
				}
			})
		}
	}
	c.trouble(seed)
	close(stop)
	work.Wait()
	for _, f := range c.files {
		last := counter(c.log.View().Node(f).Value)
		for n := range c.acked[f] {
			if n > last {
				c.Errorf("file %d: %d was acknowledged, the value is %d", f, n, last)
			}
		}
		if uint64(len(c.acked[f])+c.unsure) < last {
			c.Errorf("file %d: the value is %d, acknowledged %d, unsure %d", f, last, len(c.acked[f]), c.unsure)
		}
		if len(c.acked[f]) == 0 {
			c.Errorf("file %d: nothing was counted", f)
		}
		c.Logf("file %d: counted to %d, acknowledged %d", f, last, len(c.acked[f]))
	}
	c.Logf("unsure %d, lost %d", c.unsure, c.losses)
	for _, h := range c.hosts {
		if s := h.Status(); s.Locks != 0 {
			c.Errorf("%s: %d locks are left", s.Name, s.Locks)
		}
	}
}

// trouble disturbs the hosts' connections for a while, and gives them time to mend.
func (c *chaos) trouble(seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1<<40))
	for range 200 {
		c.disturb(rnd)
		time.Sleep(time.Duration(rnd.IntN(800)) * time.Millisecond)
	}
	for _, m := range c.members {
		m.SetCut(false)
		m.SetDeaf(false)
		m.SetFate(nil)
		m.SetDelay(0)
	}
	time.Sleep(10 * time.Second)
}

func running(stop chan struct{}) bool {
	select {
	case <-stop:
		return false
	default:
		return true
	}
}

func counter(value []byte) uint64 {
	if len(value) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(value)
}

// disturb changes what one host's connection does.
func (c *chaos) disturb(rnd *rand.Rand) {
	m := c.members[rnd.IntN(len(c.members))]
	switch rnd.IntN(9) {
	case 0:
		m.SetCut(true)
	case 1:
		m.SetDeaf(true)
	case 2, 3:
		m.SetCut(false)
		m.SetDeaf(false)
	case 4:
		m.SetDelay(time.Duration(rnd.IntN(50)) * time.Millisecond)
	case 5:
		m.SetDelay(0)
	case 6:
		seed := rnd.Uint64()
		var mu sync.Mutex
		fates := rand.New(rand.NewPCG(seed, 0))
		m.SetFate(func([]byte) lockdtest.Fate {
			mu.Lock()
			defer mu.Unlock()
			return []lockdtest.Fate{lockdtest.Commit, lockdtest.Drop, lockdtest.CommitFail}[fates.IntN(3)]
		})
	case 7:
		m.SetFate(nil)
	case 8:
		m.Restore()
	}
}

// count adds one to a counter under EX.
func (c *chaos) count(h *lockd.Host, rnd *rand.Rand, pid uint32) {
	f := c.files[rnd.IntN(len(c.files))]
	var l lockd.Lock
	req := lockd.Request{Ino: f, Mode: queue.EX, Wait: time.Duration(rnd.IntN(3000)) * time.Millisecond}
	if rnd.IntN(4) == 0 {
		req.Flags = queue.NoQueue
	}
	if err := h.Lock(&lockd.Call{PID: pid}, &l, req); err != nil {
		time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
		return
	}
	defer h.Release(&l)
	c.enter(f, h, &l)
	defer c.leave(f, &l)
	hold := 20
	if rnd.IntN(20) == 0 {
		hold = 3000
	}
	time.Sleep(time.Duration(rnd.IntN(hold)) * time.Millisecond)
	if h.Check(&l) != nil {
		return
	}
	n := h.View().Node(f)
	value := binary.BigEndian.AppendUint64(nil, counter(n.Value)+1)
	_, err := h.Commit(nil, &l, &statepb.Commit{Ino: f, BaseGeneration: n.Generation, Change: &statepb.Commit_Whole{Whole: value}})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.unsure++
	case c.acked[f][counter(value)]:
		c.Errorf("file %d: %d was acknowledged twice", f, counter(value))
	default:
		c.acked[f][counter(value)] = true
	}
}

// enter checks that nobody else holds the lock by a lease that stands.
func (c *chaos) enter(f uint64, h *lockd.Host, l *lockd.Lock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.Check(l) != nil {
		return
	}
	for other, host := range c.inside[f] {
		if host.Check(other) == nil && h.Check(l) == nil {
			c.Errorf("%s and %s hold file %d", h.Name(), host.Name(), f)
		}
	}
	if token := l.Token(); h.Check(l) == nil && token <= c.token[f] {
		c.Errorf("%s: token %d of file %d after %d", h.Name(), token, f, c.token[f])
	} else {
		c.token[f] = max(token, c.token[f])
	}
	c.inside[f][l] = h
}

func (c *chaos) leave(f uint64, l *lockd.Lock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.Err() != nil {
		c.losses++
	}
	delete(c.inside[f], l)
}
