package cluster

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// TestExclusion locks on one host what another wants, with nothing but the shell.
func TestExclusion(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: long, Views: []string{"lock", "posix", "dlmfs"}})
	a, b := c.Hosts[0].Shell(t), c.Hosts[1].Shell(t)

	a.OK(`exec 9<>$M/a`)
	first := number(a.OK(`$BIN token 9 | tr -d '\n'`))
	b.Exits(1, `flock -n $M/a true`)
	b.Exits(1, `flock -n -s $M/a true`)
	waiter := b.Start(`flock $M/a true`)
	waiter.Waits(300 * time.Millisecond)
	a.OK(`exec 9>&-`)
	if r := waiter.Wait(); r.Code != 0 {
		t.Fatalf("the waiter: %+v", r)
	}
	b.OK(`exec 9<>$M/a`)
	second := number(b.OK(`$BIN token 9 | tr -d '\n'`))
	b.OK(`exec 9>&-`)
	a.OK(`exec 9<>$M/a`)
	third := number(a.OK(`$BIN token 9 | tr -d '\n'`))
	a.OK(`exec 9>&-`)
	if first == 0 || second <= first || third <= second {
		t.Errorf("the tokens are %d, then on the other host %d, then %d", first, second, third)
	}

	t.Run("values", func(t *testing.T) {
		a, b, c := actor.Start(t, c.Hosts[0].Lock), actor.Start(t, c.Hosts[1].Lock), actor.Start(t, c.Hosts[2].Lock)
		a.Must("ok", "open f rdwr,creat v", "write f one", "close f")
		b.Must(`"one"`, "open f rdwr,creat v", "pread f 0 10")
		c.Must(`"one"`, "open r rdonly,sync,creat v", "pread r 0 10")
		b.Must("ok", "pwrite f 0 two", "close f")
		c.Must(`"two"`, "open f rdonly v@pr", "pread f 0 10")
		a.Must("EAGAIN", "open f rdwr,nonblock,creat v")
		a.Must(`"two"`, "open f rdonly,nonblock v@pr", "pread f 0 10")
		c.Must("ok", "close f")
		a.Must("ok", "close f")
	})

	t.Run("queue", func(t *testing.T) { // first come, first served, between hosts
		hosts := []*actor.Actor{actor.Start(t, c.Hosts[0].Lock), actor.Start(t, c.Hosts[1].Lock), actor.Start(t, c.Hosts[2].Lock)}
		hosts[0].Must("ok", "open f rdwr,creat q")
		for i, h := range hosts[1:] {
			h.Begin("open f rdwr,creat q")
			harness.Until(t, limit, "it waits", func() (string, bool) {
				r := c.Hosts[0].Run(t, `ls $M/.lockfs/waiting/q`, 0)
				return r.Out, r.Code == 0 && strings.Count(r.Out, "\n") == i+1
			})
		}
		hosts[0].Must("ok", "close f")
		if got := hosts[1].EndWithin(limit); got != "ok" {
			t.Fatal(got)
		}
		if got, waits := hosts[2].Waits(); !waits {
			t.Fatal(got)
		}
		hosts[1].Must("ok", "close f")
		if got := hosts[2].EndWithin(limit); got != "ok" {
			t.Fatal(got)
		}
	})

	t.Run("ranges", func(t *testing.T) {
		a, b := actor.Start(t, c.Hosts[0].Posix), actor.Start(t, c.Hosts[1].Posix)
		a.Must("ok", "open f rdwr,creat r", "lock f w 0 10")
		b.Must("ok", "open f rdwr,creat r", "lock f w 10 10")
		b.Must("EAGAIN", "lock f w 9 1")
		b.Must("w 0 10 pid=0", "test f w 5 1")
		b.Begin("lockw f w 0 1")
		if got, waits := b.Waits(); !waits {
			t.Fatal(got)
		}
		a.Must("ok", "lock f u 0 10")
		if got := b.EndWithin(limit); got != "ok" {
			t.Fatal(got)
		}
	})

	t.Run("dlmfs", func(t *testing.T) {
		a, b := actor.Start(t, c.Hosts[0].Dlmfs), actor.Start(t, c.Hosts[1].Dlmfs)
		a.Must("ok", "mkdir dom", "open f rdwr,creat dom/l", "pwrite f 0 value")
		becomes(t, b, "ETXTBSY", "open f rdonly,nonblock dom/l")
		b.Begin("open f rdonly dom/l")
		if got, waits := b.Waits(); !waits {
			t.Fatal(got)
		}
		a.Must("[in]", "poll f in 60000") // told that somebody waits
		a.Must("ok", "close f")
		if got := b.EndWithin(limit); got != "ok" {
			t.Fatal(got)
		}
		b.Must(`"value"`, "pread f 0 5")
	})

	t.Run("slots", func(t *testing.T) { slots(t, c) })
}

// slots has all hosts make one semaphore at the same time and work under it, some of them killed while they wait or hold:
// never are two commands in one slot.
func slots(t *testing.T, c *harness.Cluster) {
	t.Setenv("ROUNDS", strconv.Itoa(rounds(2)))
	t.Setenv("AT", t.TempDir())
	var waiting []*harness.Pending
	for _, d := range c.Hosts {
		waiting = append(waiting, d.Shell(t).Start(`
			inside='mkdir $AT/$LOCKFS_SLOT && echo $LOCKFS_SLOT && rmdir $AT/$LOCKFS_SLOT || echo two at once'
			for worker in 1 2 3; do
				for ((i = 0; i < ROUNDS; i++)); do
					(timeout -s KILL 0.0$i$worker $BIN run -q --slots 2 $M/sem -- sh -c "$inside"; :) >/dev/null 2>&1
					$BIN run -q --slots 2 $M/sem -- sh -c "$inside" || echo exits $?
				done 2>&1 &
			done
			wait`))
	}
	for i, p := range waiting {
		r := p.WaitFor(limit)
		if want := 3 * rounds(2); strings.Count(r.Out, "1\n")+strings.Count(r.Out, "2\n") != want || strings.Count(r.Out, "\n") != want {
			t.Errorf("host %d: want %d times 1 or 2\n%s", i, want, r.Out)
		}
	}
	if r := c.Hosts[0].Run(t, `$BIN run --slots 2 $M/sem -- $BIN run --slots 2 $M/sem true`, 0); r.Code != 0 {
		t.Errorf("both slots at once: %+v", r)
	}
	if r := c.Hosts[0].Run(t, `ls -A $M/sem | grep -vx -e 1 -e 2 -e .queue`, 0); r.Out != "" {
		t.Errorf("the semaphore also has\n%s", r.Out)
	}
}
