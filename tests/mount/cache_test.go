package mount

import (
	"bufio"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/harness"
)

// TestUnchangedIsCached counts what reaches the daemon when the same is looked at again and again.
func TestUnchangedIsCached(t *testing.T) {
	d := harness.Start(t, "lock", "posix")
	s := d.Shell(t)
	s.OK("mkdir $M/d; for i in 1 2 3; do echo value$i > $M/d/f$i; done; sleep 1.2; cat $M/d/f1 $P/d/f1; ls $M/d $P/d")
	const n = 1000
	for _, test := range []struct {
		path, what string
		each       int // requests that each may take
	}{
		{"$M/d/f1", "stat", 0},
		{"$M/d/f1", "cat", 5}, // OPEN, READ, READ of the end, FLUSH, RELEASE
		{"$M/d", "list", 0},
		{"$M/d", "stat", 0},
		{"$M/d/.lock", "stat", 0},
		{"$P/d", "list", 0},
	} {
		before := d.Reads()
		s.OK(fmt.Sprintf("$C again %s %d %s", test.path, n, test.what))
		if took := d.Reads() - before; took > test.each*n+50 {
			t.Errorf("%s of %s: %d requests for %d times, want at most %d each", test.what, test.path, took, n, test.each)
		}
	}
}

func init() { programs["reread"] = reread }

// TestLockedReadIsFresh: under a flock a plain descriptor must never see a value older than the lock.
func TestLockedReadIsFresh(t *testing.T) {
	d := harness.Start(t, "lock", "posix")
	s := d.Shell(t)
	s.OK("echo v0 > $M/a; sleep 1.1; coproc R { exec $C reread $P/a; }")
	for i := range 5 {
		s.OK("sleep 1.1; cat $P/a >/dev/null; echo >&${R[1]}; read -u ${R[0]} v")
		s.OK("for n in {1..50}; do echo plain >&${R[1]}; read -u ${R[0]} v; done")
		s.OK(fmt.Sprintf("echo value%d > $M/a; echo >&${R[1]}; read -u ${R[0]} v; test $v = value%d", i, i))
	}
}

// reread PATH opens once, and for each line of its input reads the value anew and prints it: under a shared flock, or
// for the line "plain" without.
func reread(args []string) int {
	fd, err := open(args[0], unix.O_RDONLY)
	must(err)
	buf := make([]byte, 100)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() != "plain" {
			must(retry(func() error { return unix.Flock(fd, unix.LOCK_SH) }))
		}
		n, err := unix.Pread(fd, buf, 0)
		must(err)
		fmt.Print(string(buf[:n]))
		if in.Text() != "plain" {
			must(unix.Flock(fd, unix.LOCK_UN))
		}
	}
	return 0
}
