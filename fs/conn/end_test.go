package conn

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// parkOpens starts some opens that wait at a gate.
func (m *mounted) parkOpens(n int) []*child {
	m.Helper()
	var parked []*child
	for range n {
		parked = append(parked, m.shell("exec 9>gate-a; echo opened"))
	}
	m.awaitParked(n)
	return parked
}

func (m *mounted) awaitParked(n int) {
	m.Helper()
	for deadline := time.Now().Add(limit); m.loop.Parked() != n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			m.Fatalf("%d handlers parked, not %d", m.loop.Parked(), n)
		}
	}
}

func (m *mounted) awaitEnd() {
	m.Helper()
	select {
	case <-m.loop.Done():
	case <-time.After(limit):
		m.loop.conn.Abort()
		m.Fatal("Serve is not over")
	}
}

// TestCloseWhileParked: the opens that wait end with an error, and Close returns.
func TestCloseWhileParked(t *testing.T) {
	m := serveTest(t, nil)
	holder := m.shell("exec 8<file-a; echo open; read x; cat <&8")
	holder.says("open")
	parked := m.parkOpens(8)
	within(t, "Close", func() {
		if err := m.loop.Close(); err != nil {
			t.Error(err)
		}
	}, func() { m.loop.conn.Abort() })
	m.awaitEnd()
	for _, c := range parked {
		if out, err := c.wait(); err == nil || strings.Contains(out, "opened") {
			t.Errorf("%v %q", err, out)
		}
	}
	holder.stdin.Write([]byte("\n"))
	if out, err := holder.wait(); err == nil || !strings.Contains(holder.stderr.String(), "not connected") {
		t.Errorf("a descriptor of a mount that is gone: %v %q %q", err, out, holder.stderr.String())
	}
	if first, second := m.loop.Alive(), m.loop.Alive(); !first || !second { // the second asks what the first began
		t.Error("a loop that has ended is alive")
	}
}

// TestUnmountWhileParked: unmounting is lazy; what is open goes on, and what waits gets its grant.
func TestUnmountWhileParked(t *testing.T) {
	m := serveTest(t, nil)
	parked := m.parkOpens(2)
	if err := m.loop.conn.Unmount(); err != nil {
		t.Fatal(err)
	}
	if err := m.loop.conn.Unmount(); err != nil {
		t.Error("a second time:", err)
	}
	if m.loop.Parked() != 2 {
		t.Errorf("%d parked after the unmount", m.loop.Parked())
	}
	m.fs.open("gate-a")
	for _, c := range parked {
		if got := c.must(); got != "opened\n" {
			t.Errorf("%q", got)
		}
	}
	m.awaitEnd() // by itself: the last user has gone
}

// TestAbort ends the connection from outside, without fusectl where that is not mounted.
func TestAbort(t *testing.T) { abort(t) }

func TestAbortByFusectl(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const connections = "/sys/fs/fuse/connections"
	if err := unix.Mount("fusectl", connections, "fusectl", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Skip("NOT TESTED: fusectl:", err)
	}
	abort(t)
}

