package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/tests/harness"
)

func init() {
	programs["fresh"] = fresh
	programs["token"] = token
}

// until waits in a shell for what another host has done to be known on this one.
func until(s *harness.Shell, condition string) {
	s.OK("until " + condition + "; do sleep 0.02; done")
}

// long is a session's time to live that no test lives to see the end of.
const long = time.Hour

// TestTwoHosts: what is held on one host shuts out the other, a value is there when its lock is, tokens grow.
func TestTwoHosts(t *testing.T) {
	hosts := harness.StartHosts(t, 2, long, "lock")
	a, b, waiter := hosts[0].Shell(t), hosts[1].Shell(t), hosts[1].Shell(t)
	first := a.OK("exec 9<>$M/a; echo one >&9; $C token 9")
	until(b, "test -e $M/a")
	b.Exits(1, "exec 8<$M/a; flock -n 8")
	w := waiter.Start("exec 9<>$M/a; cat <&9; $C token 9")
	w.Waits(waits)
	until(b, "ls $M/.lockfs/waiting/a | grep -q ^001.EX@host2:")
	until(b, "ls $M/.lockfs/held/a | grep -q ^EX@host1:")
	b.OK("ls $M/.lockfs/hosts | tr '\\n' ' ' | grep -qx 'host1 host2 '")
	a.OK("exec 9>&-")
	r := w.Wait()
	value, second, _ := strings.Cut(strings.TrimSpace(r.Out), "\n")
	one, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 64)
	two, err2 := strconv.ParseUint(second, 10, 64)
	if err := errors.Join(err1, err2); err != nil || value != "one" || two <= one {
		t.Errorf("value %q, token %d after %d, %v", value, two, one, err)
	}
	waiter.OK("exec 9>&-")
	b.OK("flock -n 8 && flock -u 8")
	a.OK("exec 9<>$M/a && test $(cat <&9) = one")
}

// token FD prints the fencing token of a descriptor; the exit code is the errno.
func token(args []string) int {
	fd, err := strconv.Atoi(args[0])
	must(err)
	answer, err := ioc.TokenOf(fd)
	var errno unix.Errno
	if errors.As(err, &errno) {
		return int(errno)
	}
	must(err)
	fmt.Println(answer.Token)
	return 0
}

// TestCutHost: a host is cut off while it holds EX. What it had is lost before another host is granted it; healed, it
// goes on by itself.
func TestCutHost(t *testing.T) {
	hosts := harness.StartHosts(t, 2, 4*time.Second, "lock", "posix")
	poller := hosts[0].Shell(t)
	both := hosts[0].Shell(t) // holds on the one host, waits on the other
	both.OK("exec 9<>$M/a; echo -n precious >&9; touch $M/b; exec 7<$M/b; cat $M/b")
	poller.OK("exec 9<>$M/c")
	p := poller.Start("$C pollfd 9")
	w := both.Start("exec 8<>" + hosts[1].Lock + "/a; cat <&9; echo $?; $C token 9; echo $?; $C pollfd 9; cat $M/b; cat <&7; $C token 8 >/dev/null; echo $?")
	w.Waits(waits)
	hosts[0].Cut()
	want := "cat: -: Input/output error\n1\n5\nlost\ncat: " + hosts[0].Lock + "/b: Input/output error\ncat: -: Input/output error\n0\n"
	if r := w.Wait(); r.Out != want {
		t.Errorf("at the grant on the other host:\n%swant\n%s", r.Out, want)
	}
	if r := p.Wait(); !strings.Contains(r.Out, "lost") {
		t.Errorf("poll: %s", r.Out)
	}
	if out := both.OK("getfattr --absolute-names --only-values -n user.lockfs.valid " + hosts[1].Lock + "/a"); out != "0" {
		t.Errorf("the value that was held EX: valid=%s", out)
	}
	hosts[0].Heal()
	both.OK("exec 8>&- && exec 6<>$M/a && echo -n replaced >&6 && exec 6>&- && cat $M/b && cat <&7 && touch $M/new")
	both.Exits(1, "cat <&9")
	until(both, "test -e "+hosts[1].Lock+"/new")
	both.OK("test $(cat " + hosts[1].Lock + "/a) = replaced")
}

