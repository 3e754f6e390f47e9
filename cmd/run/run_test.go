package run

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/lockd/queue"
)

func TestParseWait(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0": 0, "5": 5 * time.Second, "0.25": 250 * time.Millisecond, "1e3": 1000 * time.Second, "5s": 5 * time.Second, "2m": 2 * time.Minute,
	} {
		if d, err := parseWait(s); err != nil || d != want {
			t.Errorf("%s: %v, %v", s, d, err)
		}
	}
	for _, s := range []string{"", "soon", "-1", "-5s", "NaN", "Inf", "1e300", "99999999999h"} {
		if d, err := parseWait(s); err == nil {
			t.Errorf("%q: %v", s, d)
		}
	}
}

func FuzzParseWait(f *testing.F) {
	for _, s := range []string{"5", "0.5", "5s", "1e9", "0x10", "-0", "9223372036"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseWait(s); err == nil && d < 0 {
			t.Errorf("%q: %v", s, d)
		}
	})
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args  string
		argv  string
		mode  queue.Mode
		never bool
		fails bool
	}{
		{args: "/l/a true x -n", argv: "true x -n", mode: queue.EX},
		{args: "-s /l/a -- true", argv: "true", mode: queue.PR},
		{args: "-m cw -n /l/a true", argv: "true", mode: queue.CW, never: true},
		{args: "-w 0 /l/a true", argv: "true", mode: queue.EX, never: true},
		{args: "-xn -E 7 /l/a true", argv: "true", mode: queue.EX, never: true},
		{args: "-x -m ex /l/a true", argv: "true", mode: queue.EX},
		{args: "/l/a -c true", argv: "SHELL -c true", mode: queue.EX},
		{args: "-c true /l/a", argv: "SHELL -c true", mode: queue.EX},
		{args: "-m pr 9", mode: queue.PR},
		{args: "-u 9", mode: queue.EX},
		{args: "-s -x /l/a true", fails: true},
		{args: "/l/a -c true more", fails: true},
		{args: "-c true /l/a more", fails: true},
		{args: "-F --on-blocking USR1 /l/a true", fails: true},
		{args: "--ttl -1s /l/a true", fails: true},
		{args: "/l/a", fails: true},
		{args: "--slots 3 /l/d -- true", argv: "true", mode: queue.EX},
		{args: "--slots 3 -x -w 0 /l/d -c true", argv: "SHELL -c true", mode: queue.EX, never: true},
		{args: "--slots 3 -m pw /l/d true", fails: true},
		{args: "--slots 3 --altpr /l/d true", fails: true},
		{args: "--slots 3 9", fails: true},
		{args: "--slots 3 -u 9", fails: true},
	} {
		t.Setenv("SHELL", "SHELL")
		cmd, o := newCommand()
		err := cmd.ParseFlags(strings.Fields(c.args))
		var argv []string
		if err == nil {
			argv, err = o.arguments(cmd.Flags().Args())
		}
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		if err == nil && (strings.Join(argv, " ") != c.argv || o.asked() != c.mode || o.waiting.Never != c.never) {
			t.Errorf("%s: %q, %v, never %v", c.args, argv, o.asked(), o.waiting.Never)
		}
	}
}

// TestSlotOrder: every slot once, and only those.
func TestSlotOrder(t *testing.T) {
	for _, n := range []int{1, 2, 7, maxSlots} {
		order := slotOrder("/l/d", n)
		if first := order[0]; order[n-1] != (first+n-2)%n+1 {
			t.Errorf("of %d: from %d to %d", n, first, order[n-1])
		}
		slices.Sort(order)
		if len(order) != n || len(slices.Compact(order)) != n || order[0] != 1 || order[n-1] != n {
			t.Errorf("of %d: %d from %d to %d", n, len(order), order[0], order[n-1])
		}
	}
	if order := without([]int{3, 1, 2}, []int{1, 9}); !slices.Equal(order, []int{3, 2}) {
		t.Errorf("without 1: %v", order)
	}
}

// lockLike is a descriptor that poll(2) finds quiet until it is lost: the end of a pipe.
func lockLike(t *testing.T) (h held, lose func()) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(ends[0]) })
	return held{fd: ends[0], path: "/l/a", mode: queue.EX, token: 7}, func() { unix.Close(ends[1]) }
}

