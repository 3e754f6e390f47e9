package mount

import (
	"testing"

	"github.com/lockfs/lockfs/tests/harness"
)

// TestSpecialFiles: what a shell does with .lockfs/hosts, snapshot and control.
func TestSpecialFiles(t *testing.T) {
	s := harness.StartHosts(t, 1, long, "lock")[0].Shell(t) // which says itself what it was told
	s.OK("head -c 200000 /dev/urandom > $M/large")
	if out := s.OK("ls $M/.lockfs; ls $M/.lockfs/hosts"); out != "control\ndeadlocks\nevents\nheld\nhosts\nsnapshot\nstatus\nwaiting\nhost1\n" {
		t.Errorf("listing: %q", out)
	}
	s.OK("grep -qx session=[0-9]* $M/.lockfs/hosts/host1 && ! cat $M/.lockfs/hosts/nobody 2>/dev/null")
	s.OK("grep -Eqx digest=[0-9a-f]{64} $M/.lockfs/status && grep -Eqx index=[0-9]+ $M/.lockfs/status")

	s.OK("cp $M/.lockfs/snapshot $T/s1 && cat $M/.lockfs/snapshot > $T/s2 && dd if=$M/.lockfs/snapshot of=$T/s3 bs=777 status=none")
	s.OK("test $(stat -c %s $T/s1) -gt 200000 && test $(stat -c %s $T/s1) = $(stat -c %s $T/s2) && test $(stat -c %s $T/s1) = $(stat -c %s $T/s3)")
	s.OK("timeout 20 head -c 10 $M/.lockfs/snapshot >/dev/null && timeout 20 head -c 10 $M/.lockfs/snapshot >/dev/null && cat $M/.lockfs/snapshot >/dev/null")

	if out := s.OK("exec 9<>$M/.lockfs/control; echo leave now >&9; cat <&9; printf remo >&9; echo ve >&9; head -c 5 <&9; cat <&9; exec 9>&-"); out != "ok\ntold leave now\nok\ntold remove\n" {
		t.Errorf("control: %q", out)
	}
	s.OK("echo x > $M/.lockfs/control && ! echo > $M/.lockfs/control && ! rm $M/.lockfs/control 2>/dev/null && ! touch $M/.lockfs/x 2>/dev/null")
	for _, what := range []string{"cat $M/.lockfs/snapshot", "cat $M/.lockfs/control", "echo x > $M/.lockfs/control"} {
		s.Exits(1, "setpriv --reuid=65534 --regid=65534 --clear-groups bash -c '"+what+"' 2>/dev/null")
	}
	s.OK("setpriv --reuid=65534 --regid=65534 --clear-groups cat $M/.lockfs/hosts/host1 >/dev/null")
}
