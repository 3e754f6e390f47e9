package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// daemonEnv names, in the environment of this binary started again, the mounts to serve: VIEW:DIR, separated by commas.
const daemonEnv = "LOCKFS_TEST_MOUNTS"

// binaryEnv names a lockfs program to test instead.
const binaryEnv = "LOCKFS_TEST_BINARY"

// Program is what a client process does; it returns its exit code.
type Program func(args []string) int

// Main is for TestMain. In a process that was started as a daemon it serves, in one that was started as a client it runs
// one of the programs ("$C NAME ARG…" in a shell); else it runs the tests.
func Main(m *testing.M, programs map[string]Program) {
	if mounts := os.Getenv(daemonEnv); mounts != "" {
		os.Exit(serve(strings.Split(mounts, ",")))
	}
	if len(os.Args) > 2 && os.Args[1] == "client" {
		program, ok := programs[os.Args[2]]
		if !ok {
			fmt.Fprintf(os.Stderr, "no client program %q\n", os.Args[2])
			os.Exit(127)
		}
		os.Exit(program(os.Args[3:]))
	}
	os.Exit(m.Run())
}

// Daemon is a running daemon and its mounts.
type Daemon struct {
	Dir  string // of everything
	Lock string // the mount of view lock; likewise the others, empty if not asked for
	Posix,
	Dlmfs string

	t    testing.TB
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{}
	once sync.Once
}

// startTime, commandTime and stopTime bound what a test waits for.
const (
	startTime   = 20 * time.Second
	commandTime = 20 * time.Second
	stopTime    = 15 * time.Second
)

// Start starts a daemon with one mount for each view named ("lock", "posix", "dlmfs"), and stops it at the end of the
// test. It skips the test where FUSE cannot be used.
func Start(t testing.TB, views ...string) *Daemon {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs /dev/fuse and root")
	}
	dir, err := os.MkdirTemp("", "lockfs-test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // other users go through it
		t.Fatal(err)
	}
	d := &Daemon{Dir: dir, t: t, log: &logBuffer{}, done: make(chan struct{})}
	var mounts []string
	for _, view := range views {
		point := filepath.Join(dir, view)
		if err := os.Mkdir(point, 0o755); err != nil {
			t.Fatal(err)
		}
		switch view {
		case "lock":
			d.Lock = point
		case "posix":
			d.Posix = point
		case "dlmfs":
			d.Dlmfs = point
		default:
			t.Fatalf("no view %q", view)
		}
		mounts = append(mounts, view+":"+point)
	}
	t.Cleanup(d.stop)
	d.start(mounts)
	return d
}

func (d *Daemon) start(mounts []string) {
	d.t.Helper()
	if binary := os.Getenv(binaryEnv); binary != "" {
		args := []string{"mount", "--data-dir", filepath.Join(d.Dir, "data"), "--bind", "127.0.0.1:0", "--gossip", "127.0.0.1:0"}
		d.cmd = exec.Command(binary, append(args, mounts...)...)
	} else {
		self, err := os.Executable()
		if err != nil {
			d.t.Fatal(err)
		}
		d.cmd = exec.Command(self)
		d.cmd.Env = append(os.Environ(), daemonEnv+"="+strings.Join(mounts, ","))
	}
	d.cmd.Stderr = d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ready := make(chan struct{}, 1)
	go func() {
		defer close(d.done)
		lines := bufio.NewScanner(io.TeeReader(out, d.log))
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready") {
				ready <- struct{}{}
				break
			}
		}
		io.Copy(d.log, out)
		d.cmd.Wait()
	}()
	select {
	case <-ready:
	case <-d.done:
		d.t.Fatalf("the daemon ended before it was ready:\n%s", d.log)
	case <-time.After(startTime):
		d.t.Fatalf("the daemon is not ready after %v:\n%s", startTime, d.log)
	}
}

// PID is the daemon's.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log is what the daemon has written so far.
func (d *Daemon) Log() string { return d.log.String() }

// Kill kills the daemon as kill -9 does and waits until it is gone. Its mounts stay, dead.
func (d *Daemon) Kill() {
	d.cmd.Process.Kill()
	<-d.done
}

// stop ends the daemon and takes the mounts away, whatever hangs there.
func (d *Daemon) stop() {
	d.once.Do(func() {
		if d.cmd != nil && d.cmd.Process != nil {
			d.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-d.done:
			case <-time.After(stopTime):
				d.t.Errorf("the daemon did not stop within %v of SIGTERM", stopTime)
				d.cmd.Process.Signal(syscall.SIGQUIT) // for its goroutines
				select {
				case <-d.done:
				case <-time.After(time.Second):
				}
				d.Kill()
			}
		}
		for _, point := range []string{d.Lock, d.Posix, d.Dlmfs} {
			if point != "" {
				unix.Unmount(point, unix.MNT_DETACH)
			}
		}
		if d.t.Failed() {
			d.t.Logf("the daemon's log:\n%s", d.log)
		}
		os.RemoveAll(d.Dir)
	})
}

// hung is what a shell does when a time limit is passed: it kills the daemon, since only that frees a process that the
// kernel holds in a request.
func (d *Daemon) hung(what string) {
	d.t.Helper()
	d.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-d.done:
	case <-time.After(2 * time.Second):
	}
	d.Kill()
	d.t.Fatalf("still running after its time limit: %s\n%s", what, d.log)
}

// logBuffer collects what a daemon writes.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var _ fmt.Stringer = (*logBuffer)(nil)
