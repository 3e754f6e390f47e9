package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// daemonEnv names, in the environment of this binary started again, the mounts to serve: VIEW:DIR, separated by commas, of
// several hosts separated by semicolons.
const daemonEnv = "LOCKFS_TEST_MOUNTS"

// binaryEnv names a lockfs program to test instead.
const binaryEnv = "LOCKFS_TEST_BINARY"

// Binary is the lockfs program that is tested, see MainBuilt.
func Binary() string { return os.Getenv(binaryEnv) }

// Program is what a client process does; it returns its exit code.
type Program func(args []string) int

// Main is for TestMain. In a process that was started as a daemon it serves, in one that was started as a client it runs
// one of the programs ("$C NAME ARG…" in a shell); else it runs the tests.
func Main(m *testing.M, programs map[string]Program) {
	if mounts := os.Getenv(daemonEnv); mounts != "" {
		os.Exit(serve(strings.Split(mounts, ";")))
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

// MainBuilt is Main for tests of the lockfs program itself: unless LOCKFS_TEST_BINARY names one, it is built first.
func MainBuilt(m *testing.M, programs map[string]Program) {
	if len(os.Args) > 2 && os.Args[1] == "client" || os.Getenv(binaryEnv) != "" {
		Main(m, programs)
	}
	dir, err := os.MkdirTemp("", "lockfs-built")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := func() int {
		defer os.RemoveAll(dir)
		binary := filepath.Join(dir, "lockfs")
		if out, err := exec.Command("go", "build", "-o", binary, "github.com/lockfs/lockfs/cmd/lockfs").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		os.Setenv(binaryEnv, binary)
		return m.Run()
	}()
	os.Exit(code)
}

// Daemon is a running daemon and its mounts.
type Daemon struct {
	Dir  string // of everything
	Lock string // the mount of view lock; likewise the others, empty if not asked for
	Posix,
	Dlmfs string

	t      testing.TB
	o      Options
	mounts []string // VIEW:DIR
	peers  []*Daemon
	host   int // which of the hosts that the process serves, from 1
	cmd    *exec.Cmd
	in     io.Writer     // commands to a daemon of this binary
	did    chan struct{} // a token for each that was carried out
	log    *logBuffer
	ready  <-chan struct{} // has a token when the process is ready
	done   chan struct{}   // closed when the process is gone
	paused bool
	once   sync.Once
}

// startTime, commandTime and stopTime bound what a test waits for.
const (
	startTime   = 60 * time.Second
	commandTime = 60 * time.Second
	stopTime    = 60 * time.Second
)

// Options are what a daemon is started with.
type Options struct {
	Views  []string // one mount each: lock, posix, dlmfs
	Data   string   // data directory of the program (MainBuilt); default: one of the test's own
	Bind   string   // address of the program; default: a free port on loopback
	Prefix []string // command that starts the program, as nsenter(1), in its own place
	Args   []string // more flags of the program
}

// Start starts a daemon with one mount for each view named ("lock", "posix", "dlmfs"), and stops it at the end of the
// test. It skips the test where FUSE cannot be used.
func Start(t testing.TB, views ...string) *Daemon {
	t.Helper()
	d := Prepare(t, Options{Views: views})
	d.Start()
	return d
}

// Prepare makes the directories of a daemon that is not started yet.
func Prepare(t testing.TB, o Options) *Daemon {
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
	if o.Data == "" {
		o.Data = filepath.Join(dir, "data")
	}
	if o.Bind == "" {
		o.Bind = "127.0.0.1:0"
	}
	d := &Daemon{Dir: dir, t: t, o: o, host: 1, log: &logBuffer{}}
	d.makeMounts("")
	t.Cleanup(d.stop)
	return d
}

// makeMounts makes the mount points of a host.
func (d *Daemon) makeMounts(suffix string) {
	t := d.t
	for _, view := range d.o.Views {
		point := filepath.Join(d.Dir, view+suffix)
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
		d.mounts = append(d.mounts, view+":"+point)
	}
}

// Start starts the daemon, again if it has ended, and waits until it is ready. More flags can be given for this time.
func (d *Daemon) Start(args ...string) {
	d.t.Helper()
	d.Launch(args...)
	d.Ready(startTime)
}

// Launch starts the daemon and does not wait; see Ready.
func (d *Daemon) Launch(args ...string) {
	d.t.Helper()
	d.ready = d.launch(args)
}

// Ready waits until the daemon that was launched is ready.
func (d *Daemon) Ready(limit time.Duration) {
	d.t.Helper()
	select {
	case <-d.ready:
	case <-d.done:
		d.t.Fatalf("the daemon ended before it was ready:\n%s", d.log)
	case <-time.After(limit):
		d.t.Fatalf("the daemon is not ready after %v:\n%s", limit, d.log)
	}
}

// IsReady reports whether the daemon that was launched has said that it is ready, and nobody has waited for it.
func (d *Daemon) IsReady() bool { return len(d.ready) > 0 }

// NotReady fails the test if the daemon that was launched is ready, or ends, within d.
func (d *Daemon) NotReady(limit time.Duration) {
	d.t.Helper()
	select {
	case <-d.ready:
		d.t.Fatalf("the daemon is ready, should wait:\n%s", d.log)
	case <-d.done:
		d.t.Fatalf("the daemon ended, should wait:\n%s", d.log)
	case <-time.After(limit):
	}
}

// Refuses starts the daemon, which must end by itself before it is ready, and returns its exit code and what it said.
func (d *Daemon) Refuses(args ...string) Result {
	d.t.Helper()
	before := len(d.Log())
	ready := d.launch(args)
	select {
	case <-ready:
		d.t.Fatalf("the daemon is ready, should refuse to start:\n%s", d.log)
	case <-d.done:
	case <-time.After(startTime):
		d.t.Fatalf("the daemon neither starts nor ends within %v:\n%s", startTime, d.log)
	}
	return Result{Out: d.Log()[before:], Code: d.cmd.ProcessState.ExitCode()}
}

// launch starts the process. The channel gets a token when it is ready.
func (d *Daemon) launch(args []string) (ready <-chan struct{}) {
	d.t.Helper()
	if binary := os.Getenv(binaryEnv); binary != "" {
		all := slices.Concat(d.o.Prefix, []string{binary, "mount", "--data-dir", d.o.Data, "--bind", d.o.Bind}, d.o.Args, args, d.mounts)
		d.cmd = exec.Command(all[0], all[1:]...)
	} else {
		self, err := os.Executable()
		if err != nil {
			d.t.Fatal(err)
		}
		d.cmd = exec.Command(self)
		hosts := strings.Join(d.mounts, ",")
		for _, p := range d.peers {
			hosts += ";" + strings.Join(p.mounts, ",")
		}
		d.cmd.Env = append(os.Environ(), daemonEnv+"="+hosts)
		if d.in, err = d.cmd.StdinPipe(); err != nil {
			d.t.Fatal(err)
		}
		d.did = make(chan struct{}, 1)
	}
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // when the test is killed
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	said, done, cmd := make(chan struct{}, 1), make(chan struct{}), d.cmd
	d.done = done
	go func() {
		defer close(done)
		lines := bufio.NewScanner(io.TeeReader(out, d.log))
		for lines.Scan() {
			switch {
			case strings.HasPrefix(lines.Text(), "ready"):
				said <- struct{}{}
			case lines.Text() == "did" && d.did != nil:
				d.did <- struct{}{}
			}
		}
		io.Copy(d.log, out) // a line that is too long ends the scanner
		cmd.Wait()
	}()
	return said
}

// PID is the daemon's.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Reads is how many read(2) the daemon has done: one for each request, and few besides.
func (d *Daemon) Reads() int {
	d.t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", d.PID()))
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if n, ok := strings.CutPrefix(line, "syscr: "); ok {
			reads, _ := strconv.Atoi(strings.TrimSpace(n))
			return reads
		}
	}
	d.t.Fatal("no syscr in /proc/PID/io")
	return 0
}

// Log is what the daemon has written so far.
func (d *Daemon) Log() string { return d.log.String() }

// Kill kills the daemon as kill -9 does and waits until it is gone. Its mounts stay, dead.
func (d *Daemon) Kill() {
	d.cmd.Process.Kill()
	<-d.done
}

// Terminate tells the daemon to end, as a service manager does; see Ended.
func (d *Daemon) Terminate() { d.Signal(syscall.SIGTERM) }

// Signal sends the daemon a signal.
func (d *Daemon) Signal(sig syscall.Signal) { d.cmd.Process.Signal(sig) }

// Ended waits until the daemon has ended, which must be within the limit, and returns its exit code, -1 for a signal.
func (d *Daemon) Ended(limit time.Duration) int {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(limit):
		d.hung(fmt.Sprintf("the daemon, %v after it was told to end", limit))
	}
	return d.cmd.ProcessState.ExitCode()
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
		for _, host := range append(d.peers, d) {
			for _, m := range host.mounts {
				_, point, _ := strings.Cut(m, ":")
				for unix.Unmount(point, unix.MNT_DETACH) == nil { // a dead mount may be below
				}
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
