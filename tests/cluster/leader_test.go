package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// TestLeaderKilled kills the leader in the middle of clients that count under EX, eight on each host: every acknowledged
// step is there, none was done twice, and the clients of the other hosts see no error.
func TestLeaderKilled(t *testing.T) {
	const clients = 8
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: long})
	counter := func(client int) string { return fmt.Sprint("n", client%4) }
	var k counts
	for round := range rounds(1) {
		running := make([][]*client, len(c.Hosts))
		for host, d := range c.Hosts {
			for i := range clients {
				running[host] = append(running[host], start(t, "count", d.Lock, counter(i)))
			}
		}
		leader := c.Leader()
		rest := slices.Concat(running[c.Others(leader)[0]], running[c.Others(leader)[1]])
		more(t, 4, slices.Concat(running...)...)
		c.Hosts[leader].Kill()
		killed := time.Now()
		t.Logf("round %d: %s leads %v after the kill", round, string(rune('a'+c.Leader())), time.Since(killed).Round(time.Millisecond))
		for i, l := range running[leader] {
			if errno := k.hear(t, counter(i), l.end(t)); errno != "ENOTCONN" && errno != "ECONNABORTED" {
				t.Errorf("a client of the leader that was killed got %s", errno)
			}
		}
		more(t, 4, rest...)
		t.Logf("round %d: all clients of the others had counted on %v after the kill", round, time.Since(killed).Round(time.Millisecond))
		for _, l := range rest {
			l.stop()
		}
		for i, l := range rest {
			if errno := k.hear(t, counter(i%clients), l.end(t)); errno != "stopped" {
				t.Errorf("a client of a host that was not the leader got %s", errno)
			}
		}
		c.Hosts[leader].Start() // its clients are gone: the old session ends at once
		c.Settle()
	}
	k.check(t, c.Hosts[0])
}

// TestStormOfIntents has three hosts take and drop CW below a directory without pause while a fourth waits for EX on it: it is
// granted, and no cohort, no cache and no queue keeps it out for ever.
func TestStormOfIntents(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{Hosts: 4, Voters: 3, TTL: long})
	t.Run("roles", func(t *testing.T) {
		roles := map[string]int{}
		for i := range c.Hosts {
			roles[c.Hosts[0].Host(string(rune('a' + i)))["role"]]++
		}
		if roles["leader"] != 1 || roles["voter"] != 2 || roles["nonvoter"] != 1 {
			t.Errorf("of four hosts with --voters 3: %v", roles)
		}
	})
	d := c.Hosts[3]
	if r := d.Run(t, `mkdir $M/d && touch $M/d/{0,1,2}{0,1,2,3}`, 0); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	var running []*client
	for i, host := range c.Hosts[:3] {
		harness.Until(t, limit, "the files on another host", func() (string, bool) {
			r := host.Run(t, `ls $M/d`, 0)
			return r.Out, strings.Count(r.Out, "\n") == 12
		})
		for j := range 4 {
			running = append(running, start(t, "hold", host.Lock, fmt.Sprintf("d/%d%d@cw", i, j)))
		}
	}
	for range 3 {
		more(t, 1, running...)
		r := d.Run(t, `exec 9<$M/d@ex && sleep 0.1 && exec 9<&-`, limit)
		if r.Code != 0 {
			t.Fatalf("EX of the directory: %+v", r)
		}
	}
	more(t, 1, running...)
	for _, l := range running {
		l.stop()
	}
	for _, l := range running {
		if errno := last(l.end(t)); errno != "stopped" {
			t.Errorf("who took CW got %s", errno)
		}
	}
}
