package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/tests/harness"
)

// A client is a process that works on a mount until its standard input is closed, an error ends it, or it is done. What it
// says is a line for each step; the last one is "stopped", "done" or the errno.
type client struct {
	cmd   *exec.Cmd
	in    io.Closer
	ended chan struct{}

	mu    sync.Mutex
	lines []string
}

// start starts a client program of this package.
func start(t *testing.T, args ...string) *client {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"client"}, args...)...)
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1") // its signals would interrupt calls
	return startCommand(t, cmd)
}

// startCommand starts any other program as a client.
func startCommand(t *testing.T, cmd *exec.Cmd) *client {
	t.Helper()
	c := &client{cmd: cmd, ended: make(chan struct{})}
	c.cmd.Stderr = os.Stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.mu.Lock()
			c.lines = append(c.lines, lines.Text())
			c.mu.Unlock()
		}
		c.cmd.Wait()
	}()
	t.Cleanup(func() { c.cmd.Process.Kill() })
	return c
}

// stop tells the client to end after its step.
func (c *client) stop() { c.in.Close() }

// said is how many lines it has said so far.
func (c *client) said() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

// end waits until the client has ended, and returns all it said.
func (c *client) end(t *testing.T) []string {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(limit):
		stack, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stack", c.cmd.Process.Pid))
		t.Fatalf("a client hangs: %v\n%s", c.cmd.Args, stack)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines
}

// last is what ended a client.
func last(lines []string) string {
	if len(lines) == 0 {
		return "nothing"
	}
	return lines[len(lines)-1]
}

// steps is the client's side: it makes steps until it is told to stop or one is an error, and says which.
func steps(step func() error) int {
	var stopped atomic.Bool
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stopped.Store(true)
	}()
	for {
		err := step()
		var errno unix.Errno
		switch {
		case errors.As(err, &errno):
			say("%s", unix.ErrnoName(errno))
		case err == io.EOF:
			say("done")
		case err != nil:
			say("%v", err)
		case stopped.Load():
			say("stopped")
		default:
			continue
		}
		return 0
	}
}

func say(format string, a ...any) { os.Stdout.WriteString(fmt.Sprintf(format+"\n", a...)) }

