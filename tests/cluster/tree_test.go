package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// TestTree has three hosts make, change and remove names at once.
func TestTree(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: long})
	names := 1000
	if testing.Short() {
		names = 200
	}
	t.Run("visible", func(t *testing.T) { testVisible(t, c) })
	t.Run("lag", func(t *testing.T) { testLag(t, c) })
	t.Run("create", func(t *testing.T) { testCreate(t, c, names) })
	t.Run("exclusive", func(t *testing.T) { testExclusive(t, c, names) })
	for round := range rounds(1) {
		t.Run("storm", func(t *testing.T) { testStorm(t, c, uint64(round), names) })
	}
}

// testVisible makes files on one host; another that has passed a barrier, by a lock or by a read through the log, lists them
// all. That host had listed the directory before, and cached that they are not there.
func testVisible(t *testing.T, c *harness.Cluster) {
	a, b := c.Hosts[0].Shell(t), c.Hosts[1].Shell(t)
	a.OK(`mkdir $M/many && echo one > $M/mark`)
	b.OK(`cat $M/mark; ls -l $M/many; ls $M/many/f1 $M/many/f1000 2>/dev/null; true`)
	if r := a.Start(`(cd $M/many && touch $(seq -f f%.0f 1000))`).WaitFor(3 * limit); r.Code != 0 {
		t.Fatalf("touch: %+v", r)
	}
	b.OK(`flock $M/mark true`)
	if n := b.OK(`ls $M/many | wc -l`); n != "1000\n" {
		t.Errorf("after a lock: %s files", n)
	}
	b.OK(`ls -l $M/many/f1 $M/many/f1000`)
	if r := a.Start(`rm $M/many/f*[05]`).WaitFor(3 * limit); r.Code != 0 {
		t.Fatalf("rm: %+v", r)
	}
	b.OK(`dd if=$M/mark iflag=sync of=/dev/null status=none`)
	if n := b.OK(`ls $M/many | wc -l`); n != "800\n" {
		t.Errorf("after a read through the log: %s files", n)
	}
	b.Exits(2, `ls -l $M/many/f1000`)
}

// testLag measures how long after touch has returned on one host the file is there on another.
func testLag(t *testing.T, c *harness.Cluster) {
	leader := c.Leader()
	for _, from := range []int{leader, c.Others(leader)[0]} {
		here, there := c.Hosts[from], c.Hosts[c.Others(leader)[1]]
		if r := here.Run(t, fmt.Sprintf(`mkdir $M/lag%d`, from), 0); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		harness.Until(t, limit, "the directory on the other host", func() (string, bool) {
			r := there.Run(t, fmt.Sprintf(`ls $M/lag%d`, from), 0)
			return r.Out, r.Code == 0
		})
		dir := fmt.Sprintf("/lag%d", from)
		lines := start(t, "lag", here.Lock+dir, there.Lock+dir, "300").end(t)
		if last(lines) != "done" {
			t.Fatalf("it ended with %s", last(lines))
		}
		var lags []time.Duration
		for _, line := range lines[:len(lines)-1] {
			lags = append(lags, time.Duration(number(line)))
		}
		slices.Sort(lags)
		t.Logf("made on %s, seen on a follower: p50 %v p99 %v", map[bool]string{true: "the leader", false: "a follower"}[from == leader],
			lags[len(lags)/2], lags[len(lags)*99/100])
	}
}

// everywhere runs a script on all hosts at once and returns what each wrote.
func everywhere(t *testing.T, c *harness.Cluster, script string) []string {
	t.Helper()
	var pending []*harness.Pending
	for _, d := range c.Hosts {
		pending = append(pending, d.Shell(t).Start(script))
	}
	var outs []string
	for i, p := range pending {
		r := p.WaitFor(3 * limit)
		if r.Code != 0 {
			t.Errorf("host %d: exit code %d\n%s", i, r.Code, r.Out)
		}
		outs = append(outs, r.Out)
	}
	return outs
}

