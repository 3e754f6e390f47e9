package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// roles counts the roles of the hosts that a daemon shows.
func roles(t *testing.T, d *harness.Daemon) map[string]int {
	t.Helper()
	list := map[string]int{}
	for line := range strings.Lines(d.Run(t, `cat $M/.lockfs/hosts/*`, 0).Out) {
		if role, ok := strings.CutPrefix(line, "role="); ok {
			list[strings.TrimSpace(role)]++
		}
	}
	return list
}

// wants waits until a daemon shows so many voters, the leader among them, and so many non-voters.
func wants(t *testing.T, d *harness.Daemon, voters, nonvoters int) {
	t.Helper()
	harness.Until(t, limit, fmt.Sprintf("%d voters and %d others", voters, nonvoters), func() (string, bool) {
		r := roles(t, d)
		return fmt.Sprint(r), r["leader"] == 1 && r["leader"]+r["voter"] == voters && r["nonvoter"] == nonvoters
	})
}

// TestMembers forms a cluster of hosts that all have the same configuration, lets one leave, replaces one that died, and one
// that comes back under another address.
func TestMembers(t *testing.T) {
	c := harness.PrepareCluster(t, harness.ClusterOptions{Hosts: 5, Voters: 3, TTL: ttl, Joins: true})
	h := c.Hosts
	for _, d := range []*harness.Daemon{h[2], h[0], h[1]} { // in any order
		d.Launch()
	}
	for _, d := range h[:3] {
		harness.Until(t, limit, "the daemon waits", func() (string, bool) {
			return d.Log(), strings.Contains(d.Log(), "waiting to be admitted")
		})
	}
	h[1].NotReady(300 * time.Millisecond)
	if r := h[1].Run(t, `$BIN init --data-dir $T/data`, 0); r.Code != 0 {
		t.Fatalf("init: %+v", r)
	}
	for _, d := range h[:3] {
		d.Ready(limit)
	}
	wants(t, h[0], 3, 0)
	h[3].Start()
	wants(t, h[3], 3, 1)
	a, d := actor.Start(t, h[0].Lock), actor.Start(t, h[3].Lock)
	a.Must("ok", "open f rdwr,creat a", "write f one", "close f")
	d.Must(`"one"`, "open f rdwr,creat a", "pread f 0 10")
	a.Must("EAGAIN", "open f rdwr,nonblock a")
	d.Must("ok", "close f")

	t.Run("restarts as it was", func(t *testing.T) { // with its log in memory
		h[3].Kill()
		d.Kill()
		h[3].Start()
		d = actor.Start(t, h[3].Lock)
		d.Must(`"one"`, "open f rdonly a", "pread f 0 10")
		wants(t, h[3], 3, 1)
	})
	if t.Failed() {
		return
	}

	t.Run("leaves", func(t *testing.T) { // the leader: what it held is free at once, another voter takes its place
		leader := c.Leader()
		name, left := string(rune('a'+leader)), h[leader]
		rest := h[c.Others(leader)[0]]
		x := actor.Start(t, left.Lock)
		x.Must("ok", "open f rdwr,creat left", "write f one", "close f")
		x.Kill()
		if r := rest.Run(t, `LOCKFS_MOUNT=$M $BIN leave `+name, limit); r.Code == 0 {
			t.Errorf("a host that is alive can be removed by another without --force: %+v", r)
		}
		if r := left.Run(t, `LOCKFS_MOUNT=$M $BIN leave`, limit); r.Code != 0 {
			t.Fatalf("leave: %+v", r)
		}
		left.Ended(limit)
		wants(t, rest, 3, 0)
		if roles := rest.Host(name); len(roles) > 0 {
			t.Errorf("the host that left is shown: %v", roles)
		}
		y := actor.Start(t, rest.Lock)
		y.Must(`"one"`, "open f rdwr left", "pread f 0 10")
		y.Must("1", "xattr left user.lockfs.valid")
		if r := left.Refuses(); !strings.Contains(r.Out, "--reset") {
			t.Errorf("a host that left is started again: %+v", r)
		}
		left.Start("--reset")
		wants(t, left, 3, 1)
		z := actor.Start(t, left.Lock)
		becomes(t, z, "ok", "open f rdonly left")
		z.Must(`"one"`, "pread f 0 10")
	})
	if t.Failed() {
		return
	}

	t.Run("removed", func(t *testing.T) { // by an operator, for good
		gone := c.Others(c.Leader())[0]
		if h[c.Leader()].Host(string(rune('a' + gone)))["role"] != "voter" {
			gone = c.Others(c.Leader())[1]
		}
		name, rest := string(rune('a'+gone)), h[c.Leader()]
		h[gone].Kill()
		harness.Until(t, limit, "the operator's command", func() (string, bool) {
			r := rest.Run(t, `LOCKFS_MOUNT=$M $BIN leave `+name, limit)
			return r.Out, r.Code == 0
		})
		if roles := rest.Host(name); len(roles) > 0 {
			t.Errorf("the host that was removed is shown: %v", roles)
		}
		wants(t, rest, 3, 0)
		if r := h[gone].Refuses(); !strings.Contains(r.Out, "removed") || !strings.Contains(r.Out, "--reset") {
			t.Errorf("a host that was removed is started again: %+v", r)
		}
		h[4].Start() // another in its place
		wants(t, rest, 3, 1)
	})
	if t.Failed() {
		return
	}

	t.Run("moves", func(t *testing.T) {
		moved, before := 0, "" // a member, which not all are by now
		for _, moved = range c.Others(c.Leader()) {
			if before = h[c.Leader()].Host(string(rune('a' + moved)))["address"]; before != "" {
				break
			}
		}
		d, name := h[moved], string(rune('a'+moved))
		d.Kill()
		address := d.Move(t)
		d.Start()
		harness.Until(t, limit, "the new address", func() (string, bool) {
			got := h[c.Leader()].Host(name)["address"]
			return got, got != before && strings.HasPrefix(got, address)
		})
		x := actor.Start(t, d.Lock)
		x.Must("ok", "open f rdwr,creat a", "close f")
		wants(t, h[c.Leader()], 3, 1)
	})
}

