package process

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// child is a shell that runs a script and then, told so by a line, ends. Scripts print "ready" lines.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// start runs a script under the given shell.
func start(t *testing.T, shell, script string, args ...string) *child {
	t.Helper()
	path, err := exec.LookPath(shell)
	if err != nil {
		t.Skipf("no %s here", shell)
	}
	c := &child{t: t, cmd: exec.Command(path, append([]string{"-c", script, shell}, args...)...)}
	c.in, err = c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(out)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		c.in.Close()
		c.cmd.Wait()
	})
	return c
}

// line reads the next line that the child prints.
func (c *child) line() string {
	c.t.Helper()
	text, err := c.out.ReadString('\n')
	if err != nil {
		c.t.Fatalf("child %v: %v", c.cmd.Args, err)
	}
	return strings.TrimSpace(text)
}

func (c *child) pid() uint32 { return uint32(c.cmd.Process.Pid) }

// number reads a line that is a process id.
func (c *child) number() uint32 {
	c.t.Helper()
	n, err := strconv.ParseUint(c.line(), 10, 32)
	if err != nil {
		c.t.Fatal(err)
	}
	return uint32(n)
}

// until waits for a state of another process that it cannot announce itself, such as being blocked.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func wchan(tid uint32) string {
	text, _ := os.ReadFile("/proc/" + strconv.Itoa(int(tid)) + "/wchan")
	return string(text)
}

// newFile makes a file and returns its path and identity.
func newFile(t *testing.T) (string, File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return path, File{Dev: st.Dev, Ino: st.Ino}
}

func TestTgid(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := uint32(os.Getpid())
	if got := Tgid(uint32(unix.Gettid())); got != self {
		t.Errorf("Tgid of this thread is %d, want %d", got, self)
	}
	tids, err := readNumbers("/proc/self/task")
	if err != nil || len(tids) < 2 {
		t.Fatalf("threads %v: %v", tids, err)
	}
	for _, tid := range tids {
		if got := Tgid(tid); got != self {
			t.Errorf("Tgid(%d) = %d, want %d", tid, got, self)
		}
	}
	if got := Tgid(0); got != 0 {
		t.Errorf("Tgid(0) = %d", got)
	}
	if got := Tgid(1 << 30); got != 0 {
		t.Errorf("Tgid of nobody = %d", got)
	}
}

func TestLook(t *testing.T) {
	c := start(t, "sh", `echo ready; read x`, "one two", "three")
	c.line()
	info, err := Look(c.pid())
	if err != nil {
		t.Fatal(err)
	}
	if info.Tgid != c.pid() || info.PPID != uint32(os.Getpid()) || info.UID != uint32(os.Geteuid()) || info.GID != uint32(os.Getegid()) {
		t.Errorf("ids: %+v", info)
	}
	if text := Cmdline(c.pid()); info.Comm != "sh" || !strings.HasSuffix(text, "sh one two three") || strings.ContainsRune(text, 0) {
		t.Errorf("names: %+v, %q", info, text)
	}
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
	if age := time.Duration(now.Nano()) - info.Started; age < -20*time.Millisecond || age > time.Minute {
		t.Errorf("started %v ago", age)
	}
	if _, err := Look(0); err != ErrGone {
		t.Errorf("Look(0): %v", err)
	}
	if _, err := Look(1 << 30); err != ErrGone {
		t.Errorf("Look of nobody: %v", err)
	}
}

func TestNamesOfAnyBytes(t *testing.T) {
	dir := t.TempDir()
	odd := filepath.Join(dir, ") R 1 (\n")
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	text, err := os.ReadFile(sh)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(odd, text, 0o700); err != nil {
		t.Fatal(err)
	}
	c := start(t, odd, `echo ready; read x`)
	c.line()
	var st stat
	if err := st.read(c.pid()); err != nil || st.ppid != uint32(os.Getpid()) || st.state == 'R' && st.start == 0 {
		t.Errorf("stat %+v: %v", st, err)
	}
}