func open(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// count DIR NAME counts in the value of NAME under EX, without end: "> N" before it commits N, "< N TOKEN" after.
func count(args []string) int {
	path := filepath.Join(args[0], args[1])
	return steps(func() error {
		fd, err := open(path, unix.O_RDWR|unix.O_CREAT)
		if err != nil {
			return err
		}
		token, err := ioc.TokenOf(fd)
		b := make([]byte, 100)
		got := 0
		if err == nil {
			got, err = unix.Pread(fd, b, 0)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		n, _ := strconv.Atoi(strings.TrimSpace(string(b[:got])))
		n++
		say("> %d", n)
		if _, err := unix.Pwrite(fd, fmt.Appendf(nil, "%d\n", n), 0); err != nil {
			unix.Close(fd)
			return err
		}
		if err := unix.Close(fd); err != nil {
			return err
		}
		say("< %d %d", n, token.Token)
		return nil
	})
}

// counts is what clients that count were told.
type counts struct {
	told map[string]map[int]uint64 // by counter and N: the token
	open map[string]int            // begun, never acknowledged
}

// hear takes in what a client said of a counter, and returns what ended it.
func (k *counts) hear(t *testing.T, counter string, lines []string) string {
	t.Helper()
	if k.told == nil {
		k.told, k.open = map[string]map[int]uint64{}, map[string]int{}
	}
	if k.told[counter] == nil {
		k.told[counter] = map[int]uint64{}
	}
	begun := 0
	for _, line := range lines {
		f := strings.Fields(line)
		switch {
		case f[0] == ">":
			begun++
		case f[0] == "<":
			begun--
			n, _ := strconv.Atoi(f[1])
			if k.told[counter][n] != 0 {
				t.Errorf("%s: two clients counted %d", counter, n)
			}
			k.told[counter][n] = number(f[2])
		}
	}
	k.open[counter] += begun
	return last(lines)
}

// check compares the counters with what clients were told, as a host sees them.
func (k *counts) check(t *testing.T, d *harness.Daemon) {
	t.Helper()
	for counter, told := range k.told {
		out := d.Run(t, `flock $M/`+counter+` cat $M/`+counter, limit).Out
		value, err := strconv.Atoi(strings.TrimSpace(out))
		if err != nil {
			t.Errorf("%s: the value is %q", counter, out)
			continue
		}
		if missing := value - len(told); missing < 0 || missing > k.open[counter] {
			t.Errorf("%s: the value is %d; %d steps were acknowledged, and %d begun", counter, value, len(told), k.open[counter])
		}
		done := make([]int, 0, len(told))
		for n := range told {
			done = append(done, n)
		}
		slices.Sort(done)
		for i, n := range done {
			if n > value {
				t.Errorf("%s: step %d was acknowledged, the value is %d", counter, n, value)
			}
			if i > 0 && told[n] <= told[done[i-1]] {
				t.Errorf("%s: step %d had token %d, step %d has %d", counter, done[i-1], told[done[i-1]], n, told[n])
			}
		}
		t.Logf("%s: %d, of which %d were acknowledged", counter, value, len(told))
	}
}

// more waits until each client has said so many lines more.
func more(t *testing.T, lines int, running ...*client) {
	t.Helper()
	before := make([]int, len(running))
	for i, c := range running {
		before[i] = c.said()
	}
	harness.Until(t, limit, fmt.Sprintf("%d more lines of each client", lines), func() (string, bool) {
		ok, saw := true, ""
		for i, c := range running {
			said := c.said() - before[i]
			saw += fmt.Sprintf("%v: %d more\n", c.cmd.Args[2:], said)
			ok = ok && said >= lines
		}
		return saw, ok
	})
}

// hold DIR NAME opens NAME, which may name a mode, and closes it, without end and without pause. It says a line every
// hundred times.
func hold(args []string) int {
	n := 0
	return steps(func() error {
		fd, err := open(filepath.Join(args[0], args[1]), unix.O_RDWR)
		if err != nil {
			return err
		}
		if n++; n%100 == 0 {
			say("%d", n)
		}
		return unix.Close(fd)
	})
}

// storm DIR SEED N makes N random changes of names in DIR: mkdir, mknod, unlink, rmdir and rename.
func storm(args []string) int {
	seed, n := number(args[1]), number(args[2])
	rnd := rand.New(rand.NewPCG(seed, 0))
	name := func() string {
		path := filepath.Join(args[0], string(rune('a'+rnd.IntN(4))))
		for rnd.IntN(2) == 0 {
			path = filepath.Join(path, string(rune('a'+rnd.IntN(4))))
		}
		return path
	}
	return steps(func() error {
		if n--; n == 0 {
			return io.EOF
		}
		call, path, to := rnd.IntN(6), name(), name()
		var err error
		switch call {
		case 0, 1:
			err = unix.Mkdir(path, 0o755)
		case 2:
			err = unix.Mknod(path, unix.S_IFREG|0o644, 0)
		case 3:
			err = unix.Unlink(path)
		case 4:
			err = unix.Rmdir(path)
		case 5:
			err = unix.Rename(path, to)
		}
		switch err {
		case unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY, unix.EINVAL, unix.EBUSY:
			return nil // as with any file system
		case unix.ELOOP: // directories in directories, to the limit of a path
			return nil
		case unix.ESTALE:
			// A name that others changed during the call. The kernel looks it up again and calls once more; a name that is
			// changed again meanwhile shows, as on other file systems of many hosts.
			return nil
		}
		say("%d %s %s: %v", call, path, to, err)
		return err
	})
}

// lag HERE THERE N makes N files in the directory HERE and says for each how many nanoseconds after its mknod has returned
// it is seen in THERE, the same directory on another host.
func lag(args []string) int {
	n := int(number(args[2]))
	return steps(func() error {
		if n--; n < 0 {
			return io.EOF
		}
		file := fmt.Sprint("f", n)
		if err := unix.Mknod(filepath.Join(args[0], file), unix.S_IFREG|0o644, 0); err != nil {
			return err
		}
		made := time.Now()
		var st unix.Stat_t
		for {
			err := unix.Stat(filepath.Join(args[1], file), &st)
			if err == nil {
				say("%d", time.Since(made))
				return nil
			}
			if err != unix.ENOENT || time.Since(made) > limit {
				return err
			}
		}
	})
}
