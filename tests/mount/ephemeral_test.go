package mount

import (
	"testing"

	"github.com/lockfs/lockfs/tests/harness"
)

// TestEphemeral: a file below an ephemeral directory is gone when the call that let go of its last lock has returned.
func TestEphemeral(t *testing.T) {
	hosts := harness.StartHosts(t, 2, long, "lock")
	s, other := hosts[0].Shell(t), hosts[1].Shell(t)
	s.OK("mkdir $M/e; setfattr -n user.lockfs.ephemeral -v 1 $M/e")
	until(other, "test -e $M/e")
	s.OK("for i in {1..100}; do exec 9<>$M/e/f && test -e $M/e/f && exec 9>&- && test ! -e $M/e/f || { echo $i; exit 1; }; done")
	s.OK("for i in {1..100}; do exec 9<>$M/e/f && ls $M/e | grep -q f && exec 9>&- && test -z \"$(ls $M/e)\" || { echo $i; exit 1; }; done")
	s.OK("for i in {1..100}; do exec 9<>$M/e/f && exec 9>&- && exec 9<>$M/e/f && test -e $M/e/f && exec 9>&- || { echo $i; exit 1; }; done")
	s.OK("for i in {1..100}; do mkdir $M/d && setfattr -n user.lockfs.ephemeral -v 1 $M/d && exec 9<>$M/d/f && exec 9>&- && rmdir $M/d || { echo $i; exit 1; }; done")
	s.OK("exec 9<>$M/e/kept && exec 8<$M/e/kept@nl && exec 9>&- && test -e $M/e/kept && exec 8<&- && test ! -e $M/e/kept")
	s.OK("exec 9<>$M/e/held; echo v >&9")
	w := other.Start("exec 9<>$M/e/held; cat <&9")
	w.Waits(waits)
	until(s, "ls $M/.lockfs/waiting/e/held 2>/dev/null | grep -q .")
	s.OK("exec 9>&-; test -e $M/e/held")
	if r := w.Wait(); r.Out != "v\n" {
		t.Errorf("the waiter reads %q", r.Out)
	}
	other.OK("exec 9>&- && test ! -e $M/e/held && exec 7<>$M/e/new; exec 7>&-")
	until(s, "rmdir $M/e 2>/dev/null") // the other host's file goes when this one hears of it
}
