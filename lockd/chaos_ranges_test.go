package lockd_test

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockd"
)

// TestChaosRanges: byte ranges of several hosts whose connections fail: never two owners have one in sessions that stand,
// and in the end, when all have let go, the state has none left.
func TestChaosRanges(t *testing.T) {
	for round := range 3 {
		seed := seedOf(t, round)
		bubbleWith(t, chaosConfig, func(r *rig) {
			c := &chaosRanges{chaos: &chaos{rig: r}, inside: map[uint64]held{}}
			c.run(seed)
		})
	}
}

type chaosRanges struct {
	*chaos
	file    uint64
	inside  map[uint64]held // by owner
	granted int
}

// held is a range of an owner.
type held struct {
	h       *lockd.Host
	session uint64
	lockd.Range
}

func (c *chaosRanges) run(seed uint64) {
	c.begin()
	c.file = c.make("/a")
	stop := make(chan struct{})
	var work sync.WaitGroup
	for i, h := range c.hosts {
		for j := range 4 {
			rnd := rand.New(rand.NewPCG(seed, uint64(100*i+j)))
			work.Go(func() {
				owner := uint64(100*i + j + 1)
				for running(stop) {
					c.lock(h, rnd, owner)
				}
				h.DropRanges(c.file, owner)
			})
		}
	}
	c.trouble(seed)
	close(stop)
	work.Wait()
	time.Sleep(5 * time.Second)
	v := c.log.View()
	for x := range v.Ranges(c.file) {
		c.Errorf("left: %+v", x)
	}
	for x := range v.RangeWaits(c.file) {
		c.Errorf("left waiting: %+v", x)
	}
	if c.granted < 100 {
		c.Errorf("%d were granted", c.granted)
	}
	c.Logf("%d were granted", c.granted)
}

// lock takes a range for a moment, waiting or not, and sometimes losing patience.
func (c *chaosRanges) lock(h *lockd.Host, rnd *rand.Rand, owner uint64) {
	start := uint64(rnd.IntN(8))
	want := lockd.Range{Owner: owner, Write: rnd.IntN(3) > 0, Start: start, End: start + uint64(rnd.IntN(4)), PID: uint32(owner), OFD: true}
	cancel := make(chan struct{})
	patience := time.AfterFunc(time.Duration(rnd.IntN(4000))*time.Millisecond, func() { close(cancel) })
	defer patience.Stop()
	call := &lockd.Call{PID: uint32(owner), Cancel: cancel}
	session, err := h.LockRange(call, c.file, want, rnd.IntN(4) > 0)
	if err != nil {
		if errors.Is(err, lockd.ErrNoQuorum) { // it may have been granted: a program closes the file
			h.DropRanges(c.file, owner)
		}
		time.Sleep(time.Duration(rnd.IntN(100)) * time.Millisecond)
		return
	}
	c.enter(owner, held{h, session, want})
	time.Sleep(time.Duration(rnd.IntN(50)) * time.Millisecond)
	c.mu.Lock()
	delete(c.inside, owner)
	c.mu.Unlock()
	h.UnlockRange(nil, c.file, want)
}

// enter checks that nobody has what is in the way of a range.
func (c *chaosRanges) enter(owner uint64, mine held) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.granted++
	if mine.h.Stands(mine.session) != nil {
		return
	}
	for _, x := range c.inside {
		if (x.Write || mine.Write) && x.Start <= mine.End && mine.Start <= x.End && x.h.Stands(x.session) == nil && mine.h.Stands(mine.session) == nil {
			c.Errorf("%s and %s have %+v and %+v", x.h.Name(), mine.h.Name(), x.Range, mine.Range)
		}
	}
	c.inside[owner] = mine
}
