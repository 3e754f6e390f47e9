package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// TestSnapshot saves a snapshot while the cluster works, and restores it as a new cluster, which other hosts then join: names,
// values and attributes are there, no lock is, and tokens are larger than any that the old one gave.
func TestSnapshot(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{Hosts: 2, TTL: ttl})
	a, b := c.Hosts[0], c.Hosts[1]
	x, y := actor.Start(t, a.Lock), actor.Start(t, b.Lock)
	x.Must("ok", "mkdir d", "open f rdwr,creat d/a", "write f one", "fsync f", "open g rdwr,creat d/b", "write g two", "close g", "chmod 600 d/b")
	token := number(x.Do("token f"))
	becomes(t, y, "ok", "open f rdonly d/b")
	b.Run(t, `setfattr -n user.note -v text $M/d/b`, 0)
	dir := t.TempDir()
	file := filepath.Join(dir, "saved")
	save := `LOCKFS_MOUNT=$M $BIN snapshot save ` + file
	if r := b.Run(t, save, 0); r.Code != 0 {
		t.Fatalf("save: %+v", r)
	}
	y.Must("ok", "mknod d/later")
	anew := harness.PrepareCluster(t, harness.ClusterOptions{Hosts: 2, TTL: ttl})
	restored := anew.Hosts[0]
	restore := func(from string) harness.Result {
		return restored.Run(t, `$BIN snapshot restore `+from+` --data-dir $T/data`, 0)
	}
	t.Run("damaged", func(t *testing.T) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, bad := range map[string][]byte{
			"flipped": append(append(append([]byte{}, text[:len(text)/2]...), text[len(text)/2]^1), text[len(text)/2+1:]...),
			"short":   text[:len(text)-1],
			"empty":   nil,
		} {
			bent := filepath.Join(dir, name)
			if err := os.WriteFile(bent, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if r := restore(bent); r.Code == 0 || !strings.Contains(r.Out, name) {
				t.Errorf("%s: %+v", name, r)
			}
			if r := restored.Run(t, `ls -A $T/data`, 0); r.Code == 0 && r.Out != "" {
				t.Errorf("%s: it left %s", name, r.Out)
			}
		}
	})
	if r := restore(file); r.Code != 0 {
		t.Fatalf("restore: %+v", r)
	}
	if r := restore(file); r.Code == 0 {
		t.Error("restored over a data directory that is in use")
	}
	restored.Start()
	if old, now := a.Status()["cluster"], restored.Status()["cluster"]; old == now {
		t.Error("the new cluster has the old one's id")
	}
	z := actor.Start(t, restored.Lock)
	z.Must("[a b]", "list d")
	z.Must("ok", "open f rdwr,nonblock d/a") // which the old cluster still holds
	z.Must(`"one"`, "pread f 0 10")
	z.Must("0", "xattr d/a user.lockfs.valid")
	z.Must(`"two"`, "open g rdonly d/b", "pread g 0 10")
	z.Must("text", "xattr d/b user.note")
	if now := number(z.Do("token f")); now < token+1<<36 {
		t.Errorf("token %d after %d", now, token)
	}
	if r := restored.Run(t, `stat -c %a $M/d/b; ls $M/.lockfs/hosts`, 0); r.Out != "600\na\n" {
		t.Errorf("mode and hosts: %q", r.Out)
	}
	anew.Hosts[1].Start() // and others join it
	wants(t, restored, 2, 0)
	actor.Start(t, anew.Hosts[1].Lock).Must("[a b]", "list d")
}
