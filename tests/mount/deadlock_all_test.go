package mount

import (
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// crossed lets two shells take a and b in opposite order, and fails unless exactly one flock ends with EDEADLK, within a second of
// the second wait, and the other goes on when that shell lets go.
func crossed(t *testing.T, one, two *harness.Shell) {
	t.Helper()
	one.OK("exec 8<$M/a 9<$M/b; flock 8")
	two.OK("exec 8<$M/a 9<$M/b; flock 9")
	first := one.Start("flock 9")
	first.Waits(waits)
	start := time.Now()
	if r := two.Do("flock 8"); r.Code != 65 {
		t.Fatalf("flock exits with %d: %s", r.Code, r.Out)
	}
	t.Logf("found after %v", time.Since(start))
	first.Waits(waits)
	toldOf(t, two)
	two.OK("flock -u 9")
	if r := first.Wait(); r.Code != 0 {
		t.Errorf("the other flock exits with %d: %s", r.Code, r.Out)
	}
}

// toldOf fails the test unless one deadlock of two waits is told of, whose victim waited for a.
func toldOf(t *testing.T, s *harness.Shell) {
	t.Helper()
	until(s, "grep -q ^deadlock $M/.lockfs/deadlocks")
	out := s.OK("cat $M/.lockfs/deadlocks")
	if strings.Count(out, "deadlock time=") != 1 || strings.Count(out, "\nwait by=") != 2 || strings.Count(out, "path=/a waits=2") != 1 ||
		!strings.Contains(out, "comm=flock") || strings.Count(out, "held-up-by=lock") != 2 {
		t.Errorf("the deadlock is told of as %s", out)
	}
}

// TestCrossedLocks: two resources and two shells of one host. The shells have the locks, their children wait.
func TestCrossedLocks(t *testing.T) {
	d := harness.Start(t, "lock")
	one, two := d.Shell(t), d.Shell(t)
	one.OK("touch $M/a $M/b")
	crossed(t, one, two)
}

// TestCrossedLocksOfTwoHosts: likewise, of two hosts. Both list it.
func TestCrossedLocksOfTwoHosts(t *testing.T) {
	hosts := harness.StartHosts(t, 2, long, "lock")
	one, two := hosts[0].Shell(t), hosts[1].Shell(t)
	one.OK("touch $M/a $M/b")
	until(two, "test -e $M/b")
	crossed(t, one, two)
	toldOf(t, one)
}

// TestNestedFlocks: `flock a flock b` against `flock b flock a`: the inner one has what the outer one holds.
func TestNestedFlocks(t *testing.T) {
	d := harness.Start(t, "lock")
	one, two := d.Shell(t), d.Shell(t)
	one.OK("touch $M/a $M/b")
	script := "flock $M/%1 sh -c 'touch %1.has; until test -e %2.has; do sleep 0.01; done; exec flock $M/%2 true'"
	dir := t.TempDir()
	at := func(first, second string) string {
		return "cd " + dir + "; " + strings.NewReplacer("%1", first, "%2", second).Replace(script)
	}
	x, y := one.Start(at("a", "b")), two.Start(at("b", "a"))
	codes := [2]int{x.Wait().Code, y.Wait().Code}
	if codes != [2]int{0, 65} && codes != [2]int{65, 0} {
		t.Errorf("they exit with %v", codes)
	}
	if out := one.OK("cat $M/.lockfs/deadlocks"); strings.Count(out, "deadlock time=") != 1 {
		t.Errorf("%s", out)
	}
}

// TestHeldUpElsewhere: who is in the way, on any host, and whose locks a waiting process inherited.
func TestHeldUpElsewhere(t *testing.T) {
	hosts := harness.StartHosts(t, 2, long, "lock")
	one, two, three := hosts[0].Shell(t), hosts[1].Shell(t), hosts[1].Shell(t)
	one.OK("touch $M/a $M/b; exec 8<$M/a; flock 8")
	until(two, "test -e $M/b")
	two.OK("exec 8<$M/b; flock 8")
	second := two.Start("flock $M/a true")
	second.Waits(waits)
	third := three.Start("flock $M/b true")
	third.Waits(waits)
	until(one, "cat $M/.lockfs/waiting/a/001.EX@host2:* | grep -q ^inherits=host2:")
	until(one, "cat $M/.lockfs/waiting/b/001.EX@host2:* | grep -q ^blocked-by=host2:")
	out := one.OK("cat $M/.lockfs/waiting/a/* $M/.lockfs/held/b/*")
	for _, want := range []string{"blocked-by=host1:", "comm=flock", "uid=0", "since=", "mode=EX", "pid="} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	one.OK("flock -u 8")
	if r := second.Wait(); r.Code != 0 {
		t.Error(r)
	}
	two.OK("flock -u 8")
	if r := third.Wait(); r.Code != 0 {
		t.Error(r)
	}
}