func TestGroups(t *testing.T) {
	want, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Groups(uint32(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("groups %v, want %v", got, want)
	}
	if os.Geteuid() == 0 {
		c := exec.Command("/bin/sh", "-c", "echo ready; read x")
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{7, 4711, 70000}}}
		in, _ := c.StdinPipe()
		out, _ := c.StdoutPipe()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { in.Close(); c.Wait() }()
		bufio.NewReader(out).ReadString('\n')
		if got, err := Groups(uint32(c.Process.Pid)); err != nil || !slices.Equal(got, []uint32{7, 4711, 70000}) {
			t.Errorf("groups %v, %v", got, err)
		}
		if info, err := Look(uint32(c.Process.Pid)); err != nil || info.UID != 65534 {
			t.Errorf("%+v, %v", info, err)
		}
	}
	if _, err := Groups(1 << 30); err != ErrGone {
		t.Errorf("groups of nobody: %v", err)
	}
}

// TestKilled looks at processes that have ended but were not reaped: they show what a dying process shows.
func TestKilled(t *testing.T) {
	tests := []struct {
		name, script string
		signal       syscall.Signal
		want         bool
	}{
		{name: "exit 0", script: "exit 0"},
		{name: "exit 9", script: "exit 9"},
		{name: "exit 137", script: "exit 137"},
		{name: "kill -9", signal: syscall.SIGKILL, want: true},
		{name: "kill -15", signal: syscall.SIGTERM, want: true},
		{name: "segmentation fault", signal: syscall.SIGSEGV, want: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			script := test.script
			if script == "" {
				script = "ulimit -c 0; echo ready; read x"
			}
			c := start(t, "sh", script)
			if test.signal != 0 {
				c.line()
				if Killed(c.pid()) {
					t.Error("killed while it lives")
				}
				syscall.Kill(int(c.pid()), test.signal)
			}
			until(t, "ended", func() bool { return isZombie(c.pid()) })
			if got := Killed(c.pid()); got != test.want {
				t.Errorf("Killed = %v, want %v", got, test.want)
			}
		})
	}
	if Killed(uint32(os.Getpid())) || Killed(0) || Killed(1<<30) {
		t.Error("killed: this process, or nobody")
	}
}