// TestStoppedDaemon: the daemon is stopped for longer than its session, with requests in its queue. What it answers when
// it goes on is not what was true before.
func TestStoppedDaemon(t *testing.T) {
	d := harness.StartShort(t, 3*time.Second, "lock", "posix")
	s := d.Shell(t)
	s.OK("echo -n old > $M/a; echo plain > $M/b; touch $M/c; exec 9<>$M/a 8<$M/b 7<>$P/c; flock 7; cat $M/b >/dev/null")
	asks := []struct{ command, want string }{
		{"cat <&9", "1"}, {"echo x >&9", "1"}, {"$C flockfd 9 try", "37"}, {"$C token 9", "5"}, {"$C pollfd 9 | grep -qx lost", "0"},
		{"$C flockfd 7 try", "37"}, {"cat <&7", "1"}, {"echo x >&7", "1"},
	}
	var script strings.Builder
	script.WriteString("for i in {1..3}; do\n")
	for i, ask := range asks {
		fmt.Fprintf(&script, "{ { %s; } >/dev/null 2>&1; test $? = %s || echo 'wrong: %d'; } &\n", ask.command, ask.want, i)
	}
	script.WriteString("done; wait")
	stop(t, d)
	p := s.Start(script.String())
	p.Waits(5 * time.Second)
	d.Signal(syscall.SIGCONT)
	if r := p.Wait(); r.Code != 0 || r.Out != "" {
		t.Errorf("after the stop: exit code %d\n%s%+v", r.Code, r.Out, asks)
	}
	s.OK("exec 6<>$M/a && echo -n new >&6 && exec 6>&- && cat <&8 && test $(cat $M/a) = new")
}

// stop stops the daemon and waits until all its threads are.
func stop(t *testing.T, d *harness.Daemon) {
	t.Helper()
	d.Signal(syscall.SIGSTOP)
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.PID()))
		if err != nil {
			t.Fatal(err)
		}
		running := 0
		for _, thread := range threads {
			if stat, err := os.ReadFile(thread); err == nil && !strings.Contains(string(stat), ") T ") {
				running++
			}
		}
		if running == 0 {
			return
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%d threads go on after SIGSTOP", running)
		}
	}
}

// TestSnapshotOnMount: a host that gets a snapshot in place of entries shows nothing of what its kernel has cached.
func TestSnapshotOnMount(t *testing.T) {
	hosts := harness.StartHosts(t, 2, long, "lock", "posix")
	a, b := hosts[0].Shell(t), hosts[1].Shell(t)
	a.OK("mkdir $M/d $M/e; for f in stays moves goes value mode swap1 swap2; do echo $f > $M/d/$f; done; setfattr -n user.x -v old $M/d/mode")
	look := "for m in $M $P; do ls $m $m/d $m/e; for f in stays moves goes value mode new swap1 swap2; do stat -c '%n %s %a %i' $m/d/$f; cat $m/d/$f; done 2>/dev/null; stat -c '%s' $m/e/moved; done 2>/dev/null; getfattr --absolute-names --only-values -n user.x $M/d/mode"
	until(b, "test $(getfattr --absolute-names --only-values -n user.x $M/d/mode 2>/dev/null) = old")
	before := b.OK(look + "; true")
	b.OK("exec 9<$P/d/value; cat <&9 >/dev/null; mkdir $M/mine") // the kernel knows more by now
	hosts[1].Deafen()
	a.OK("rm $M/d/goes; mv $M/d/moves $M/e/moved; echo longer value > $M/d/value; chmod 600 $M/d/mode; setfattr -n user.x -v new $M/d/mode")
	a.OK("echo n > $M/d/new; mv $M/d/swap1 $M/t; mv $M/d/swap2 $M/d/swap1; mv $M/t $M/d/swap2; mkdir $M/f; rm -r $M/f")
	if still := b.OK(look + "; true"); strings.Contains(still, "new") {
		t.Errorf("the host heard nothing, and yet it shows\n%s", still)
	}
	hosts[1].Restore()
	b.OK("exec 8<$M/d/stays") // the reply waits until the kernel was told
	after := b.OK(look + "; true")
	script := strings.NewReplacer("$M", hosts[0].Lock, "$P", hosts[0].Posix).Replace(look)
	want := strings.NewReplacer(hosts[0].Lock, hosts[1].Lock, hosts[0].Posix, hosts[1].Posix).Replace(a.OK(script + "; true"))
	if after != want || after == before {
		t.Errorf("after the snapshot\n%swant\n%s", after, want)
	}
	if out := b.OK("cat <&9"); out != " value\n" {
		t.Errorf("a descriptor of before, from its offset on: %q", out)
	}
}

// TestNamesAcrossHosts: what one host's kernel knows of absent names and listings goes with the log.
func TestNamesAcrossHosts(t *testing.T) {
	hosts := harness.StartHosts(t, 2, long, "lock")
	a, b := hosts[0].Shell(t), hosts[1].Shell(t)
	a.OK("mkdir $M/d")
	until(b, "test -e $M/d")
	for i := range 30 {
		b.OK(fmt.Sprintf("ls $M/d && ! test -e $M/d/x%d && stat $M/d >/dev/null", i))
		a.OK(fmt.Sprintf("touch $M/d/x%d", i))
		// A lock that was never held before comes through the log, and so after the name.
		if out := b.OK(fmt.Sprintf("exec 9<>$M/y%d; exec 9>&-; ls $M/d | grep -cx x%d; stat -c %%s $M/d/x%d", i, i, i)); out != "1\n0\n" {
			t.Fatalf("name %d: %q", i, out)
		}
		a.OK(fmt.Sprintf("rm $M/d/x%d", i))
		b.OK(fmt.Sprintf("exec 9<>$M/z%d; exec 9>&-; ! test -e $M/d/x%d && ! ls $M/d | grep -x x%d", i, i, i))
	}
}

