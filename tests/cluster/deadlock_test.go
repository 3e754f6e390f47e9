package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// party is a shell of a host that has something and then asks for something that another one has. Both are commands; the
// second ends with 0, or with 65 for EDEADLK. K, Q and W are a directory in the views lock and posix and one elsewhere.
type party struct {
	host       int
	has, wants string
	letsGo     string // "": what it has goes with the end of wants

	shell *harness.Shell
	waits *harness.Pending
}

// Pieces of parties.
const (
	takesA, takesB = "exec 8<$K/a 9<$K/b; flock 8", "exec 8<$K/b 9<$K/a; flock 8"
	lets           = "exec 8<&- 9<&-"

	// told is that the lock of descriptor 8 was told of the deadlock, before it goes.
	told = `until $BIN notices 8 | grep -q "^deadlock .*wanted="; do sleep 0.05; done; ` + lets

	// nested has the one and, as the child of who has it, asks for the other once both are taken.
	nested = `flock $K/%[1]s sh -c "touch $W/%[1]s; until [ -e $W/%[2]s ]; do sleep 0.02; done; exec flock $K/%[2]s true"`

	// ranged is a process with one thread that has a byte range, and asks for a lock once it may.
	ranged = `python3 $W/tangler.py r a & until [ -e $W/has ]; do sleep 0.02; done`

	// threaded is one whose other thread lets go after some seconds, or never.
	threaded = `python3 $W/tangler.py a b %s & until [ -e $W/has ]; do sleep 0.02; done`
	goes     = `touch $W/go; wait $!`
)

// tangler is a process that takes what its first argument names, a byte range or a lock, and asks for the second once the file `go` is
// there. With a third it has a thread more, which lets go of the first after so many seconds. Alone with a range it only asks for that.
const tangler = `
import errno, fcntl, os, sys, threading, time
K, Q, W = (os.environ[x] for x in "KQW")
def take(name):
    try:
        if name == "r":
            fd = os.open(Q + "/r", os.O_RDWR)
            fcntl.lockf(fd, fcntl.LOCK_EX, 5)
        else:
            fd = os.open(K + "/" + name, os.O_RDONLY)
            fcntl.flock(fd, fcntl.LOCK_EX)
        return fd
    except OSError as e:
        sys.exit(65 if e.errno == errno.EDEADLK else repr(e))
first = take(sys.argv[1])
if len(sys.argv) > 2:
    open(W + "/has", "w").close()
    while not os.path.exists(W + "/go"):
        time.sleep(0.02)
    if len(sys.argv) > 3:
        threading.Thread(target=lambda: (time.sleep(float(sys.argv[3])), os.close(first)), daemon=True).start()
    take(sys.argv[2])
`

// knots are where deadlocks come from. All are broken by one EDEADLK, of who came last if that is certain.
var knots = []struct {
	name    string
	parties []party
	anyone  bool // may be the victim, since they ask at the same time
}{
	{"crossed", []party{{host: 0, has: takesA, wants: "flock 9", letsGo: told}, {host: 1, has: takesB, wants: "flock 9", letsGo: told}}, false},
	{"one host", []party{{host: 2, has: takesA, wants: "flock 9", letsGo: told}, {host: 2, has: takesB, wants: "flock 9", letsGo: told}}, false},
	{"nested", []party{{host: 0, wants: fmt.Sprintf(nested, "a", "b")}, {host: 1, wants: fmt.Sprintf(nested, "b", "a")}}, true},
	{"ring", []party{
		{host: 0, has: takesA, wants: "flock 9", letsGo: told},
		{host: 1, has: "exec 8<$K/b 9<$K/c; flock 8", wants: "flock 9", letsGo: told},
		{host: 2, has: "exec 8<$K/c 9<$K/a; flock 8", wants: "flock 9", letsGo: told},
	}, false},
	{"conversions", []party{
		{host: 0, has: "exec 8<$K/a@pr", wants: "flock -x 8", letsGo: told},
		{host: 1, has: "exec 8<$K/a@pr", wants: "flock -x 8", letsGo: told},
	}, false},
	{"directory", []party{
		{host: 0, has: "exec 8<$K/d/x 9<$K/a; flock 8", wants: "flock 9", letsGo: told},
		{host: 1, has: "exec 8<$K/a; flock 8", wants: "flock $K/d/.lock true", letsGo: told},
	}, false},
	{"below a directory", []party{
		{host: 0, has: "exec 8<$K/d@ex 9<$K/a", wants: "flock 9", letsGo: told},
		{host: 1, has: "exec 8<$K/a; flock 8", wants: "flock -s $K/d/x true", letsGo: told},
	}, false},
	{"byte range", []party{
		{host: 0, has: ranged, wants: goes},
		{host: 1, has: "exec 8<$K/a; flock 8", wants: "python3 $W/tangler.py r", letsGo: told},
	}, false},
	{"behind another", []party{
		{host: 1, has: "exec 8<$K/a", wants: "flock 8", letsGo: lets},
		{host: 2, has: "exec 8<$K/b 9<$K/a; flock 8", wants: "flock -s 9", letsGo: told},
		{host: 0, has: "exec 8<$K/a 9<$K/b; flock -s 8", wants: "flock 9", letsGo: told},
	}, false},
	{"by time", []party{ // another thread could let go, and does not within the second of this host
		{host: 1, has: fmt.Sprintf(threaded, "1000"), wants: goes},
		{host: 1, has: takesB, wants: "flock 9", letsGo: told},
	}, false},
}

