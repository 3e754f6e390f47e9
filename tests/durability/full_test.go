package durability

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// small makes a file system of its own for a data directory.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "size="+size); err != nil {
		t.Skipf("NOT TESTED: needs a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// ballast fills a file system but for so many bytes.
func ballast(t *testing.T, dir, name string, leave int64) string {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if size := int64(st.Bfree)*st.Bsize - leave; size > 0 {
		if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
	return path
}

// becomes makes calls again and again until one has that result, or the time is over.
func becomes(t *testing.T, a *actor.Actor, want, call string) {
	t.Helper()
	var got string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = a.Do(call); got == want {
			return
		}
	}
	t.Fatalf("%s: %s, want %s", call, got, want)
}

// TestFullDisk fills the disk of the data directory: what grows is refused with ENOSPC, and reads, releases, locks and
// removals go on, past the time to live of the session; with room again all goes on.
func TestFullDisk(t *testing.T) {
	dir := small(t, "40m")
	d := harness.Prepare(t, harness.Options{
		Views: []string{"lock", "posix"}, Data: filepath.Join(dir, "data"), Args: []string{"--session-ttl", ttl.String()},
	})
	d.Start()
	holder, a, p := actor.Start(t, d.Lock), actor.Start(t, d.Lock), actor.Start(t, d.Posix)
	a.Must("ok", "open f rdwr,creat a", "write f one", "close f", "mknod gone")
	p.Must("ok", "open f rdwr,creat p", "write f one")
	holder.Must("ok", "open f rdwr a")

	first := ballast(t, dir, "ballast", 2<<20)
	becomes(t, p, "ENOSPC", "pwrite f 0 one") // the room is looked at every now and then
	a.Must("ENOSPC", "mknod new")
	a.Must("ENOSPC", "mkdir new")
	a.Must("ENOSPC", "open g rdwr,creat new")
	p.Must("ENOSPC", "pwrite f 0 two")
	holder.Must("ENOSPC", "pwrite f 0 two")
	holder.Must("ENOSPC", "fsync f")
	second := ballast(t, dir, "more", 0)
	a.Must(`"one"`, "open r rdonly a", "pread r 0 10")
	a.Must("EAGAIN", "flock r ex,nb")
	holder.Do("close f") // the error of its write, and the lock is free
	a.Must("ok", "flock r ex,nb", "flock r un")
	a.Must("ok", "unlink gone")
	for begin := time.Now(); time.Since(begin) < ttl*3/2; time.Sleep(100 * time.Millisecond) {
		a.Must("ok", "open g rdwr a", "close g", "flock r sh", "flock r un")
	}
	a.Must(`"one"`, "pread r 0 10")

	for _, path := range []string{first, second} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	becomes(t, a, "ok", "mknod new")
	a.Must("ok", "open g rdwr a", "pwrite g 0 two", "close g")
	p.Must("ok", "pwrite f 0 two")
	d.Kill()
	d.Start()
	if got := value(a, "a"); got != "two" {
		t.Errorf("the value is %s", got)
	}
	if got := value(p, "p"); got != "two" {
		t.Errorf("the value through the view posix is %s", got)
	}
}
