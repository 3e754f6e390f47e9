package actor

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Limit is how long a call may take that should not wait, before its test fails.
const Limit = 60 * time.Second

// waits is how long a call that should wait is watched.
const waits = 120 * time.Millisecond

// Actor is a process that makes system calls.
type Actor struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	said chan string
	call string // under way; empty: none
}

// Start starts an actor whose relative paths begin at dir. It is killed at the end of the test. The test binary must hand
// [Program] to the harness under the name "actor".
func Start(t testing.TB, dir string) *Actor {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	a := &Actor{t: t, said: make(chan string, 1)}
	a.cmd = exec.Command(self, "client", "actor", dir)
	a.cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // its signals would interrupt an open
	a.cmd.Stderr = os.Stderr
	if a.in, err = a.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(a.said)
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			a.said <- strings.TrimSuffix(line, "\n")
		}
	}()
	t.Cleanup(a.Kill)
	return a
}

// PID is the actor's process.
func (a *Actor) PID() int { return a.cmd.Process.Pid }

// Begin has a call made and does not wait for it.
func (a *Actor) Begin(call string) {
	a.t.Helper()
	if a.call != "" {
		a.t.Fatalf("%s: the actor is still in %q", call, a.call)
	}
	a.call = call
	if _, err := fmt.Fprintln(a.in, call); err != nil {
		a.t.Fatalf("%s: %v", call, err)
	}
}

// End waits for the call that was begun and returns its result.
func (a *Actor) End() string {
	a.t.Helper()
	return a.EndWithin(Limit)
}

// EndWithin is End with another limit.
func (a *Actor) EndWithin(limit time.Duration) string {
	a.t.Helper()
	call := a.call
	a.call = ""
	select {
	case s, ok := <-a.said:
		if !ok {
			return "gone"
		}
		return s
	case <-time.After(limit):
		a.t.Fatalf("%s: no end after %v", call, limit)
		panic("unreachable")
	}
}

// Do has a call made and returns its result: "ok" with what the call returned, or the name of an errno.
func (a *Actor) Do(call string) string {
	a.t.Helper()
	a.Begin(call)
	return a.End()
}

// Must makes calls, of which the last must have that result and those before it must be ok.
func (a *Actor) Must(want string, calls ...string) {
	a.t.Helper()
	for i, call := range calls {
		result := "ok"
		if i == len(calls)-1 {
			result = want
		}
		if got := a.Do(call); got != result {
			a.t.Fatalf("%s: %s, want %s", call, got, result)
		}
	}
}

// Waits says whether the call that was begun waits; if not, its result comes back.
func (a *Actor) Waits() (result string, waiting bool) {
	select {
	case s := <-a.said:
		a.call = ""
		return s, false
	case <-time.After(waits):
		return "", true
	}
}

// Kill kills the actor as kill -9 does, and waits until it is gone.
func (a *Actor) Kill() {
	a.cmd.Process.Signal(syscall.SIGKILL)
	a.in.Close()
	gone := make(chan struct{})
	go func() {
		a.cmd.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(Limit):
		a.t.Errorf("actor %d cannot be killed", a.PID())
	}
}