// TestCloseUnmounted: somebody has taken the mount point away, and a program still has a file open.
func TestCloseUnmounted(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	const connections = "/sys/fs/fuse/connections"
	m := serveTest(t, nil)
	holder := m.shell("exec 8<file-a; echo open; read x; cat <&8")
	holder.says("open")
	if err := unix.Unmount(m.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(connections); err == nil && len(entries) == 0 {
		within(t, "Close", func() {
			if err := m.loop.Close(); err == nil {
				t.Error("it cannot have ended the connection")
			}
		}, func() {})
	}
	if err := unix.Mount("fusectl", connections, "fusectl", 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Skip("NOT TESTED: fusectl:", err)
	}
	within(t, "Close", func() {
		if err := m.loop.Close(); err != nil {
			t.Error(err)
		}
	}, func() { m.loop.conn.Abort() })
}

func abort(t *testing.T) {
	m := serveTest(t, nil)
	parked := m.parkOpens(4)
	if err := m.loop.conn.Abort(); err != nil {
		t.Fatal(err)
	}
	m.awaitEnd()
	for _, c := range parked {
		if _, err := c.wait(); err == nil {
			t.Error("opened although the connection was aborted")
		}
	}
}

// TestOpenFailed: an open that is granted after the connection was aborted is handed back.
func TestOpenFailed(t *testing.T) {
	m := serveTest(t, nil)
	m.fs.mu.Lock()
	m.fs.late = true
	m.fs.mu.Unlock()
	m.parkOpens(1)
	if err := m.loop.conn.Abort(); err != nil {
		t.Fatal(err)
	}
	m.fs.open("gate-a")
	m.awaitEnd()
	if len(m.fs.failed) != 1 || len(m.fs.handles) != 0 {
		t.Errorf("failed %v, handles %v", m.fs.failed, m.fs.handles)
	}
}

// TestCloseWhileNotifierHangs: the Notifier waits for a directory that the kernel holds for a MKNOD, which waits for us.
func TestCloseWhileNotifierHangs(t *testing.T) {
	m := serveTest(t, nil)
	c := m.start("poll", "poll", m.dir+"/poll-a", "1")
	m.await("poll poll-a flags=1")
	gate := make(chan struct{})
	m.fs.mu.Lock()
	m.fs.mknodGate = gate
	m.fs.mu.Unlock()
	maker := m.shell("echo x > new")
	m.await("mknod new")
	m.awaitParked(1)
	n := m.loop.Notifier()
	n.Entry(7, 1, "file-a", 0)
	if n.Settled(7) {
		t.Error("settled although it cannot have been written")
	}
	if !n.Settled(6) {
		t.Error("not settled up to the index before")
	}
	if n.Wait(7, nil, 50*time.Millisecond) {
		t.Error("the wait was for nothing: the directory is held")
	}
	// The wake-ups of polls are not held up.
	for _, h := range m.handles("poll-a") {
		kh, _ := h.waiters.Handle()
		m.fs.mu.Lock()
		h.ready = true
		m.fs.mu.Unlock()
		n.Poll(kh)
	}
	c.must()
	waited := make(chan bool)
	go func() { waited <- n.Wait(7, nil, limit) }()
	within(t, "Close", func() { m.loop.Close() }, func() { m.loop.conn.Abort() })
	if !<-waited {
		t.Error("Wait did not end with the Notifier")
	}
	maker.wait()
}

func (m *mounted) handles(name string) (handles []*testHandle) {
	m.fs.mu.Lock()
	defer m.fs.mu.Unlock()
	for _, h := range m.fs.handles {
		if h.file.name == name {
			handles = append(handles, h)
		}
	}
	return handles
}

// TestNotifierOnMount: what was cached is asked for again once Wait has returned, and not before.
func TestNotifierOnMount(t *testing.T) {
	m := serveTest(t, func(fs *testFS, _ *Options) { fs.valid = time.Hour })
	n := m.loop.Notifier()
	stat := func() string { t.Helper(); return m.shell("stat -c %s file-cached && cat file-cached").must() }
	set := func(data string) uint64 {
		m.fs.mu.Lock()
		defer m.fs.mu.Unlock()
		f := m.fs.file("file-cached")
		f.data, f.mtime = []byte(data), f.mtime+1
		return f.ino
	}
	ino := set("one\n")
	for range 3 {
		if got := stat(); got != "4\none\n" {
			t.Fatalf("%q", got)
		}
	}
	if n := m.fs.count("read"); n != 1 {
		t.Errorf("%d reads of what is cached", n)
	}
	set("three\n")
	if got := stat(); got != "4\none\n" {
		t.Errorf("before the invalidation: %q", got)
	}
	n.Inode(3, ino, 0, 0)
	if !n.Wait(3, nil, limit) {
		t.Fatal("not written")
	}
	if got := stat(); got != "6\nthree\n" {
		t.Errorf("after the invalidation: %q", got)
	}

	lookups := m.fs.count("lookup")
	stat()
	if m.fs.count("lookup") != lookups {
		t.Error("the name is not cached")
	}
	for i, drop := range []func(uint64){
		func(at uint64) { n.Entry(at, 1, "file-cached", 0) },
		func(at uint64) { n.Entry(at, 1, "file-cached", ExpireOnly) },
		func(at uint64) { n.Delete(at, 1, ino, "file-cached") },
		func(at uint64) { n.Entry(at, 1, "never heard of", 0) },
	} {
		at := uint64(10 + i)
		drop(at)
		if !n.Wait(at, nil, limit) {
			t.Fatal("not written")
		}
		before := m.fs.count("lookup")
		stat()
		if asked := m.fs.count("lookup") > before; asked != (i < 3) {
			t.Errorf("%d: looked up again: %v", i, asked)
		}
	}
}

// TestCacheEndsWithAttributes: pages are served no longer than the attributes are valid, without any invalidation; with
// ExplicitDataCache they are.
func TestCacheEndsWithAttributes(t *testing.T) {
	for _, explicit := range []bool{false, true} {
		m := serveTest(t, func(fs *testFS, o *Options) {
			fs.valid = 100 * time.Millisecond
			o.ExplicitDataCache = explicit
		})
		c := m.start("reread", m.dir+"/file-cached")
		c.says("0123\n")
		m.fs.mu.Lock()
		f := m.fs.file("file-cached")
		f.data, f.mtime = []byte(strings.ToUpper(strings.Repeat("x", len(testData)))), 2
		m.fs.mu.Unlock()
		time.Sleep(300 * time.Millisecond) // the attributes run out
		c.stdin.Write([]byte("\n\n"))
		want := "XXXX"
		if explicit {
			want = "0123"
		}
		if got := c.must(); got != "0123\n"+want+"\n" {
			t.Errorf("explicit %v: %q", explicit, got)
		}
	}
}

func init() {
	// reread PATH prints 4 bytes, and again after each line of stdin, through one descriptor.
	children["reread"] = func(args []string) error {
		fd, err := unix.Open(args[0], unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		b := make([]byte, 4)
		for range 2 {
			if _, err := unix.Pread(fd, b, 0); err != nil {
				return err
			}
			fmt.Println(string(b))
			unix.Read(0, make([]byte, 1))
		}
		return nil
	}
}
