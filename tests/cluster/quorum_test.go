package cluster

import (
	"fmt"
	"testing"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// TestQuorumLost takes two of three hosts away. What needs the log waits on the third, or ends as it was asked to; reading
// goes on until its lease is over. With the others back all goes on.
func TestQuorumLost(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: ttl})
	left := c.Others(c.Leader())[0]
	gone := c.Others(left)
	d := c.Hosts[left]
	a, waiter, reader, flocker := actor.Start(t, d.Lock), actor.Start(t, d.Lock), actor.Start(t, d.Lock), actor.Start(t, d.Lock)
	a.Must("ok", "open f rdwr,creat a", "write f one", "fsync f")
	for _, file := range []string{"cold", "tried", "waited"} { // known here, cached elsewhere
		elsewhere := actor.Start(t, c.Hosts[gone[0]].Lock)
		elsewhere.Must("ok", "open f rdwr,creat "+file, "write f two", "close f")
	}
	becomes(t, reader, `3`, "size waited")
	reader.Must("ok", "open r rdonly cold")
	reader.Must(`"two"`, "pread r 0 10")
	flocker.Must("ok", "open f rdonly waited")

	until := lease(t, d)
	for _, host := range gone {
		c.Hosts[host].Kill()
	}
	if got := reader.Do("pread r 0 10"); got != `"two"` && !after(until) {
		t.Errorf("while the lease lasts, a value reads as %s", got)
	}
	waiter.Begin("open f rdwr,creat cold")
	flocker.Begin("flock f ex")
	a.Must("EAGAIN", "open g rdwr,nonblock tried")
	a.Must("ETIMEDOUT", "open g rdonly tried@ex,wait=1s")
	harness.Until(t, limit, "reading ends with the lease", func() (string, bool) {
		got := reader.Do("pread r 0 10")
		if got == "EIO" && !after(until) {
			t.Error("reading ended before the lease")
		}
		return got, got == "EIO"
	})
	lost(t, a, "f")
	a.Must("EIO", "mkdir x")
	if got, waits := waiter.Waits(); !waits {
		t.Fatalf("an open without quorum: %s", got)
	}
	if got, waits := flocker.Waits(); !waits {
		t.Fatalf("a flock without quorum: %s", got)
	}

	for _, host := range gone {
		c.Hosts[host].Launch()
	}
	for _, host := range gone {
		c.Hosts[host].Ready(limit)
	}
	for _, w := range []*actor.Actor{waiter, flocker} {
		if got := w.EndWithin(limit); got != "ok" {
			t.Errorf("who waited through it got %s", got)
		}
	}
	becomes(t, reader, `"two"`, "pread r 0 10")
	becomes(t, a, "ok", "mkdir x")
	becomes(t, actor.Start(t, c.Hosts[gone[0]].Lock), "[a cold tried waited x]", "list .")
	c.Settle()
}

// TestRollingRestart ends each host in turn by SIGTERM and starts it again, the leader too, while clients of the others
// count: they see no error, and every step is there.
func TestRollingRestart(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: long})
	var k counts
	for host, d := range c.Hosts {
		var running []*client
		for _, other := range c.Others(host) {
			for i := range 2 {
				running = append(running, start(t, "count", c.Hosts[other].Lock, fmt.Sprint("n", i)))
			}
		}
		more(t, 2, running...)
		begin := len(d.Log())
		d.Terminate()
		if code := d.Ended(limit); code != 0 {
			t.Errorf("host %d exits %d:\n%s", host, code, d.Log()[begin:])
		}
		more(t, 2, running...)
		d.Start()
		c.Settle()
		more(t, 2, running...)
		for _, l := range running {
			l.stop()
		}
		for i, l := range running {
			if errno := k.hear(t, fmt.Sprint("n", i%2), l.end(t)); errno != "stopped" {
				t.Errorf("a client of another host got %s while host %d was restarted", errno, host)
			}
		}
	}
	k.check(t, c.Hosts[0])
	// All at once: the last ones have no majority any more.
	for _, d := range c.Hosts {
		d.Terminate()
	}
	for host, d := range c.Hosts {
		if code := d.Ended(limit); code != 0 {
			t.Errorf("host %d of those that end together exits %d:\n%s", host, code, d.Log())
		}
	}
}
