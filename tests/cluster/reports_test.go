package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// figure reads a figure of a host's /metrics.
func figure(t *testing.T, at, name string) float64 {
	t.Helper()
	code, text := ask(at, "/metrics")
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no %s in the metrics: %d %s", name, code, text)
	return 0
}

// TestReports: all locks that one host holds for long are told to another, and are gone there when they are let go. With
// LOCKFS_REPORTS=10000 it is so many, and go test -v shows what that costs (issue 4).
func TestReports(t *testing.T) {
	locks := 200
	if n := int(number(os.Getenv("LOCKFS_REPORTS"))); n > 0 {
		locks = n
	}
	c, at := startHTTP(t, "lock")
	s := c.Hosts[0].Shell(t)
	told := func(want int) {
		t.Helper()
		harness.Until(t, limit, fmt.Sprintf("c knows of %d locks of a", want), func() (string, bool) {
			n := figure(t, at[2], `lockfs_host_reports{host="a"}`)
			return fmt.Sprint(n), int(n) == want
		})
	}
	type costs struct {
		cpu                 [3]float64 // seconds, of each host
		entries, log, state float64    // of a; the last two in bytes
	}
	now := func() (x costs) {
		for i := range x.cpu {
			x.cpu[i] = figure(t, at[i], "process_cpu_seconds_total")
		}
		x.entries, x.log = figure(t, at[0], "lockfs_proposals_total"), figure(t, at[0], "lockfs_log_bytes")
		if testing.Verbose() {
			x.state, _ = strconv.ParseFloat(strings.TrimSpace(s.OK("wc -c <$M/.lockfs/snapshot")), 64)
		}
		return x
	}
	show := func(what string, a, b costs) {
		t.Logf("%d locks, %s: CPU ms a %.0f, b %.0f, c %.0f; entries %.0f, bytes of the log %.0f, of the state %+.0f", locks, what,
			1e3*(b.cpu[0]-a.cpu[0]), 1e3*(b.cpu[1]-a.cpu[1]), 1e3*(b.cpu[2]-a.cpu[2]), b.entries-a.entries, b.log-a.log, b.state-a.state)
	}
	const letGo = `for f in "${fds[@]}"; do exec {f}>&-; done; fds=()`
	take := fmt.Sprintf(`for ((i = 0; i < %d; i++)); do exec {f}<>$M/$i; fds+=($f); done`, locks)
	s.OK(fmt.Sprintf("ulimit -n %d", locks+100))

	s.OK(take) // for the first time: the host gets the locks
	told(locks)
	s.OK(letGo)
	told(0)
	before := now()
	if testing.Verbose() {
		time.Sleep(10 * time.Second)
		idle := now()
		show("not held for 10 s", before, idle)
		before = idle
	}
	s.OK(take)
	told(locks)
	held := now()
	show("taken again from the cache, and told of", before, held)
	if testing.Verbose() {
		time.Sleep(10 * time.Second)
		still := now()
		show("held for 10 s more", held, still)
		held = still
	}
	s.OK(letGo)
	told(0)
	show("let go of", held, now())
}
