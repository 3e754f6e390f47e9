package durability

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// ttl is the time to live of sessions where it matters, and margin what a loaded machine may take beyond.
const (
	ttl    = 2 * time.Second
	margin = 30 * time.Second
)

func prepare(t *testing.T, args ...string) *harness.Daemon {
	t.Helper()
	return harness.Prepare(t, harness.Options{Views: []string{"lock", "posix", "dlmfs"}, Args: args})
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// TestOldSessionStands kills the daemon while a process holds a lock: the process may go on working under it, so the lock
// stands until the old session runs out.
func TestOldSessionStands(t *testing.T) {
	const ttl = 3 * ttl // a try may take a second, and must end before the session does
	d := prepare(t, "--session-ttl", ttl.String())
	d.Start()
	holder, other := actor.Start(t, d.Lock), actor.Start(t, d.Lock)
	holder.Must("ok", "open f rdwr,creat a")
	holder.Must("ok", "write f old")
	holder.Must("ok", "fsync f")
	holder.Must("ok", "open p rdwr,creat "+d.Posix+"/p")
	holder.Must("ok", "lock p w 0 10")
	token := number(holder.Do("token f"))
	d.Kill()
	killed := time.Now()
	d.Start()
	other.Must("EAGAIN", "open g rdwr,nonblock a")
	other.Must("ok", "open p rdwr "+d.Posix+"/p")
	other.Must("EAGAIN", "lock p w 5 1")
	other.Begin("open g rdwr a")
	if got, waits := other.Waits(); !waits {
		t.Fatalf("the lock of the old session is granted anew: %s", got)
	}
	if got := other.EndWithin(ttl + margin); got != "ok" {
		t.Fatalf("after the old session: %s", got)
	}
	stood := time.Since(killed)
	t.Logf("the lock stood for %v (time to live %v)", stood.Round(time.Millisecond), ttl)
	if stood < ttl*3/4 {
		t.Errorf("the old session's lock was granted after %v", stood)
	}
	other.Must("ok", "lockw p w 5 1")
	if now := number(other.Do("token g")); now <= token {
		t.Errorf("token %d after %d", now, token)
	}
	other.Must(`"old"`, "pread g 0 10")
	other.Must("0", "xattr a user.lockfs.valid")
	other.Must("ok", "write g new")
	other.Must("ok", "close g")
	other.Must("1", "xattr a user.lockfs.valid")

	// the process that holds the old descriptor has nothing but errors of it
	for _, call := range []string{"pread f 0 10", "pwrite f 0 x", "flock f sh", "token f", "fsync f", "lock f u 0 0"} {
		holder.Must("ENOTCONN", call)
	}
	holder.Must("[err]", "poll f in 5000")
	holder.Must("ENOTCONN", "close f")
	holder.Must(`"new"`, "open f rdonly a", "pread f 0 10")
}

// TestOldSessionEnds kills the daemon when nobody has its mounts open: the locks that it cached are free at once.
// (That could not be known if somebody had copied the mounts, and some process might not be looked at: see
// harness.OwnMounts.)
func TestOldSessionEnds(t *testing.T) {
	d := prepare(t, "--session-ttl", "30s", "--log-level", "debug")
	d.Start()
	a := actor.Start(t, d.Lock)
	a.Must("ok", "open f rdwr,creat a", "write f one", "close f")
	a.Must("ok", "open f rdwr,creat held", "write f two", "fsync f", "write f three")
	d.Kill()
	a.Kill()
	begin := time.Now()
	d.Start()
	b := actor.Start(t, d.Lock)
	b.Must("ok", "open f rdwr,nonblock held", "open g rdwr,nonblock a")
	if took := time.Since(begin); took > 25*time.Second {
		t.Errorf("it took %v", took)
	}
	b.Must(`"two"`, "pread f 0 10")
	b.Must(`"one"`, "pread g 0 10")
	b.Must("0", "xattr held user.lockfs.valid")
	b.Must("0", "xattr a user.lockfs.valid") // cached for EX is held for EX
}

// TestWaitersOfTheDead kills the daemon while calls wait in it: each returns, and so does whatever comes after.
func TestWaitersOfTheDead(t *testing.T) {
	d := prepare(t, "--session-ttl", ttl.String())
	d.Start()
	holder := actor.Start(t, d.Lock)
	holder.Must("ok", "open f rdwr,creat a", "open p rdwr,creat "+d.Posix+"/p", "lock p w 0 10", "mkdir "+d.Dlmfs+"/dom",
		"open d rdwr,creat "+d.Dlmfs+"/dom/l")
	waits := map[string][]string{
		"open g rdwr a":                     nil,
		"open g rdonly a@cr":                nil,
		"flock g ex":                        {"open g rdonly a"},
		"lockw g w 0 1":                     {"open g rdwr " + d.Posix + "/p"},
		"olockw g w 0 1":                    {"open g rdwr " + d.Posix + "/p"},
		"open g rdwr " + d.Dlmfs + "/dom/l": nil,
		"poll g pri 60000":                  {"open g rdwr,creat b"},
		"read g 100":                        {"open c rdwr,creat c", "open g rdonly c@events"},
	}
	actors := map[string]*actor.Actor{}
	for call, before := range waits {
		a := actor.Start(t, d.Lock)
		for _, b := range before {
			a.Must("ok", b)
		}
		a.Begin(call)
		actors[call] = a
	}
	for call, a := range actors {
		if got, waiting := a.Waits(); !waiting {
			t.Errorf("%s does not wait: %s", call, got)
			delete(actors, call)
		}
	}
	d.Kill()
	for call, a := range actors {
		switch got := a.EndWithin(time.Minute); got {
		case "ENOTCONN", "ECONNABORTED", "[err]", "[pri err]":
		default:
			t.Errorf("%s: %s", call, got)
		}
		a.Must("ENOTCONN", "open x rdwr a")
		a.Must("ENOTCONN", "mkdir x")
		a.Must("ENOTCONN", "statfs .")
	}
	d.Start() // on the stale mount points
	for _, a := range actors {
		a.Must("0", "size a")
	}
}

// TestLeaving ends the daemon by SIGTERM: what was held is valid, what was cached is, and all is free at once.
func TestLeaving(t *testing.T) {
	d := prepare(t, "--session-ttl", "30s")
	d.Start()
	a := actor.Start(t, d.Lock)
	a.Must("ok", "open f rdwr,creat a", "write f one")
	token := number(a.Do("token f"))
	a.Must("ok", "close f", "open f rdwr,creat b", "write f two", "close f")
	d.Signal(syscall.SIGTERM)
	if code := d.Ended(margin); code != 0 {
		t.Errorf("exit code %d", code)
	}
	d.Start()
	for file, want := range map[string]string{"a": `"one"`, "b": `"two"`} {
		a.Must("1", "xattr "+file+" user.lockfs.valid")
		a.Must("1", "xattr "+file+" user.lockfs.generation")
		a.Must("ok", "open f rdwr,nonblock "+file)
		a.Must(want, "pread f 0 10")
		if now := number(a.Do("token f")); now <= token {
			t.Errorf("token %d after %d", now, token)
		}
		a.Must("ok", "close f")
	}
}
