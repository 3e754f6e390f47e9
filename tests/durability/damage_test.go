package durability

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// contents is everything in a directory: names, modes, times and bytes.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, fi.Mode(), fi.ModTime().UnixNano(), fi.Size())
		if fi.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b.Write(data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// first is the first file of a pattern in a directory.
func first(t *testing.T, parts ...string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(parts...))
	if err != nil || len(list) == 0 {
		t.Fatalf("%v: none (%v)", parts, err)
	}
	slices.Sort(list)
	return list[0]
}

// edit changes a file's bytes.
func edit(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamage starts daemons on damaged data: they refuse, say what is wrong and what to do, and touch nothing. The package
// cluster has every kind of damage; here it is the program's messages and exit code.
func TestDamage(t *testing.T) {
	whole := prepare(t)
	whole.Start()
	a := actor.Start(t, whole.Lock)
	a.Must("ok", "open f rdwr,creat a")
	for i := range 80 { // 20 MiB: several segments of the log, and a snapshot
		a.Must("ok", fmt.Sprintf("fill f 0 x %d", 262000+i), "fsync f")
	}
	data := filepath.Join(whole.Dir, "data")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if list, _ := filepath.Glob(filepath.Join(data, "snapshots", "*[0-9]", "state.bin")); len(list) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no snapshot was taken")
		}
	}
	a.Must("ok", "close f")
	whole.Kill()
	middle := func(b []byte) []byte { b[bytes.LastIndexByte(b, 'x')/2] ^= 0x40; return b }
	for _, x := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		word   string
	}{
		{"a bit of the log", func(t *testing.T, dir string) { edit(t, first(t, dir, "log", "*.wal"), middle) }, "log/"},
		{"a log cut short", func(t *testing.T, dir string) {
			edit(t, first(t, dir, "log", "*.wal"), func(b []byte) []byte { return b[:bytes.LastIndexByte(b, 'x')/2] })
		}, "log/"},
		{"a segment that is missing", func(t *testing.T, dir string) {
			if err := os.Remove(first(t, dir, "log", "*.wal")); err != nil {
				t.Fatal(err)
			}
		}, "log"},
		{"a bit of the snapshot", func(t *testing.T, dir string) { edit(t, first(t, dir, "snapshots", "*[0-9]", "state.bin"), middle) }, "snapshots/"},
		{"a snapshot cut short", func(t *testing.T, dir string) {
			edit(t, first(t, dir, "snapshots", "*[0-9]", "state.bin"), func(b []byte) []byte { return b[:len(b)-10] })
		}, "snapshots/"},
		{"a snapshot that is missing", func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Dir(first(t, dir, "snapshots", "*[0-9]", "state.bin"))); err != nil {
				t.Fatal(err)
			}
		}, "snapshot"},
		{"a bit of the stable store", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "lockfs.db"), func(b []byte) []byte { // old pages have it too
				return bytes.ReplaceAll(b, []byte(`"cluster"`), []byte(`"clusteR"`))
			})
		}, "lockfs.db"},
		{"a stable store cut short", func(t *testing.T, dir string) {
			edit(t, filepath.Join(dir, "lockfs.db"), func(b []byte) []byte { return b[:5000] })
		}, "lockfs.db"},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			if out, err := exec.Command("cp", "-a", data, dir).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			x.damage(t, dir)
			before := contents(t, dir)
			d := harness.Prepare(t, harness.Options{Views: []string{"lock"}, Data: dir})
			refuses(t, d, 74, x.word, "nothing was changed", "restore", dir)
			if contents(t, dir) != before {
				t.Error("the data directory was changed")
			}
			if r := d.Run(t, `grep -c " $T/" /proc/self/mountinfo`, 0); r.Out != "0\n" {
				t.Error("it left a mount")
			}
		})
	}
	whole.Start() // and what is whole starts
	if a.Do("size a") != "262079" {
		t.Error("the whole one has lost its value")
	}
}