// testCreate opens the same fresh names on three hosts at once: each gets its lock in its turn, and none EEXIST.
func testCreate(t *testing.T, c *harness.Cluster, names int) {
	c.Hosts[0].Shell(t).OK(`mkdir $M/create`)
	script := fmt.Sprintf(`(for i in $(seq %d); do
		until [ -d $M/create ]; do :; done
		exec 9<>$M/create/$i || exit 1
		exec 9>&-
	done)`, names)
	everywhere(t, c, script)
	if n := c.Hosts[2].Shell(t).OK(`flock $M/create/1 true; ls $M/create | wc -l`); n != fmt.Sprintln(names) {
		t.Errorf("%s names", n)
	}
}

// testExclusive makes the same fresh names with O_EXCL on three hosts at once: each is made by exactly one.
func testExclusive(t *testing.T, c *harness.Cluster, names int) {
	c.Hosts[0].Shell(t).OK(`mkdir $M/excl`)
	script := fmt.Sprintf(`(set -C; for i in $(seq %d); do
		until [ -d $M/excl ]; do :; done
		if { exec 9>$M/excl/$i; } 2>/dev/null; then echo $i; exec 9>&-; fi
	done)`, names)
	made := map[string]int{}
	var shares []int
	for _, out := range everywhere(t, c, script) {
		shares = append(shares, strings.Count(out, "\n"))
		for line := range strings.Lines(out) {
			made[strings.TrimSpace(line)]++
		}
	}
	for name, n := range made {
		if n != 1 {
			t.Errorf("%s was made %d times", name, n)
		}
	}
	if len(made) != names {
		t.Errorf("%d names were made", len(made))
	}
	t.Logf("made by the hosts: %v", shares)
}

// testStorm changes names at random from three hosts at once. When all is quiet the trees are the same, as the digests say
// and as find shows.
func testStorm(t *testing.T, c *harness.Cluster, seed uint64, steps int) {
	if r := c.Hosts[0].Run(t, `rm -rf $M/storm && mkdir $M/storm`, 0); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	var running []*client
	for i, d := range c.Hosts {
		harness.Until(t, limit, "the directory", func() (string, bool) {
			r := d.Run(t, `ls -d $M/storm`, 0)
			return r.Out, r.Code == 0
		})
		for j := range 2 {
			running = append(running, start(t, "storm", d.Lock+"/storm", fmt.Sprint(6*seed+uint64(1+2*i+j)), fmt.Sprint(steps)))
		}
	}
	changes := 0
	for _, l := range running {
		lines := l.end(t)
		changes += len(lines) - 1
		if last(lines) != "done" {
			t.Errorf("a client got %v", lines[max(0, len(lines)-2):])
		}
	}
	t.Logf("%d changes", changes)
	same(t, c.Hosts)
	var listing string
	for i, d := range c.Hosts {
		r := d.Run(t, `find $M/storm -printf '%P %y %m %i %T@ %C@\n' | sort`, 0)
		if i > 0 && r.Out != listing {
			t.Errorf("host %d lists\n%sanother\n%s", i, r.Out, listing)
		}
		listing = r.Out
	}
}

// same waits until all hosts show one index, and wants their digests to be equal then.
func same(t *testing.T, hosts []*harness.Daemon) {
	t.Helper()
	harness.Until(t, limit, "all hosts at one index", func() (string, bool) {
		var saw string
		indexes, digests := map[string]bool{}, map[string]bool{}
		for _, d := range hosts {
			s := d.Status()
			if s["digest"] == "" {
				t.Fatal("no digest in .lockfs/status")
			}
			saw += fmt.Sprintln(s["index"], s["digest"])
			indexes[s["index"]], digests[s["digest"]] = true, true
		}
		if len(indexes) == 1 && len(digests) > 1 {
			t.Fatalf("different states at one index:\n%s", saw)
		}
		return saw, len(indexes) == 1
	})
}
