package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/lockfs/lockfs/cmd/exit"
)

func settings() (*Options, *pflag.FlagSet) {
	o, f := &Options{}, pflag.NewFlagSet("mount", pflag.ContinueOnError)
	o.Register(f)
	return o, f
}

// TestPrecedence: flag > environment > file > default, and an empty variable is none.
func TestPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "lockfs.toml")
	if err := os.WriteFile(file, []byte("name = \"file\"\ndrain = \"3s\"\nmax-nodes = 5000\nmax-value = \"2KiB\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"LOCKFS_CONFIG": file, "LOCKFS_NAME": "env", "LOCKFS_DRAIN": "2s", "LOCKFS_MAX_NODES": "", "LOCKFS_TOKEN": "7"}
	o, f := settings()
	if err := f.Parse([]string{"--name", "flag"}); err != nil {
		t.Fatal(err)
	}
	sources, err := load(f, func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	if o.Name != "flag" || o.Drain.Seconds() != 2 || o.MaxNodes != 5000 || o.MaxValue != 2<<10 || o.OpTimeout.Seconds() != 5 {
		t.Errorf("got %+v", o)
	}
	if sources["name"] != "" || sources["drain"] != "LOCKFS_DRAIN" || sources["max-nodes"] != file+":3: max-nodes" {
		t.Errorf("sources %v", sources)
	}
	l := o.clusterLimits(f.Changed)
	if l == nil || l.Nodes != 5000 || l.ValueLen != 2<<10 || l.Depth != 0 || l.Bytes != 0 {
		t.Errorf("limits %v", l)
	}
	if _, f := settings(); o.clusterLimits(f.Changed) != nil {
		t.Error("limits are set that nobody asked for")
	}
}

// TestEveryFlagHasAVariable that is no other's.
func TestEveryFlagHasAVariable(t *testing.T) {
	_, f := settings()
	seen := map[string]bool{"LOCKFS_MOUNT": true, "LOCKFS_PATH": true, "LOCKFS_TOKEN": true, "LOCKFS_MODE": true, "LOCKFS_FD": true}
	f.VisitAll(func(f *pflag.Flag) {
		if name := envName(f.Name); seen[name] {
			t.Errorf("%s is used twice", name)
		} else {
			seen[name] = true
		}
	})
}

func TestDefaultDataDir(t *testing.T) {
	for _, c := range []struct {
		uid         int
		state, home string
		want        string
	}{
		{0, "/s", "/root", "/var/lib/lockfs"},
		{1000, "/s", "/home/u", "/s/lockfs"},
		{1000, "relative", "/home/u", "/home/u/.local/state/lockfs"},
		{1000, "", "", ""},
	} {
		env := map[string]string{"XDG_STATE_HOME": c.state, "HOME": c.home}
		dir, err := defaultDataDir(c.uid, func(name string) string { return env[name] })
		if dir != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%+v: %q, %v", c, dir, err)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]size{"0": 0, "65536": 65536, "64K": 65536, "64KiB": 65536, "64k": 65536, "1GiB": 1 << 30, "2TiB": 2 << 40} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "-1", "1KB", "KiB", "1.5MiB", "9999999999TiB", "0x10"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q: %d", text, s)
		}
	}
}

// TestReadmeSettings: the file that the README gives for a real cluster is one that a daemon takes.
func TestReadmeSettings(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```toml\n")
	block, _, found := strings.Cut(rest, "```")
	file := filepath.Join(t.TempDir(), "lockfs.toml")
	if err := os.WriteFile(file, []byte(block), 0o600); err != nil || !found {
		t.Fatalf("%v, found %v", err, found)
	}
	o, f := settings()
	if err := f.Set("config", file); err != nil {
		t.Fatal(err)
	}
	if _, err := load(f, func(string) string { return "" }); err != nil {
		t.Fatal(err)
	}
	if err := o.complete([]string{"/nosuch/locks"}); err != nil {
		t.Fatal(err)
	}
	if o.Gossip != "10.0.0.1:7421" || len(o.Join) != 3 || o.Join[2] != "10.0.0.3:7421" {
		t.Errorf("gossip %s, join %v", o.Gossip, o.Join)
	}
}

// FuzzSettings: whatever a configuration file holds, it is read or refused with a usage error.
func FuzzSettings(f *testing.F) {
	f.Add([]byte("session-ttl = \"10s\"\nmax-nodes = 3\n"))
	f.Add([]byte("[a.b]\nc = 1\n[[d]]\n"))
	f.Add([]byte("\"na\\u006de\" = 1\nname = ["))
	f.Add([]byte("max-value = 1e400\nbind = nan"))
	file := filepath.Join(f.TempDir(), "lockfs.toml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		o, flags := settings()
		if err := flags.Set("config", file); err != nil {
			t.Fatal(err)
		}
		_, err := load(flags, func(string) string { return "" })
		if err == nil {
			err = o.complete([]string{"/nosuch/mount"})
		}
		var e *exit.Error
		if err != nil && (!errors.As(err, &e) || e.Code != exit.Usage || e.Error() == "") {
			t.Errorf("%q: %v", text, err)
		}
	})
}