// stands are cycles that nobody is to break; the first lets go in the end.
var stands = []struct {
	name    string
	parties []party
}{
	{"a thread lets go", []party{
		{host: 0, has: fmt.Sprintf(threaded, "2"), wants: goes},
		{host: 2, has: takesB, wants: "flock 9", letsGo: lets},
	}},
	{"never by time", []party{
		{host: 2, has: fmt.Sprintf(threaded, "4"), wants: goes},
		{host: 2, has: takesB, wants: "flock 9", letsGo: lets},
	}},
	{"nodlckwt", []party{
		{host: 1, has: takesA, wants: "timeout 4 $BIN run --nodlckwt $K/b true; exec 8<&-"},
		{host: 1, has: takesB, wants: "flock 9", letsGo: lets},
	}},
	{"nodlckblk", []party{
		{host: 1, wants: "timeout 4 $BIN run --nodlckblk $K/a -- flock $K/b true"},
		{host: 1, has: takesB, wants: "flock 9", letsGo: lets},
	}},
}

// TestDeadlocks makes deadlocks and what looks like one on three hosts: what each has, and in which order they ask.
func TestDeadlocks(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("NOT TESTED: needs python3")
	}
	wait := []string{"10s", "1s", "0"}
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: long, Views: []string{"lock", "posix"}, Args: func(host int, _ string) []string {
		return []string{"--deadlock-wait", wait[host]}
	}})
	found := 0
	for i, k := range knots {
		t.Run(k.name, func(t *testing.T) {
			tie(t, c, fmt.Sprintf("knot%d", i), k.parties, !k.anyone)
			victim, r := first(k.parties)
			if r.Code != 65 || victim != len(k.parties)-1 && !k.anyone {
				t.Fatalf("party %d ends first, with %d: %s", victim, r.Code, r.Out)
			}
			others := slices.Delete(slices.Clone(k.parties), victim, victim+1)
			if lets := k.parties[victim].letsGo; lets != "" {
				for _, p := range others {
					p.waits.Waits(patience)
				}
				k.parties[victim].shell.OK(lets)
			}
			finish(t, others)
			found++
			for _, d := range c.Hosts {
				shows(t, d, found, len(k.parties))
			}
		})
	}
	for i, k := range stands {
		tie(t, c, fmt.Sprintf("stands%d", i), k.parties, true)
	}
	for _, k := range stands {
		t.Run(k.name, func(t *testing.T) { finish(t, k.parties) })
	}
	shows(t, c.Hosts[0], found, len(knots[len(knots)-1].parties))
}

// patience is how long somebody waits at least who is said to wait.
const patience = 200 * time.Millisecond

// tie gives each what it has and lets all ask, in order if they are to.
func tie(t *testing.T, c *harness.Cluster, dir string, parties []party, ordered bool) {
	t.Helper()
	work := t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "tangler.py"), []byte(tangler), 0o644); err != nil {
		t.Fatal(err)
	}
	for i := range parties {
		p := &parties[i]
		p.shell = c.Hosts[p.host].Shell(t)
		p.shell.OK(fmt.Sprintf("export K=$M/%[1]s Q=$P/%[1]s W=%[2]s", dir, work))
		if i == 0 {
			p.shell.OK("mkdir $K $K/d && touch $K/a $K/b $K/c $K/r $K/d/x")
		}
		p.shell.OK("until [ -e $K/d/x ]; do sleep 0.02; done")
		p.shell.OK(p.has)
	}
	for i := range parties {
		parties[i].waits = parties[i].shell.Start(parties[i].wants)
		if i == len(parties)-1 || !ordered {
			continue
		}
		harness.Until(t, limit, fmt.Sprintf("%d who wait", i+1), func() (string, bool) {
			out := c.Hosts[0].Run(t, "ls -R $M/.lockfs/waiting/"+dir, 0).Out
			return out, strings.Count(out, "@") > i
		})
	}
}

// first waits for the first whose request is answered.
func first(parties []party) (int, harness.Result) {
	var waits []*harness.Pending
	for _, p := range parties {
		waits = append(waits, p.waits)
	}
	return harness.First(waits...)
}

// finish lets everybody go on as soon as it can, and then let go. None may be told of a deadlock.
func finish(t *testing.T, parties []party) {
	t.Helper()
	for len(parties) > 0 {
		i, r := first(parties)
		if r.Code == 65 {
			t.Errorf("one more is told of a deadlock, which asked for %s: %s", parties[i].wants, r.Out)
		}
		if parties[i].letsGo != "" {
			parties[i].shell.OK(parties[i].letsGo)
		}
		parties = slices.Delete(slices.Clone(parties), i, i+1)
	}
}

// shows waits until a host lists so many deadlocks, the last of them in full.
func shows(t *testing.T, d *harness.Daemon, deadlocks, waits int) {
	t.Helper()
	harness.Until(t, limit, fmt.Sprintf("%d deadlocks, the last of %d", deadlocks, waits), func() (string, bool) {
		out := d.Run(t, "cat $M/.lockfs/deadlocks", 0).Out
		last := out[max(strings.LastIndex(out, "deadlock time="), 0):]
		return out, strings.Count(out, "deadlock time=") == deadlocks &&
			strings.Contains(last, fmt.Sprintf(" waits=%d\n", waits)) && strings.Count(last, "\nwait by=") == waits
	})
}
