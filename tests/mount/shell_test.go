package mount

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// The rows of the table "Exactly this, from a shell" of the first issue, in its order.

func TestSecondShellWaits(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("exec 9<>$M/a")
	p := b.Start("exec 9<>$M/a")
	p.Waits(waits)
	a.OK("exec 9>&-")
	if r := p.Soon(); r.Code != 0 {
		t.Errorf("exit code %d: %s", r.Code, r.Out)
	}
}

func TestFlockCommand(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("exec 9<>$M/a")
	b.Exits(1, "flock -n $M/a true")
	begin := time.Now()
	b.Exits(1, "flock -w 1 $M/a true")
	if took := time.Since(begin); took < 900*time.Millisecond {
		t.Errorf("flock -w 1 took %v", took)
	}
	a.OK("exec 9>&-")
	b.OK("flock -n $M/a true")
}

func TestHolderKilled(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b, c := d.Shell(t), d.Shell(t), d.Shell(t)
	a.OK("exec 9<>$M/a")
	p := b.Start("exec 9<>$M/a")
	q := c.Start("flock $M/a true")
	p.Waits(waits)
	a.Kill()
	if r := p.Soon(); r.Code != 0 {
		t.Errorf("open: exit code %d: %s", r.Code, r.Out)
	}
	b.Kill()
	if r := q.Soon(); r.Code != 0 {
		t.Errorf("flock: exit code %d: %s", r.Code, r.Out)
	}
}

func TestKilledWriterCommitsNothing(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("echo old > $M/a")
	s.OK(`coproc W { exec $C write-twice $M/a; }; read -u ${W[0]} line; test "$line" = written`)
	s.OK("kill -9 $W_PID; wait $W_PID; exec 8<>$M/a; exec 8>&-; true") // an open for EX waits for the holder's end
	if out := s.OK("cat $M/a"); out != "old\n" {
		t.Errorf("value after the kill: %q", out)
	}
	if out := s.OK("getfattr --absolute-names --only-values -n user.lockfs.valid $M/a"); out != "0" {
		t.Errorf("valid after the kill: %q", out)
	}
	s.OK("echo new > $M/a")
	if out := s.OK("getfattr --absolute-names --only-values -n user.lockfs.valid $M/a"); out != "1" {
		t.Errorf("valid after the next commit: %q", out)
	}
}

