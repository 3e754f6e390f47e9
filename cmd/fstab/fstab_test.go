package fstab

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestParse: what mount(8) gives, and the daemon's command line that it makes, or the error.
func TestParse(t *testing.T) {
	for _, c := range []struct{ args, want, err string }{
		{"lockfs /l -o rw", "mount /l", ""},
		{"lockfs /l -o rw,config=/etc/lockfs.toml,name=a", "mount --config=/etc/lockfs.toml --name=a /l", ""},
		{"lockfs /l -n -v -o defaults,_netdev,nofail,x-systemd.mount-timeout=infinity,X-x,comment=hi", "mount /l", ""},
		{"lockfs /l -o insecure,join=10.0.0.2,join=10.0.0.3:7", "mount --insecure=true --join=10.0.0.2 --join=10.0.0.3:7 /l", ""},
		{"lockfs /l -o view=posix,also=lock:/m,also=dlmfs:/d", "mount posix:/l lock:/m dlmfs:/d", ""},
		{"-o name=a lockfs -sn /l -o drain=1s", "mount --name=a --drain=1s /l", ""},
		{"lockfs /l -oname=a -N /proc/1/ns/mnt -t lockfs", "mount --name=a /l", ""},
		{"lockfs /l -so nosuch=1,name=a", "mount --name=a /l", ""},
		{"lockfs /l -o rw,user=foo,suid,dev", "mount /l", ""},
		{"lockfs /l -o noexec", "", "noexec: no such option"},
		{"lockfs /l -o nosuch=1", "", "nosuch: no such option"},
		{"lockfs /l -o ro", "", "ro: locks cannot"},
		{"lockfs /l -so ro", "mount /l", ""},
		{"lockfs /l -o remount,name=a", "", "umount and mount"},
		{"lockfs /l -o reset", "", "reset: no such option"},
		{"lockfs /l -o bind", "", "umount and mount"},
		{"lockfs /l -o bind=10.0.0.1:7420", "mount --bind=10.0.0.1:7420 /l", ""},
		{"lockfs /l -o view=nfs", "", "the views are"},
		{"lockfs /l -o name", "", "name: wants a value"},
		{"lockfs /l -o", "", "-o wants a value"},
		{"lockfs", "", "want SOURCE DIR"},
		{"lockfs /l /m", "", "want SOURCE DIR"},
		{"lockfs /l -x", "", "-x is no option"},
	} {
		r, err := parse(strings.Fields(c.args))
		got := ""
		if err == nil {
			got = strings.Join(r.argv(), " ")
		}
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v; want %q, %q", c.args, got, err, c.want, c.err)
		}
	}
}

// TestJournal: the log goes to journald with a header that says whose it is.
func TestJournal(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "stdout")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := openJournal(socket)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("a line\n")
	f.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	var got bytes.Buffer
	if _, err := got.ReadFrom(c); err != nil || got.String() != "lockfs\n\n6\n0\n0\n0\n0\na line\n" {
		t.Errorf("journald is told %q, %v", &got, err)
	}
	if _, err := openJournal(socket + ".nosuch"); err == nil {
		t.Error("a journal where there is none")
	}
}

func TestLogFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	for range 2 {
		f, err := openLog(name)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("x\n")
		f.Close()
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "x\nx\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := openLog("relative"); err == nil {
		t.Error("a log relative to nothing")
	}
}
