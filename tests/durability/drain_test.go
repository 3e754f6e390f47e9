package durability

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// ended wants the daemon to end by itself with 0 and its mounts to be gone.
func ended(t *testing.T, d *harness.Daemon, limit time.Duration) {
	t.Helper()
	if code := d.Ended(limit); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if r := d.Run(t, `grep -c " $T/" /proc/self/mountinfo; ls -A $M`, 0); r.Out != "0\n" {
		t.Errorf("what is left of the mounts: %s", r.Out)
	}
}

// TestDrain ends the daemon by SIGTERM while locks are held: it takes no new ones, waits until the holders have let go,
// and the work that they do until then stands.
func TestDrain(t *testing.T) {
	d := prepare(t, "--drain", "60s")
	d.Start()
	holder, waiter, other := actor.Start(t, d.Lock), actor.Start(t, d.Lock), actor.Start(t, d.Lock)
	holder.Must("ok", "open f rdwr,creat a", "write f one")
	other.Must("ok", "open g rdwr,creat b", "close g", "open g rdonly b")
	waiter.Begin("open f rdwr a")
	if got, waits := waiter.Waits(); !waits {
		t.Fatal(got)
	}
	d.Signal(syscall.SIGTERM)
	if got := waiter.EndWithin(margin); got != "ENOLCK" {
		t.Errorf("who waits is told %s", got)
	}
	other.Must("ENOLCK", "open f rdwr b")
	other.Must("ENOLCK", "flock g sh")
	other.Must("ENOLCK", "open p rdwr "+d.Posix+"/b", "lock p w 0 1")
	other.Must(`""`, "pread g 0 10") // reading and working on names goes on
	other.Must("ok", "mkdir d", "rmdir d")
	other.Must("ok", "close g", "close p")
	holder.Must("[]", "poll f err 0")
	holder.Must("ok", "pwrite f 0 two", "fsync f", "close f")
	ended(t, d, margin)
	d.Start()
	if got := value(other, "a"); got != "two" {
		t.Errorf("the value is %s", got)
	}
	other.Must("1", "xattr a user.lockfs.valid")
}

// TestDrainEnds has a holder that does not let go: when its time is over it is told that the lock is lost.
func TestDrainEnds(t *testing.T) {
	const drain = 1500 * time.Millisecond
	d := prepare(t, "--drain", drain.String())
	d.Start()
	holder := actor.Start(t, d.Lock)
	holder.Must("ok", "open f rdwr,creat a", "write f one", "fsync f", "write f two")
	begin := time.Now()
	d.Signal(syscall.SIGTERM)
	holder.Begin(fmt.Sprintf("poll f pri %d", (drain + margin).Milliseconds()))
	switch got := holder.EndWithin(drain + margin); got {
	case "[err hup]", "[err]", "[pri err hup]":
	default:
		t.Errorf("poll of a lock that is lost: %s", got)
	}
	if took := time.Since(begin); took < drain {
		t.Errorf("the holder had only %v", took)
	}
	ended(t, d, margin)
	for _, call := range []string{"write f three", "fsync f"} {
		if got := holder.Do(call); got != "ENOTCONN" && got != "EIO" {
			t.Errorf("%s: %s", call, got)
		}
	}
	holder.Do("close f")
	d.Start()
	if got := value(holder, "a"); got != "one" {
		t.Errorf("the value is %s", got)
	}
	holder.Must("ok", "open f rdwr,nonblock a")
}

// TestDrainHurried does not wait for the holders after a second signal.
func TestDrainHurried(t *testing.T) {
	d := prepare(t, "--drain", "60s")
	d.Start()
	holder := actor.Start(t, d.Lock)
	holder.Must("ok", "open f rdwr,creat a")
	d.Signal(syscall.SIGINT)
	holder.Must("[]", "poll f pri 300")
	d.Signal(syscall.SIGTERM)
	ended(t, d, margin)
}
