package posix

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// start starts a daemon with the view posix, S being the directory of scripts in what it runs. The test is skipped
// without the programs named.
func start(t *testing.T, programs ...string) *harness.Daemon {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("NOT TESTED: needs %s", p)
		}
	}
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("S", dir)
	return harness.Start(t, "posix")
}

// run runs a script that must succeed.
func run(t *testing.T, d *harness.Daemon, script string, limit time.Duration) string {
	t.Helper()
	begin := time.Now()
	r := d.Run(t, script, limit)
	if r.Code != 0 {
		t.Fatalf("%s: exit code %d\n%s", script, r.Code, r.Out)
	}
	t.Logf("%v", time.Since(begin).Round(time.Millisecond))
	return r.Out
}

func TestGit(t *testing.T) {
	d := start(t, "git")
	run(t, d, "bash $S/git.sh", time.Minute)
}

// TestSqlite has two writers on one database.
func TestSqlite(t *testing.T) {
	d := start(t, "python3")
	for _, journal := range []string{"delete", "truncate", "persist"} {
		t.Run(journal, func(t *testing.T) {
			run(t, d, fmt.Sprintf("python3 $S/sqlite.py $P/%[1]s.db %[1]s 60 0", journal), time.Minute)
		})
	}
}

// TestSqliteWAL has them use a write-ahead log. It needs memory that is shared, and so works between processes of one host; and
// it must fit into the largest value: else a writer is told so, and nothing is lost.
func TestSqliteWAL(t *testing.T) {
	d := start(t, "python3")
	run(t, d, "python3 $S/sqlite.py $P/small.db wal 5 10", time.Minute)
	if r := d.Run(t, "python3 $S/sqlite.py $P/large.db wal 60 0", time.Minute); r.Code != 1 || !strings.Contains(r.Out, "disk I/O error") {
		t.Errorf("a log larger than the largest value: exit code %d\n%s", r.Code, r.Out)
	}
	d.Signal(syscall.SIGTERM)
	d.Ended(time.Minute)
	d.Start("--max-value", "4MiB")
	run(t, d, "python3 $S/sqlite.py $P/fits.db wal 60 50", time.Minute)
}

// TestLockFiles has processes count in turn under the locks of several programs: a number that is too small was
// counted on by two at a time.
func TestLockFiles(t *testing.T) {
	d := start(t, "python3")
	for _, kind := range []string{"apt", "dpkg", "filelock", "unlinked", "softlock"} {
		t.Run(kind, func(t *testing.T) {
			out := run(t, d, fmt.Sprintf(`set -e
mkdir $P/%[1]s
for w in 1 2 3 4; do python3 $S/count.py %[1]s $P/%[1]s 25 & pids="$pids $!"; done
for pid in $pids; do wait $pid; done
cat $P/%[1]s/number`, kind), time.Minute)
			if out != "100" {
				t.Errorf("counted %s, want 100", out)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	d := start(t, "python3")
	out := run(t, d, `set -e
for w in a b c d; do python3 $S/append.py $P/log $w 200 & pids="$pids $!"; done
for pid in $pids; do wait $pid; done
cat $P/log`, time.Minute)
	next := map[string]int{}
	for _, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
		who, _, _ := strings.Cut(line, " ")
		i := next[who]
		next[who]++
		if want := fmt.Sprintf("%s %d %s", who, i, strings.Repeat("x", i%50)); line != want {
			t.Fatalf("line %q, want %q", line, want)
		}
	}
	for _, who := range []string{"a", "b", "c", "d"} {
		if next[who] != 200 {
			t.Errorf("%d lines of %s", next[who], who)
		}
	}
}
