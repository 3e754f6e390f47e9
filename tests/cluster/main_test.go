// Package cluster tests the lockfs program on several hosts: three or four daemons on this machine, each with a data
// directory, mounts and an address of its own, on loopback or, where links must be cut, in network namespaces.
//
// What a busy machine could upset is not asserted: waits end on a condition, with generous limits, and claims of order are
// checked on times taken in that order.
package cluster

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

func TestMain(m *testing.M) {
	harness.MainBuilt(m, map[string]harness.Program{
		"actor": actor.Program, "count": count, "storm": storm, "lag": lag, "hold": hold, "watch": watch, "wakes": wakes,
		"inotify": inotify, "delays": delays, "churn": churn,
	})
}

// ttl is the time to live of sessions where their end is waited for, long where it must not come on a machine that is busy,
// and limit what anything may take.
const (
	ttl   = 4 * time.Second
	long  = 8 * time.Second
	limit = 60 * time.Second
)

// rounds is how often a test with chance in it does its work: n times, or as often as LOCKFS_CHAOS says (make chaos).
func rounds(n int) int {
	if more := int(number(os.Getenv("LOCKFS_CHAOS"))); more > 0 {
		return n * more
	}
	return n
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// becomes makes a call again and again until it has that result.
func becomes(t *testing.T, a *actor.Actor, want, call string) {
	t.Helper()
	harness.Until(t, limit, call+" is "+want, func() (string, bool) {
		a.Begin(call)
		got := a.EndWithin(limit)
		return got, got == want
	})
}

// lease is a time at which the lease of the host had not ended yet.
func lease(t *testing.T, d *harness.Daemon) time.Time {
	t.Helper()
	before := time.Now()
	status := d.Status()
	left, err := time.ParseDuration(status["lease"])
	if err != nil || left <= 0 {
		t.Fatalf("the host's lease: %q", status["lease"])
	}
	return before.Add(left)
}

// after reports whether that time is over.
func after(at time.Time) bool { return !time.Now().Before(at) }

// granted waits for a lock that was begun, which must not come before the time that is given.
func granted(t *testing.T, a *actor.Actor, notBefore time.Time) {
	t.Helper()
	got := a.EndWithin(limit)
	if now := time.Now(); now.Before(notBefore) {
		t.Errorf("granted %v before the lease of its holder ended", notBefore.Sub(now))
	}
	if got != "ok" {
		t.Fatalf("the waiter got %s", got)
	}
}
