package mount

import (
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// TestLost is DESIGN 1.8: what becomes of descriptors when the lease ends.
func TestLost(t *testing.T) {
	d := harness.StartShort(t, 3*time.Second, "lock", "posix")
	const eagain, enolck = 11, 37
	holder, flocked, plain, waiter, poller := d.Shell(t), d.Shell(t), d.Shell(t), d.Shell(t), d.Shell(t)
	plain.OK("echo value > $M/a; echo other > $M/b; touch $M/c; exec 8<$M/b; cat $M/b >/dev/null; sleep 3.1; cat $M/b > /dev/null")
	holder.OK("exec 9<>$M/a; echo -n new >&9")
	flocked.OK("exec 9<$M/b; flock 9")
	poller.OK("exec 9<>$M/c")
	p := poller.Start("$C pollfd 9")
	w := waiter.Start("exec 9<>$M/a")
	w.Waits(waits)

	d.Cut()
	if r := p.Wait(); r.Code != 0 || !strings.Contains(r.Out, "lost") {
		t.Errorf("poll of a lost lock: %d %s", r.Code, r.Out)
	}
	if out := holder.Exits(1, "cat <&9"); !strings.Contains(out, "Input/output error") {
		t.Errorf("read of a lost descriptor: %s", out)
	}
	if out := holder.Exits(1, "echo x >&9"); !strings.Contains(out, "Input/output error") {
		t.Errorf("write of a lost descriptor: %s", out)
	}
	holder.Exits(enolck, "$C flockfd 9 try")
	holder.Exits(enolck, "$C flockfd 9 unlock")
	flocked.Exits(enolck, "$C flockfd 9 try")
	plain.Exits(eagain, "$C flockfd 8 try") // without quorum, but nothing is lost
	if out := flocked.Exits(1, "cat <&9"); !strings.Contains(out, "Input/output error") {
		t.Errorf("read of a descriptor whose flock is lost: %s", out)
	}
	if out := plain.Exits(1, "cat <&8"); !strings.Contains(out, "Input/output error") {
		t.Errorf("read without a lock after the lease: %s", out)
	}
	if out := plain.Exits(1, "cat $M/b"); !strings.Contains(out, "Input/output error") {
		t.Errorf("cat after the lease: %s", out)
	}
	if out := plain.Exits(1, "touch $M/new"); !strings.Contains(out, "Input/output error") {
		t.Errorf("touch after the lease: %s", out)
	}
	w.Waits(waits)

	d.Heal()
	if r := w.Wait(); r.Code != 0 { // a wait outlasts the session
		t.Errorf("the waiter: %d %s", r.Code, r.Out)
	}
	waiter.OK("exec 9>&-")
	if out := holder.Exits(1, "cat <&9"); !strings.Contains(out, "Input/output error") {
		t.Errorf("a lost descriptor came back: %s", out)
	}
	plain.OK("cat <&8; touch $M/new; test $(cat $M/b) = other")
	flocked.OK("flock -u 9; flock -n 9; cat <&9; exec 9<&-")
	if out := plain.OK("cat $M/a"); out != "newue\n" {
		t.Errorf("value: %q", out)
	}
}
