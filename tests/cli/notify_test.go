package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNotify: systemd is told when the mounts answer and when the daemon ends.
func TestNotify(t *testing.T) {
	needFUSE(t)
	bin := publicBinary(t)
	socket := filepath.Join(bin, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", socket)
	hears := func(want string) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		buffer := make([]byte, 1024)
		n, err := conn.Read(buffer)
		if err != nil || !strings.Contains(string(buffer[:n]), want) {
			t.Fatalf("told %q, %v; want %s", buffer[:n], err, want)
		}
	}
	d := &daemon{dir: t.TempDir(), mounts: filepath.Join(bin, "mounts"), path: bin + ":" + os.Getenv("PATH")}
	t.Cleanup(d.kill)
	if err := d.start(nil); err != nil {
		t.Fatal(err)
	}
	hears("READY=1")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	hears("STOPPING=1")
}
