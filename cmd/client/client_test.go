package client

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockd/queue"
)

func TestParseMounts(t *testing.T) {
	const mountinfo = `23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
80 23 0:50 / /locks rw,nosuid,nodev - fuse.lockfs lockfs rw,user_id=0,group_id=0
81 23 0:51 / /mnt/with\040space rw - fuse.lockfs lockfs rw
82 23 0:52 / /tmp/x rw - fuse.sshfs host: rw
83 23 0:50 /db /srv/db rw - fuse.lockfs lockfs rw
short line
`
	mounts, err := parseMounts(strings.NewReader(mountinfo))
	if err != nil || len(mounts) != 3 {
		t.Fatalf("got %+v, %v", mounts, err)
	}
	for _, c := range []struct {
		path, point, rel string
		ok               bool
	}{
		{"/locks", "/locks", "", true},
		{"/locks/db/orders", "/locks", "db/orders", true},
		{"/lockset", "", "", false},
		{"/mnt/with space/a", "/mnt/with space", "a", true},
		{"/srv/db/orders", "/srv/db", "db/orders", true},
		{"/tmp/x/a", "", "", false},
	} {
		m, rel, ok := within(mounts, c.path)
		if m.Point != c.point || rel != c.rel || ok != c.ok {
			t.Errorf("%s: got %q, %q, %v", c.path, m.Point, rel, ok)
		}
	}
}

func TestParseEntry(t *testing.T) {
	for _, c := range []struct {
		name  string
		place int
		mode  queue.Mode
		who   string
		ok    bool
	}{
		{"EX@host1:4711", 0, queue.EX, "host1:4711", true},
		{"001.PR@host2:99", 1, queue.PR, "host2:99", true},
		{"1000.CW@a.b.c:1#12", 1000, queue.CW, "a.b.c:1", true},
		{"NL@host1:4711#2", 0, queue.NL, "host1:4711", true},
		{"002.PR.10-14@host1:1#2", 2, queue.PR, "host1:1", true},
		{"EX.100-@a.b:7", 0, queue.EX, "a.b:7", true},
		{"XX@host1:4711", 0, 0, "", false},
		{"EX@host1", 0, 0, "", false},
		{"EX@host1:x", 0, 0, "", false},
		{"orders", 0, 0, "", false},
	} {
		l, ok := parseEntry(c.name)
		if ok != c.ok || ok && (l.Place != c.place || l.Mode != c.mode || l.Who() != c.who) {
			t.Errorf("%s: got %+v, %v", c.name, l, ok)
		}
	}
}

func TestParseWords(t *testing.T) {
	kind, fs := ParseWords(`blocking mode=EX wanted=PR by=host2:4711 comm=my\040tool path=/db/orders token=42` + "\n")
	out, err := json.Marshal(fs)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"mode":"EX","wanted":"PR","by":"host2:4711","comm":"my tool","path":"/db/orders","token":42}`
	if kind != "blocking" || string(out) != want {
		t.Errorf("got %s %s", kind, out)
	}
}

func FuzzParseWords(f *testing.F) {
	f.Add(`blocking mode=EX comm=x\377\4`)
	f.Add(`a =`)
	f.Fuzz(func(t *testing.T, line string) {
		_, fs := ParseWords(line)
		if out, err := json.Marshal(fs); err != nil || !json.Valid(out) {
			t.Errorf("%q: %s, %v", line, out, err)
		}
	})
}

func TestParseSignal(t *testing.T) {
	for _, s := range []string{"USR1", "SIGUSR1", "usr1", "10"} {
		if sig, ok := ParseSignal(s); !ok || sig != unix.SIGUSR1 {
			t.Errorf("%s: %v, %v", s, sig, ok)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "NOSUCH"} {
		if sig, ok := ParseSignal(s); ok {
			t.Errorf("%s: %v", s, sig)
		}
	}
}