func TestHeirThatWroteNothingCommitsNothing(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("echo old > $M/a; mkfifo $T/go")
	p := a.Start("$C one-two $M/a < $T/go")
	b.OK("exec 7>$T/go")
	for range 20 {
		if out := b.OK("cat $M/a"); out != "old\n" {
			t.Fatalf("readers see %q before the close", out)
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.OK("exec 7>&-")
	if r := p.Wait(); r.Code != 0 || !strings.Contains(r.Out, "one") {
		t.Fatalf("writer: %d %s", r.Code, r.Out)
	}
	if out := b.OK("cat $M/a"); out != "ONETWO" {
		t.Errorf("value after the close: %q", out)
	}
}

func TestInterruptedWaiterIsGone(t *testing.T) {
	for _, how := range []string{"INT", "KILL"} {
		t.Run(how, func(t *testing.T) {
			d := harness.Start(t, "lock")
			a, b, c := d.Shell(t), d.Shell(t), d.Shell(t)
			a.OK("touch $M/a; exec 9<>$M/a@pr")
			p := b.Start("bash -c 'echo $$ > $T/pid; exec flock -x $M/a true'")
			p.Waits(waits)
			c.OK("kill -" + how + " $(cat $T/pid)")
			p.Soon()
			c.OK("test -z \"$(ls $M/.lockfs/waiting/a 2>/dev/null)\"")
			c.OK("flock -n -s $M/a true") // it would wait behind the EX
		})
	}
}

func TestInterruptedOpenIsGone(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b, c := d.Shell(t), d.Shell(t), d.Shell(t)
	a.OK("touch $M/a; exec 9<>$M/a@pr")
	p := b.Start("bash -c 'echo $$ > $T/pid; exec 9<>$M/a'")
	p.Waits(waits)
	c.OK("kill -KILL $(cat $T/pid)")
	p.Soon()
	c.OK("exec 9<>$M/a@pr")
}

func TestCompatibility(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("touch $M/a")
	modes := []string{"nl", "cr", "cw", "pr", "pw", "ex"}
	table := [][]int{ // OpenVMS, "Compatibility of Lock Modes"
		{1, 1, 1, 1, 1, 1},
		{1, 1, 1, 1, 1, 0},
		{1, 1, 1, 0, 0, 0},
		{1, 1, 0, 1, 0, 0},
		{1, 1, 0, 0, 0, 0},
		{1, 0, 0, 0, 0, 0},
	}
	const nonblock, eagain = 0o4000 | 2, 11
	for i, held := range modes {
		a.OK("exec 9<$M/a@" + held)
		for j, tried := range modes {
			want := 0
			if table[i][j] == 0 {
				want = eagain
			}
			b.Exits(want, fmt.Sprintf("$C open $M/a@%s %d", tried, nonblock))
		}
		a.OK("exec 9<&-")
	}
}

func TestValueIsReadWithoutWaiting(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	if out := a.OK("echo one > $M/a; cat $M/a"); out != "one\n" {
		t.Errorf("cat: %q", out)
	}
	b.OK("exec 9<>$M/a")
	if out := a.OK("cat $M/a"); out != "one\n" {
		t.Errorf("cat under another's EX: %q", out)
	}
}

func TestValueTooBig(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("echo old > $M/a")
	out := s.Exits(1, "dd if=/dev/zero of=$M/a bs=257K count=1")
	if !strings.Contains(out, "File too large") {
		t.Errorf("dd says %s", out)
	}
	if out := s.OK("cat $M/a"); out != "old\n" {
		t.Errorf("value: %q", out)
	}
	s.OK("dd if=/dev/zero of=$M/a bs=256K count=1 2>/dev/null; test $(stat -c %s $M/a) = 262144")
}

func TestNullLockDoesNotRead(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("echo one > $M/a; exec 9<$M/a@nl")
	if out := s.Exits(1, "cat <&9"); !strings.Contains(out, "Permission denied") {
		t.Errorf("cat says %s", out)
	}
	if out := s.OK("flock -s 9; cat <&9"); out != "one\n" {
		t.Errorf("cat after flock -s: %q", out)
	}
}

func TestConversionDeadlock(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("touch $M/a; exec 9<$M/a@pr")
	b.OK("exec 9<$M/a@pr")
	p := a.Start("flock -x 9")
	p.Waits(waits)
	q := b.Start("flock -x 9")
	if r := q.Soon(); r.Code != 65 {
		t.Errorf("the younger exits %d: %s", r.Code, r.Out)
	}
	p.Waits(waits)
	b.OK("exec 9<&-")
	if r := p.Soon(); r.Code != 0 {
		t.Errorf("the older exits %d: %s", r.Code, r.Out)
	}
}

func TestIntents(t *testing.T) {
	for _, name := range []string{"$M/db/.lock@ex", "$M/db@ex"} {
		t.Run(name, func(t *testing.T) {
			d := harness.Start(t, "lock")
			a, b := d.Shell(t), d.Shell(t)
			a.OK("mkdir -p $M/db/t; touch $M/db/t/r; exec 9<" + name)
			p := b.Start("exec 9<$M/db/t/r@cr")
			p.Waits(waits)
			a.OK("exec 9<&-")
			if r := p.Soon(); r.Code != 0 {
				t.Errorf("exit code %d: %s", r.Code, r.Out)
			}
		})
	}
}

func TestOwnLocksDoNotBlock(t *testing.T) {
	d := harness.Start(t, "lock")
	p, q := d.Shell(t), d.Shell(t)
	p.OK("mkdir $M/db; touch $M/db/x $M/db/y; exec 7<>$M/db/x")
	w := q.Start("exec 9<$M/db@ex")
	w.Waits(waits)
	p.OK("exec 8<>$M/db/y")
	p.OK("exec 9<$M/db@ex")
	w.Waits(waits)
	p.OK("exec 7>&- 8>&- 9<&-")
	if r := w.Soon(); r.Code != 0 {
		t.Errorf("exit code %d: %s", r.Code, r.Out)
	}
}

func TestRemove(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("exec 9<>$M/a")
	if out := b.Exits(1, "rm $M/a"); !strings.Contains(out, "Device or resource busy") {
		t.Errorf("rm says %s", out)
	}
	if out := b.Exits(1, "mv $M/a $M/b"); !strings.Contains(out, "Device or resource busy") {
		t.Errorf("mv says %s", out)
	}
	a.OK("exec 9>&-")
	b.OK("rm $M/a")
	b.OK("mkdir -p $M/d/e/f; touch $M/d/{1..50} $M/d/e/{1..50}; echo x > $M/d/e/f/g")
	if out := b.OK("ls -a $M/d/e/f"); out != ".\n..\ng\n" {
		t.Errorf("ls -a: %q", out)
	}
	b.OK("rm -r $M/d; test ! -e $M/d")
}

func TestRights(t *testing.T) {
	d := harness.Start(t, "lock")
	root, nobody := d.Shell(t), d.ShellAs(t, "nobody")
	root.OK("touch $M/a $M/g $M/w; chmod 644 $M/a; chmod 660 $M/g; chgrp nogroup $M/g; chmod 200 $M/w; chown nobody $M/w; echo v > $M/a; echo w > $M/w")
	nobody.OK("exec 9<$M/a@pr; exec 9<&-")
	nobody.OK("flock -s $M/a true")
	nobody.OK("flock -n -s $M/a cat $M/a")
	for _, open := range []string{"exec 9<$M/a@ex", "exec 9<>$M/a", "exec 9>$M/a"} {
		if out := nobody.Exits(1, "("+open+")"); !strings.Contains(out, "Permission denied") {
			t.Errorf("%s: %s", open, out)
		}
	}
	nobody.Exits(65, "exec 9<$M/a; flock -x 9")
	nobody.OK("exec 9<&-")
	nobody.OK("exec 9<>$M/g; exec 9>&-") // by the group
	nobody.OK("exec 9<$M/g@ex; exec 9<&-")
	nobody.OK("echo x > $M/w")
	nobody.OK("exec 9<$M/w@pw; exec 9<&-")
	nobody.Exits(1, "cat $M/w")
	if out := nobody.Exits(1, "exec 9<$M/w@pw; cat <&9"); !strings.Contains(out, "Permission denied") {
		t.Errorf("a write-only user reads: %s", out)
	}
	nobody.OK("exec 9<&-")
	nobody.Exits(1, "(exec 9<$M/w@pr)")
	root.OK("exec 9<>$M/w; cat <&9; flock -x 9; exec 9>&-")
	root.OK("touch $M/s; chgrp 12345 $M/s; chmod 664 $M/s")
	const other = "setpriv --reuid 2000 --regid 2000 "
	root.OK(other + "--groups 77,12345 bash -c 'exec 9<$M/s; flock -n -x 9'")
	root.Exits(65, other+"--groups 77 bash -c 'exec 9<$M/s; flock -n -x 9'")
	root.OK("unshare -pf bash -c 'exec 9<>$M/a; echo x >&9; exec 9>&-; flock -n $M/a true'") // another pid namespace
}

func TestTryAfterClose(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("touch $M/a; $C reclose $M/a 10000")
	s.OK("for i in {1..200}; do exec 9<>$M/a; exec 9>&-; flock -n $M/a true || exit 1; done")
}

func TestAliases(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("touch $M/x@zz; test -f $M/x@zz; ls $M | grep -qx x@zz")
	if out := s.Exits(1, "touch $M/y@ex"); !strings.Contains(out, "Invalid argument") {
		t.Errorf("touch says %s", out)
	}
	s.OK("touch $M/x")
	for _, do := range []string{"cat $M/x@ex,wait=soon", "mkdir $M/z@pr", "mv $M/x $M/x@ex", "mv $M/x@ex $M/y", "rm $M/x@ex"} {
		// mv(1) takes EINVAL for a move of a directory into itself
		if out := s.Exits(1, do); !strings.Contains(out, "Invalid argument") && !strings.Contains(out, "subdirectory of itself") {
			t.Errorf("%s says %s", do, out)
		}
	}
	s.OK("touch $M/x@ex; exec 9<$M/x@ex; exec 9<&-")
	if out := s.OK("ls $M"); out != "x\nx@zz\n" {
		t.Errorf("ls: %q", out)
	}
	b := d.Shell(t)
	b.OK("exec 9<>$M/x")
	begin := time.Now()
	if out := s.Exits(1, "cat $M/x@pr,wait=500ms"); !strings.Contains(out, "Connection timed out") {
		t.Errorf("cat says %s", out)
	}
	if took := time.Since(begin); took < 400*time.Millisecond {
		t.Errorf("wait=500ms took %v", took)
	}
}

func TestNamesAreNotHeldUp(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("mkdir $M/d; exec 9<>$M/d/busy")
	var waiting []*harness.Pending
	for range 4 {
		waiting = append(waiting, d.Shell(t).Start("exec 9<>$M/d/busy"))
	}
	waiting = append(waiting, d.Shell(t).Start("flock $M/d/busy true"))
	waiting[0].Waits(waits)
	var worst int
	fmt.Sscan(b.OK("$C names $M/d"), &worst)
	if worst > 5000 { // the waiter waits for much longer
		t.Errorf("a name took %d ms", worst)
	}
	for _, p := range waiting {
		p.Waits(time.Millisecond)
	}
}

func TestPollForBlocking(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	p := a.Start("$C pri $M/a")
	a2 := d.Shell(t)
	a2.OK("until test -e $M/a; do sleep 0.01; done")
	p.Waits(waits)
	q := b.Start("exec 9<>$M/a")
	r := p.Soon()
	if r.Code != 0 || !strings.Contains(r.Out, "revents 0x2") {
		t.Errorf("poll: %d %s", r.Code, r.Out)
	}
	q.Soon()
}

// TestRestartKeepsThePlace: flock(2) restarts by itself after a signal; who gets many is not overtaken for that.
func TestRestartKeepsThePlace(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b, c := d.Shell(t), d.Shell(t), d.Shell(t)
	a.OK("exec 9<>$M/a; mkfifo $T/order; exec 8<>$T/order")
	p := b.Start("$C signalled $M/a >$T/order")
	a.OK("read x <&8; sleep 0.2")
	q := c.Start("flock $M/a echo overtook >$T/order")
	q.Waits(waits)
	a.OK("exec 9>&-; read x <&8; read y <&8; test $x,$y = granted,overtook")
	p.Soon()
	q.Soon()
}
