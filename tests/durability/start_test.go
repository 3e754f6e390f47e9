package durability

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// refuses wants a start to fail with an exit code and words to a person.
func refuses(t *testing.T, d *harness.Daemon, code int, words ...string) {
	t.Helper()
	r := d.Refuses()
	if r.Code != code {
		t.Errorf("exit code %d, want %d", r.Code, code)
	}
	for _, w := range words {
		if !strings.Contains(r.Out, w) {
			t.Errorf("it does not say %q:\n%s", w, r.Out)
		}
	}
	t.Logf("exit code %d: %s", r.Code, strings.TrimSpace(r.Out))
}

// TestSecondDaemon starts two daemons on one data directory.
func TestSecondDaemon(t *testing.T) {
	d := prepare(t)
	d.Start()
	a := actor.Start(t, d.Lock)
	a.Must("ok", "open f rdwr,creat a")
	second := harness.Prepare(t, harness.Options{Views: []string{"lock"}, Data: filepath.Join(d.Dir, "data")})
	refuses(t, second, 69, filepath.Join(d.Dir, "data"))
	a.Must("ok", "write f one", "close f")
	d.Kill()
	second.Start() // the lock is the kernel's: none is left behind
	if got := value(actor.Start(t, second.Lock), "a"); got != "one" {
		t.Errorf("the value is %s", got)
	}
}

// TestMountPoints starts daemons on mount points that will not do, and on one that will.
func TestMountPoints(t *testing.T) {
	t.Run("missing", func(t *testing.T) {
		d := prepare(t)
		if err := os.Remove(d.Lock); err != nil {
			t.Fatal(err)
		}
		refuses(t, d, 66, d.Lock)
	})
	t.Run("a file", func(t *testing.T) {
		d := prepare(t)
		if err := os.Remove(d.Lock); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.Lock, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refuses(t, d, 66, d.Lock)
	})
	t.Run("a living mount", func(t *testing.T) {
		d := prepare(t)
		d.Start()
		a := actor.Start(t, d.Lock)
		a.Must("ok", "open f rdwr,creat a")
		other := harness.Prepare(t, harness.Options{Views: []string{"lock"}})
		if err := os.Remove(other.Lock); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(d.Lock, other.Lock); err != nil {
			t.Fatal(err)
		}
		refuses(t, other, 71, other.Lock, "a living lockfs is mounted there", "stop its daemon or choose another directory")
		a.Must("ok", "write f x", "close f")
	})
	t.Run("not empty", func(t *testing.T) {
		d := prepare(t)
		if err := os.WriteFile(filepath.Join(d.Lock, "below"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		d.Start()
		a := actor.Start(t, d.Lock)
		a.Must("[]", "list .")
		a.Must("ok", "open f rdwr,creat a")
	})
	t.Run("stale, and busy", func(t *testing.T) {
		d := prepare(t)
		d.Start()
		a := actor.Start(t, d.Lock)
		a.Must("ok", "mkdir d", "open d rdonly,directory d", "open f rdonly,creat a")
		d.Kill()
		for range 3 { // the actor keeps the first mount busy
			d.Start()
			d.Kill()
		}
		d.Start()
		a.Must("ENOTCONN", "pread f 0 1")
		a.Must("[a d]", "list .")
		if r := d.Run(t, `grep -c " $T/lock " /proc/self/mountinfo`, 0); r.Out != "1\n" {
			t.Errorf("mounts at the mount point: %s", r.Out)
		}
	})
}