// TestFreshNames: three hosts open the same new names at once. Nobody is told that one exists, but for O_EXCL, where one
// wins.
func TestFreshNames(t *testing.T) {
	const names = 1000
	hosts := harness.StartHosts(t, 3, long, "lock")
	for _, exclusive := range []bool{false, true} {
		var pending []*harness.Pending
		for _, d := range hosts {
			for range 2 {
				pending = append(pending, d.Shell(t).Start(fmt.Sprintf("$C fresh $M/n%v %d %v", exclusive, names, exclusive)))
			}
		}
		made := 0
		for _, p := range pending {
			r := p.Wait()
			n, err := strconv.Atoi(strings.TrimSpace(r.Out))
			if r.Code != 0 || err != nil {
				t.Fatalf("exclusive %v: %d %s", exclusive, r.Code, r.Out)
			}
			made += n
		}
		want := names * len(pending)
		if exclusive {
			want = names
		}
		if made != want {
			t.Errorf("exclusive %v: %d opens succeeded, want %d", exclusive, made, want)
		}
	}
}

// fresh PREFIX N EXCLUSIVE opens N names, which it makes if nobody has, and prints how many it got. Anything but EEXIST of
// an exclusive open is an error.
func fresh(args []string) int {
	n, err := strconv.Atoi(args[1])
	must(err)
	flags := unix.O_RDWR | unix.O_CREAT
	if args[2] == "true" {
		flags |= unix.O_EXCL
	}
	got := 0
	for i := range n {
		fd, err := open(fmt.Sprintf("%s%d", args[0], i), flags)
		if err == unix.EEXIST && flags&unix.O_EXCL != 0 {
			continue
		}
		must(err)
		got++
		must(unix.Close(fd))
	}
	fmt.Println(got)
	return 0
}

// TestCutOffHostCaches: names can be worked on in a directory of which a host that is cut off has cached locks: within
// their bound it is busy, and others go on.
func TestCutOffHostCaches(t *testing.T) {
	hosts := harness.StartHosts(t, 3, 8*time.Second, "lock")
	a, b, c := hosts[0].Shell(t), hosts[1].Shell(t), hosts[2].Shell(t)
	a.OK("mkdir $M/d $M/d/sub; for i in 1 2 3; do echo v > $M/d/f$i; done; exec 9<>$M/y; exec 9>&-")
	b.OK("exec 9<>$M/x; exec 9>&-; for i in 1 2 3; do exec 9<>$M/d/f$i; exec 9>&-; done; exec 9<>$M/d/sub/.lock; exec 9>&-")
	until(c, "test -e $M/d/sub")
	hosts[1].Cut()
	var busy []*harness.Pending
	for _, what := range []string{"rm $M/d/f1", "mv $M/d/f1 $M/d/g", "mv $M/d/f1 $M/d/f2", "rmdir $M/d/sub"} {
		busy = append(busy, hosts[0].Shell(t).Start(what))
	}
	c.OK("mkdir $M/d/c && touch $M/d/c/x && ls $M/d && rm -r $M/d/c")
	for _, p := range busy {
		if r := p.Wait(); r.Code == 0 || !strings.Contains(r.Out, "busy") {
			t.Fatalf("while the other's session lasts: %d %s", r.Code, r.Out)
		}
	}
	a.OK("mkdir $M/d/new && touch $M/d/file && rm $M/d/file && cat $M/d/f1")
	a.OK("until rm $M/d/f1 2>/dev/null; do sleep 0.1; done; mv $M/d/f2 $M/d/f3 && rmdir $M/d/sub") // its session ends
	hosts[1].Heal()
	until(b, "test ! -e $M/d/f1")
	b.OK("exec 9<>$M/d/f3 && cat <&9")
}

// TestStormBelow: three hosts take and drop CW below a directory without pause while a fourth waits for EX on it.
func TestStormBelow(t *testing.T) {
	hosts := harness.StartHosts(t, 4, long, "lock")
	last := hosts[3].Shell(t)
	last.OK("mkdir $M/d; touch $M/d/f1 $M/d/f2")
	var storms []*harness.Pending
	for i, d := range hosts[:3] {
		for k := range 2 {
			s := d.Shell(t)
			until(s, "test -e $M/d/f2")
			storms = append(storms, s.Start(fmt.Sprintf("while test ! -e $T/over; do exec 9<>$M/d/f%d@cw; exec 9>&-; done", 1+(i+k)%2)))
		}
	}
	for range 5 {
		last.OK("exec 9<>$M/d/.lock; sleep 0.1; exec 9>&-")
	}
	last.OK("touch $T/over")
	for _, p := range storms {
		if r := p.Wait(); r.Code != 0 {
			t.Errorf("storm: %d %s", r.Code, r.Out)
		}
	}
}
