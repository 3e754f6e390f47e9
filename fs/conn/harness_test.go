package conn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// Tests touch a mount only from child processes: the test binary runs itself with childKey set, and TestMain calls
// the function of that name. A child that hangs in the mount is killed and the connection aborted: every test has a
// hard limit.

const childKey = "LOCKFS_CONN_TEST_CHILD"

// children are the programs that tests run as their clients (and servers), by name. Their error is printed and makes
// them exit with 1; what they print on stdout is theirs.
var children = map[string]func(args []string) error{}

func TestMain(m *testing.M) {
	if name := os.Getenv(childKey); name != "" {
		if err := children[name](os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// limit is the hard limit of a child process and of everything else that might hang.
const limit = 20 * time.Second

// mounted is a testFS that is being served.
type mounted struct {
	*testing.T
	fs     *testFS
	loop   *Loop
	dir    string
	served chan error
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: mounting by mount(2) needs root")
	}
}

// serveTest mounts a testFS and serves it till the test ends, when everything must be gone.
func serveTest(t *testing.T, set func(*testFS, *Options)) *mounted {
	t.Helper()
	needRoot(t)
	before := goleak.IgnoreCurrent()
	m := &mounted{T: t, fs: newTestFS(), dir: t.TempDir(), served: make(chan error, 1)}
	o := Options{MountPoint: m.dir, AllowOther: true, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if set != nil {
		set(m.fs, &o)
	}
	c, err := Mount(o)
	if err != nil {
		t.Fatal(err)
	}
	m.loop = NewLoop(c, m.fs, m.fs)
	m.fs.loop = m.loop
	t.Cleanup(func() {
		within(t, "Close", func() { m.loop.Close() }, func() { c.Abort() })
		if err := <-m.served; err != nil {
			t.Error("Serve:", err)
		}
		if !m.fs.unmounted {
			t.Error("OnUnmount was not called")
		}
		goleak.VerifyNone(t, before)
	})
	go func() { m.served <- m.loop.Serve() }()
	select {
	case <-m.loop.Ready():
	case <-time.After(limit):
		t.Fatal("INIT is not answered")
	}
	return m
}

// within runs do and gives it the limit; then it calls rescue, and fails.
func within(t testing.TB, what string, do, rescue func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	select {
	case <-done:
	case <-time.After(limit):
		rescue()
		t.Errorf("%s: still not done after %v", what, limit)
		select {
		case <-done:
		case <-time.After(limit):
			panic(what + " hangs, even after the connection was aborted")
		}
	}
}

// child is a client process.
type child struct {
	m      *mounted
	cmd    *exec.Cmd
	what   string
	stdin  io.WriteCloser
	stdout syncBuffer
	stderr bytes.Buffer
	done   chan struct{}
	err    error
}

// start starts a child with its arguments.
func (m *mounted) start(name string, args ...string) *child {
	m.Helper()
	return m.run(selfCommand(name, args...), name+" "+strings.Join(args, " "))
}

// shell starts a shell script in the mount.
func (m *mounted) shell(script string) *child {
	m.Helper()
	cmd := exec.Command("/bin/sh", "-c", "cd "+m.dir+" && "+script)
	return m.run(cmd, script)
}

func selfCommand(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), childKey+"="+name)
	return cmd
}

func (m *mounted) run(cmd *exec.Cmd, what string) *child {
	m.Helper()
	c := &child{m: m, cmd: cmd, what: what, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &c.stdout, &c.stderr
	cmd.WaitDelay = time.Second
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		m.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.Fatal(err)
	}
	go func() { defer close(c.done); c.err = cmd.Wait() }()
	m.Cleanup(func() {
		cmd.Process.Kill()
		select {
		case <-c.done:
		case <-time.After(limit):
			m.loop.conn.Abort()
			m.Errorf("%s: hangs; the connection was aborted", c.what)
			<-c.done
		}
	})
	return c
}

// wait waits for the child to end and returns its output.
func (c *child) wait() (string, error) {
	c.m.Helper()
	select {
	case <-c.done:
	case <-time.After(limit):
		c.cmd.Process.Kill()
		c.m.loop.conn.Abort()
		<-c.done
		c.m.Fatalf("%s: no end after %v; the connection was aborted; output %q", c.what, limit, c.stdout.String())
	}
	return c.stdout.String(), c.err
}

// must waits for the child to end well and returns its output.
func (c *child) must() string {
	c.m.Helper()
	out, err := c.wait()
	if err != nil {
		c.m.Fatalf("%s: %v: %s%s", c.what, err, out, c.stderr.String())
	}
	return out
}

// says waits until the child has printed a text.
func (c *child) says(text string) {
	c.m.Helper()
	if !c.stdout.await(text, limit) {
		c.m.Fatalf("%s: it never said %q, only %q %s", c.what, text, c.stdout.String(), c.stderr.String())
	}
}

// sleeping waits until the child sleeps in the kernel, so that a signal finds it there.
func (c *child) running() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// await waits for a line in the file system's log.
func (m *mounted) await(prefix string) {
	m.Helper()
	if !m.fs.await(prefix, limit) {
		m.Fatalf("%q never happened; log %q", prefix, m.fs.log)
	}
}

// syncBuffer is a buffer that can be watched while it is written.
type syncBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *syncBuffer) await(text string, timeout time.Duration) bool {
	deadline := time.After(timeout)
	for {
		s.mu.Lock()
		if strings.Contains(s.b.String(), text) {
			s.mu.Unlock()
			return true
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			return false
		}
	}
}

// errnoName is how children print what a call answered.
func errnoName(err error) string {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// lockThread binds the goroutine to its thread and returns the thread's id.
func lockThread() int {
	runtime.LockOSThread()
	return unix.Gettid()
}

// after is what follows the first occurrence of text.
func (s *syncBuffer) after(text string) string {
	_, after, _ := strings.Cut(s.String(), text)
	return after
}