// TestClustersApart has a host of one cluster meet another cluster: neither takes it in.
func TestClustersApart(t *testing.T) {
	c := harness.PrepareCluster(t, harness.ClusterOptions{Hosts: 2, TTL: ttl})
	a, b := c.Hosts[0], c.Hosts[1]
	a.Start()
	x := actor.Start(t, a.Lock)
	x.Must("ok", "mkdir a")
	alone := harness.Prepare(t, harness.Options{Views: []string{"lock"}, Data: b.Dir + "/data"}) // it founds a cluster of its own
	alone.Start()
	if r := alone.Run(t, `mkdir $M/b`, 0); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	alone.Terminate()
	alone.Ended(limit)

	b.Launch() // with --join
	harness.Until(t, limit, "the daemon says what is wrong", func() (string, bool) {
		return b.Log(), strings.Contains(b.Log(), "another cluster") && strings.Contains(b.Log(), "--reset")
	})
	x.Must("[a]", "list .")
	if n := roles(t, a); n["leader"] != 1 || len(n) != 1 {
		t.Errorf("the first cluster shows hosts of the other: %v", n)
	}
	b.Kill()
	b.Start("--reset")
	becomes(t, actor.Start(t, b.Lock), "[a]", "list .")
	wants(t, a, 2, 0)
}

// TestSameName does not admit a second host of a name.
func TestSameName(t *testing.T) {
	c := harness.PrepareCluster(t, harness.ClusterOptions{Hosts: 2, TTL: ttl})
	a, b := c.Hosts[0], c.Hosts[1]
	a.Start()
	b.Launch("--name", "a")
	harness.Until(t, limit, "the daemon says what is wrong", func() (string, bool) {
		return b.Log(), strings.Contains(b.Log(), "name a is taken") && strings.Contains(b.Log(), "--name")
	})
	if b.IsReady() {
		t.Error("it was admitted")
	}
	b.Kill()
	b.Start("--name", "b")
	wants(t, a, 2, 0)
}
