package harness

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Result is how a command ended.
type Result struct {
	Out  string // standard output and error
	Code int    // exit code; 128+N if a signal ended it
}

// Shell is a bash that keeps its descriptors from one command to the next. M, P and D are the mounts of the views lock,
// posix and dlmfs in its environment, T the directory of them all, $BIN is the program that is tested, if it is one, and $C starts a client program (see Main).
type Shell struct {
	d     *Daemon
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // of its output
	turn  int
}

// Pending is a command that was started and may wait.
type Pending struct {
	s       *Shell
	command string
	result  chan Result
}

// Shell starts a shell, which is killed at the end of the test.
func (d *Daemon) Shell(t testing.TB) *Shell { return d.ShellAs(t, "") }

// ShellAs starts a shell of another user, by su(1); "" is the test's own.
func (d *Daemon) ShellAs(t testing.TB, user string) *Shell {
	t.Helper()
	s := &Shell{d: d, t: t, lines: make(chan string, 1024)}
	s.cmd = exec.Command("bash", "--norc", "--noprofile")
	if user != "" {
		s.cmd = exec.Command("su", user, "-s", "/bin/bash", "-c", "exec bash --norc --noprofile")
	}
	s.cmd.Env = d.env()
	s.cmd.Dir = "/"
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(s.lines)
		defer r.Close()
		in := bufio.NewReader(r)
		for {
			line, err := in.ReadString('\n')
			if line != "" {
				s.lines <- line
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(s.Kill)
	return s
}

func (d *Daemon) env() []string {
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	return append(os.Environ(), "M="+d.Lock, "P="+d.Posix, "D="+d.Dlmfs, "T="+d.Dir, "C="+self+" client", "BIN="+os.Getenv(binaryEnv), "LC_ALL=C")
}

// PID is the shell's.
func (s *Shell) PID() int { return s.cmd.Process.Pid }

// Start gives the shell a command and returns at once.
func (s *Shell) Start(command string) *Pending {
	s.t.Helper()
	s.turn++
	mark := fmt.Sprintf("--%d--", s.turn)
	p := &Pending{s: s, command: command, result: make(chan Result, 1)}
	if _, err := fmt.Fprintf(s.in, "%s\necho \"%s $?\"\n", command, mark); err != nil {
		s.t.Fatalf("shell: %v", err)
	}
	end := regexp.MustCompile(`^(.*)` + mark + ` (\d+)\n$`)
	go func() {
		var out strings.Builder
		for line := range s.lines {
			if m := end.FindStringSubmatch(line); m != nil {
				out.WriteString(m[1])
				code, _ := strconv.Atoi(m[2])
				p.result <- Result{out.String(), code}
				return
			}
			out.WriteString(line)
		}
		p.result <- Result{out.String(), -1} // the shell is gone
	}()
	return p
}

// Do runs a command to its end.
func (s *Shell) Do(command string) Result {
	s.t.Helper()
	return s.Start(command).Wait()
}

// OK runs a command that must succeed, and returns what it wrote.
func (s *Shell) OK(command string) string {
	s.t.Helper()
	r := s.Do(command)
	if r.Code != 0 {
		s.t.Fatalf("%s: exit code %d, want 0\n%s", command, r.Code, r.Out)
	}
	return r.Out
}

// Exits runs a command that must end with that exit code, and returns what it wrote.
func (s *Shell) Exits(code int, command string) string {
	s.t.Helper()
	r := s.Do(command)
	if r.Code != code {
		s.t.Fatalf("%s: exit code %d, want %d\n%s", command, r.Code, code, r.Out)
	}
	return r.Out
}

// Wait waits for the end of the command, within the time for commands.
func (p *Pending) Wait() Result {
	p.s.t.Helper()
	return p.WaitFor(commandTime)
}

// WaitFor is Wait with another limit.
func (p *Pending) WaitFor(limit time.Duration) Result {
	p.s.t.Helper()
	select {
	case r := <-p.result:
		return r
	case <-time.After(limit):
		p.s.d.hung(p.command)
		panic("unreachable")
	}
}

// First waits for the first of several commands to end, within the time for commands, and returns which that is.
func First(all ...*Pending) (i int, r Result) {
	all[0].s.t.Helper()
	cases := make([]reflect.SelectCase, len(all), len(all)+1)
	for i, p := range all {
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(p.result)}
	}
	late := reflect.ValueOf(time.After(commandTime))
	i, got, _ := reflect.Select(append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: late}))
	if i == len(all) {
		all[0].s.d.hung(all[0].command)
	}
	return i, got.Interface().(Result)
}

// Waits fails the test if the command ends within d.
func (p *Pending) Waits(d time.Duration) {
	p.s.t.Helper()
	select {
	case r := <-p.result:
		p.s.t.Fatalf("%s: ended with %d, should wait\n%s", p.command, r.Code, r.Out)
	case <-time.After(d):
	}
}

// atOnce is less than a session lasts in these tests: what comes by then did not wait for a session's end.
const atOnce = 8 * time.Second

// Soon waits for the end of the command, which must not have waited for anything to run out.
func (p *Pending) Soon() Result {
	p.s.t.Helper()
	begin := time.Now()
	r := p.Wait()
	if took := time.Since(begin); took > atOnce {
		p.s.t.Errorf("%s: took %v, want less than %v", p.command, took, atOnce)
	}
	return r
}

// Kill kills the shell and its children with SIGKILL.
func (s *Shell) Kill() {
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	s.in.Close()
	gone := make(chan struct{})
	go func() {
		s.cmd.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(commandTime):
		s.t.Errorf("shell %d cannot be killed", s.PID())
	}
}

// Run runs a script in a bash of its own, killed with its children when the limit (0: that of commands) is passed.
func (d *Daemon) Run(t testing.TB, script string, limit time.Duration) Result {
	t.Helper()
	if limit == 0 {
		limit = commandTime
	}
	cmd := exec.Command("bash", "--norc", "--noprofile", "-c", script)
	cmd.Env = d.env()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var mu sync.Mutex
	var out bytes.Buffer
	cmd.Stdout = writerFunc(func(p []byte) (int, error) { mu.Lock(); defer mu.Unlock(); return out.Write(p) })
	cmd.Stderr = cmd.Stdout
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(limit):
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		mu.Lock()
		so := out.String()
		mu.Unlock()
		d.hung(script + "\n" + so)
	}
	mu.Lock()
	defer mu.Unlock()
	code := cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	return Result{out.String(), code}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