func TestKilledAllocatesNothing(t *testing.T) {
	pid := uint32(os.Getpid())
	if n := testing.AllocsPerRun(100, func() { Killed(pid) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSameOwner(t *testing.T) {
	path, file := newFile(t)
	// The parent has 9; its child inherits it, its child's child does not, and a third opens the file anew.
	parent := start(t, "bash", `
		exec 9<>"$1"
		( echo $BASHPID; read x ) <&0 & 
		( exec 9>&-; echo $BASHPID; exec sleep 1000 ) &
		( exec 9>&-; exec 9<>"$1"; echo $BASHPID; exec sleep 1000 ) &
		echo ready; wait`, path)
	pids := map[string]bool{}
	var named []uint32
	for len(named) < 3 || !pids["ready"] {
		text := parent.line()
		pids[text] = true
		if n, err := strconv.Atoi(text); err == nil {
			named = append(named, uint32(n))
		}
	}
	count := func(pid uint32) int { return len(openOn(pid, file)) }
	var heir, closed, anew uint32
	for _, pid := range named {
		switch {
		case count(pid) == 0:
			closed = pid
		case hasDescriptor(pid, Descriptor{Opener: parent.pid(), File: file}):
			heir = pid
		default:
			anew = pid
		}
	}
	if heir == 0 || closed == 0 || anew == 0 {
		t.Fatalf("children: heir %d closed %d anew %d", heir, closed, anew)
	}
	d := Descriptor{Opener: parent.pid(), File: file}
	other := File{Dev: file.Dev, Ino: file.Ino + 1}
	tests := []struct {
		name      string
		requester uint32
		d         Descriptor
		want      bool
	}{
		{"itself", parent.pid(), d, true},
		{"itself, another file", parent.pid(), Descriptor{Opener: parent.pid(), File: other}, true},
		{"child that inherited it", heir, d, true},
		{"child that closed it", closed, d, false},
		{"child that opened the file anew", anew, d, false},
		{"parent of one that opened it", parent.pid(), Descriptor{Opener: anew, File: file}, false},
		{"heir, another file", heir, Descriptor{Opener: parent.pid(), File: other}, false},
		{"stranger", uint32(os.Getpid()), d, false},
		{"nobody asks", 1 << 30, d, false},
		{"opener gone", heir, Descriptor{Opener: 1 << 30, File: file}, false},
		{"opener gone, its heir", heir, Descriptor{Opener: 1 << 30, Heir: parent.pid(), File: file}, true},
		{"opener gone, itself its heir", parent.pid(), Descriptor{Opener: 1 << 30, Heir: parent.pid(), File: file}, true},
		{"opener gone, another's heir", anew, Descriptor{Opener: 1 << 30, Heir: parent.pid(), File: file}, false},
		{"heir, opened before it was born", heir, Descriptor{Opener: parent.pid(), File: file, Opened: born(t, parent.pid())}, true},
		{"opened after it was born", heir, Descriptor{Opener: parent.pid(), File: file, Opened: born(t, heir) + time.Minute}, false},
		{"itself, opened after it was born", heir, Descriptor{Opener: heir, File: file, Opened: born(t, heir) + time.Minute}, true},
		{"foreign namespace", 0, d, false},
		{"foreign opener", heir, Descriptor{File: file}, false},
	}
	for _, test := range tests {
		if got := SameOwner(test.requester, test.d); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

// born is when a process began.
func born(t *testing.T, pid uint32) time.Duration {
	info, err := Look(pid)
	if err != nil {
		t.Fatal(err)
	}
	return info.Started
}

// TestSameOwnerThreads asks for two threads of one process.
func TestSameOwnerThreads(t *testing.T) {
	_, file := newFile(t)
	tids, err := readNumbers("/proc/self/task")
	if err != nil || len(tids) < 2 {
		t.Fatalf("threads %v: %v", tids, err)
	}
	for _, a := range tids {
		for _, b := range tids {
			if !SameOwner(a, Descriptor{Opener: b, File: file}) {
				t.Errorf("%d and %d", a, b)
			}
		}
	}
}

// TestCanLetGo plays a request to the daemon as a read of a FIFO that nobody writes.
func TestCanLetGo(t *testing.T) {
	tests := []struct {
		name   string
		shell  string
		script string // $1 the file, $2 the fifo; prints the id of the process that asks, then others that wait in us
		asks   int    // how many lines of ids to read
		want   bool
	}{
		{"alone", "sh", `exec 9<>"$1"; echo $$; read x <"$2"`, 1, false},
		{"shell waits for its child", "bash", `exec 9<>"$1"; (echo $BASHPID; read x <"$2"); true`, 1, false},
		{"two levels", "bash", `exec 9<>"$1"; (echo a >&2; (echo $BASHPID; read x <"$2"); true); true`, 1, false},
		{"heir in the background runs", "bash", `exec 9<>"$1"; sleep 1000 & (echo $BASHPID; read x <"$2"); true`, 1, true},
		{"stranger's child without it runs beside", "bash", `exec 9<>"$1"; sleep 1000 9>&- & wait_for=$!; (echo $BASHPID; read x <"$2"); true`, 1, true},
		{"two children both wait", "bash", `exec 9<>"$1"; (echo $BASHPID; read x <"$2") & (echo $BASHPID; read x <"$2"); wait`, 2, false},
		{"vfork", "python3", `
import os, subprocess, sys, ctypes
f = os.open(sys.argv[2], os.O_RDWR); os.set_inheritable(f, True)
libc = ctypes.CDLL(None, use_errno=True)
class Action(ctypes.Structure): pass
acts = ctypes.create_string_buffer(512)
libc.posix_spawn_file_actions_init(acts)
libc.posix_spawn_file_actions_addopen(acts, 7, sys.argv[3].encode(), os.O_RDONLY, 0)
print(0, flush=True)
argv = (ctypes.c_char_p * 2)(b"true", None)
pid = ctypes.c_int()
libc.posix_spawnp(ctypes.byref(pid), b"true", acts, None, argv, None)
`, 1, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path, file := newFile(t)
			fifo := path + ".fifo"
			if err := unix.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			c := start(t, test.shell, test.script, path, fifo)
			wait := map[uint32]bool{}
			var requester uint32
			for range test.asks {
				requester = c.number()
				if requester == 0 { // the child cannot say its own id
					until(t, "vfork child", func() bool { return len(childrenOf(c.pid())) == 1 })
					requester = childrenOf(c.pid())[0]
				}
				wait[requester] = true
			}
			for pid := range wait {
				until(t, "waits for the fifo", func() bool { return wchan(pid) == "wait_for_partner" || wchan(pid) == "fifo_open" })
			}
			if requester != c.pid() {
				until(t, "shell waits", func() bool { w := wchan(c.pid()); return w == "do_wait" || w == "kernel_clone" })
			}
			d := []Descriptor{{Opener: c.pid(), File: file}}
			waiting := func(tid uint32) bool { return wait[tid] }
			if got := CanLetGo(d, waiting); got != test.want {
				t.Errorf("CanLetGo = %v, want %v", got, test.want)
			}
		})
	}
}

// TestCanLetGoThreads asks for this process, whose other threads are neither waiting for us nor for a child.
func TestCanLetGoThreads(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_, file := newFile(t)
	self := uint32(unix.Gettid())
	d := []Descriptor{{Opener: self, File: file}}
	if !CanLetGo(d, func(uint32) bool { return false }) {
		t.Error("other threads of this process were taken for stuck")
	}
	if CanLetGo(d, func(uint32) bool { return true }) {
		t.Error("a process whose threads all wait can let go")
	}
	gone := []Descriptor{{Opener: 1 << 30, File: file}}
	if !CanLetGo(gone, func(uint32) bool { return true }) {
		t.Error("an opener that is gone is stuck")
	}
}

func TestWaitsForOFD(t *testing.T) {
	for kind, cmd := range map[string]string{"POSIX": "fcntl.F_SETLKW", "OFD": "38"} {
		path, _ := newFile(t)
		c := start(t, "python3", `
import fcntl, os, struct, sys
lk = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0)
held = os.open(sys.argv[2], os.O_RDWR)
fcntl.fcntl(held, 37, lk)
print(os.getpid(), flush=True)
waiting = os.open(sys.argv[2], os.O_RDWR)
fcntl.fcntl(waiting, `+cmd+`, lk)
`, path)
		pid := c.number()
		until(t, kind+" waits", func() bool {
			nr, _, _ := systemCall(pid)
			return nr == unix.SYS_FCNTL
		})
		if got := WaitsForOFD(pid); got != (kind == "OFD") {
			t.Errorf("%s: %v", kind, got)
		}
	}
	if WaitsForOFD(0) || WaitsForOFD(uint32(os.Getpid())) {
		t.Error("a thread that does not wait")
	}
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("1 (sh) S 1 2 3"))
	f.Add([]byte("1 (a) b) R 77 0 0 0 0 1024 0 0 0 0 0 0 0 0 0 0 0 0 99 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 9\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var st stat
		st.parse(text)
		appendNumbers(nil, text)
		fieldOf(text, "Groups:")
	})
}

func BenchmarkKilled(b *testing.B) {
	pid := uint32(os.Getpid())
	b.ReportAllocs()
	for b.Loop() {
		Killed(pid)
	}
}

func BenchmarkKilledOther(b *testing.B) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	pid := uint32(c.Process.Pid)
	b.ReportAllocs()
	for b.Loop() {
		Killed(pid)
	}
}

func BenchmarkTgid(b *testing.B) {
	pid := uint32(os.Getpid())
	for b.Loop() {
		Tgid(pid)
	}
}

func BenchmarkLook(b *testing.B) {
	pid := uint32(os.Getpid())
	for b.Loop() {
		Look(pid)
	}
}

func BenchmarkSameOwnerStranger(b *testing.B) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	pid, self := uint32(c.Process.Pid), uint32(os.Getpid())
	for b.Loop() {
		SameOwner(pid, Descriptor{Opener: self, File: File{1, 2}})
	}
}