func watchShell(h held, o *options, script string) error {
	return o.watch(h, "/bin/sh", []string{"sh", "-c", script}, environment(h, true))
}

func TestExitCodes(t *testing.T) {
	h, lose := lockLike(t)
	defer lose()
	for script, want := range map[string]int{"true": 0, "exit 3": 3, "kill -TERM $$": 128 + 15} {
		if err := watchShell(h, &options{}, script); exit.Code(err) != want {
			t.Errorf("%s: %v", script, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("LOCKFS_TOKEN", "of an outer run")
	t.Setenv("LOCKFS_FD", "99")
	h := held{fd: 5, path: "/l/a", mode: queue.PR, token: 7}
	for _, c := range []struct {
		inherits bool
		want     string
	}{{true, "LOCKFS_PATH=/l/a LOCKFS_TOKEN=7 LOCKFS_MODE=PR LOCKFS_FD=5"}, {false, "LOCKFS_PATH=/l/a LOCKFS_TOKEN=7 LOCKFS_MODE=PR"}} {
		var ours []string
		for _, s := range environment(h, c.inherits) {
			if strings.HasPrefix(s, "LOCKFS_") {
				ours = append(ours, s)
			}
		}
		if got := strings.Join(ours, " "); got != c.want {
			t.Errorf("got %q", got)
		}
	}
}

// TestLossEndsTheGroup: when the lock is lost, a child of the shell goes too, and one that ignores SIGTERM after
// the grace.
func TestLossEndsTheGroup(t *testing.T) {
	dir := t.TempDir()
	pids := filepath.Join(dir, "pids")
	if err := unix.Mkfifo(pids, 0o600); err != nil {
		t.Fatal(err)
	}
	h, lose := lockLike(t)
	o := &options{onLoss: lossAction{signal: unix.SIGTERM}, grace: 100 * time.Millisecond}
	result := make(chan error, 1)
	go func() {
		result <- watchShell(h, o, `(trap "" TERM; echo started > `+pids+`; while :; do sleep 60; done) & wait`)
	}()
	if _, err := os.ReadFile(pids); err != nil { // returns when the child has started
		t.Fatal(err)
	}
	lose()
	select {
	case err := <-result:
		if exit.Code(err) != exit.Lost || !strings.Contains(err.Error(), "the lock was lost") {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the command goes on")
	}
}

func TestLossIgnored(t *testing.T) {
	h, lose := lockLike(t)
	lose()
	o := &options{onLoss: lossAction{ignore: true}}
	if err := watchShell(h, o, "sleep 0.2; exit 5"); exit.Code(err) != 5 {
		t.Errorf("got %v", err)
	}
}

// TestSignalsAreHandedOn: a signal to this process reaches the command, which runs in a group of its own.
func TestSignalsAreHandedOn(t *testing.T) {
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready")
	if err := unix.Mkfifo(ready, 0o600); err != nil {
		t.Fatal(err)
	}
	h, lose := lockLike(t)
	defer lose()
	result := make(chan error, 1)
	go func() {
		result <- watchShell(h, &options{}, `trap 'exit 42' USR1; echo ready > `+ready+`; while :; do sleep 0.05; done`)
	}()
	if _, err := os.ReadFile(ready); err != nil {
		t.Fatal(err)
	}
	unix.Kill(os.Getpid(), unix.SIGUSR1)
	select {
	case err := <-result:
		if exit.Code(err) != 42 {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the signal did not arrive")
	}
}

func TestConflict(t *testing.T) {
	for _, c := range []struct {
		w    Waiting
		err  error
		code int
	}{
		{Waiting{Never: true, Code: 1}, unix.EAGAIN, 1},
		{Waiting{Code: 1}, unix.ETIMEDOUT, 1},
		{Waiting{Code: 9}, unix.ETIMEDOUT, 9},
		{Waiting{Code: 9}, unix.EDEADLK, exit.Refused},
		{Waiting{Code: 1}, unix.EIO, exit.Lost},
	} {
		err := c.w.Conflict("run", "/l/a", c.err)
		if exit.Code(err) != c.code {
			t.Errorf("%+v, %v: %v", c.w, c.err, err)
		}
		if c.w.Never && !errors.As(err, new(exit.Status)) {
			t.Errorf("a try says %v", err)
		}
	}
}
