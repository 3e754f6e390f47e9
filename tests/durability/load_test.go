package durability

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/tests/harness"
)

// A loader is a process that changes a mount without end and says of each change that it is about to make it and, once
// the call has returned, that it is made: "> KIND FILE N" and "< KIND FILE N TOKEN". Its last line is the errno that
// ended it.
//
//	value  FILE's value is "FILE N", committed by close(2) or, every other time, fsync(2)
//	count  the value of the file that all loaders share is N, one more than it was
//	posix  FILE's value is "FILE N", written through the view posix
//	made   the file FILE.N is there; the one before, FILE.N-1, is not

// load ID FROM LOCK POSIX is a loader. N begins after FROM.
func load(args []string) int {
	id, lock, posix := args[0], args[2], args[3]
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return 2
	}
	l := loader{rnd: rand.New(rand.NewPCG(uint64(n), uint64(len(id)))), lock: lock, posix: posix}
	for err == nil {
		n++
		name := id + strconv.Itoa(l.rnd.IntN(3))
		switch l.rnd.IntN(5) {
		case 0, 1:
			err = l.value(name, n)
		case 2:
			err = l.count()
		case 3:
			err = l.write("p"+name, n)
		case 4:
			err = l.make("m"+name, n)
		}
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		l.say("%s", unix.ErrnoName(errno))
		return 0
	}
	l.say("%v", err)
	return 1
}

type loader struct {
	rnd         *rand.Rand
	lock, posix string
	made        map[string]int
}

func (l *loader) say(format string, a ...any) { os.Stdout.WriteString(fmt.Sprintf(format+"\n", a...)) }

// locked opens a file for EX and says the token.
func locked(path string) (fd int, token uint64, err error) {
	for {
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return -1, 0, err
	}
	t, err := ioc.TokenOf(fd)
	if err != nil {
		unix.Close(fd)
	}
	return fd, t.Token, err
}

// commit writes a whole value and commits it.
func commit(fd int, text string, sync bool) error {
	if _, err := unix.Pwrite(fd, []byte(text), 0); err != nil {
		unix.Close(fd)
		return err
	}
	if sync {
		if err := unix.Fsync(fd); err != nil {
			unix.Close(fd)
			return err
		}
	}
	return unix.Close(fd)
}

func (l *loader) value(name string, n int) error {
	fd, token, err := locked(filepath.Join(l.lock, name))
	if err != nil {
		return err
	}
	l.say("> value %s %d", name, n)
	if n%2 == 0 {
		if _, err := unix.Pwrite(fd, fmt.Appendf(nil, "%s %d\n", name, n), 0); err != nil {
			return err
		}
		if err := unix.Fsync(fd); err != nil {
			return err
		}
		l.say("< value %s %d %d", name, n, token)
		return unix.Close(fd)
	}
	if err := commit(fd, fmt.Sprintf("%s %d\n", name, n), false); err != nil {
		return err
	}
	l.say("< value %s %d %d", name, n, token)
	return nil
}

func (l *loader) count() error {
	fd, token, err := locked(filepath.Join(l.lock, "count"))
	if err != nil {
		return err
	}
	b := make([]byte, 100)
	got, err := unix.Pread(fd, b, 0)
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b[:got])))
	n++
	l.say("> count count %d", n)
	if err := commit(fd, fmt.Sprintf("%d\n", n), false); err != nil {
		return err
	}
	l.say("< count count %d %d", n, token)
	return nil
}

func (l *loader) write(name string, n int) error {
	fd, err := unix.Open(filepath.Join(l.posix, name), unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	l.say("> posix %s %d", name, n)
	if _, err := unix.Pwrite(fd, fmt.Appendf(nil, "%s %d\n", name, n), 0); err != nil {
		return err
	}
	l.say("< posix %s %d 0", name, n)
	return nil
}

func (l *loader) make(name string, n int) error {
	path := func(n int) string { return filepath.Join(l.lock, name+"."+strconv.Itoa(n)) }
	if l.made == nil {
		l.made = map[string]int{}
	}
	l.say("> made %s %d", name, n)
	if err := unix.Mknod(path(n), unix.S_IFREG|0o644, 0); err != nil {
		return err
	}
	l.say("< made %s %d 0", name, n)
	if old := l.made[name]; old > 0 {
		l.say("> gone %s %d", name, old)
		if err := unix.Unlink(path(old)); err != nil {
			return err
		}
		l.say("< gone %s %d 0", name, old)
	}
	l.made[name] = n
	return nil
}

// run is a loader that was started, and what it said.
type loading struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	lines []string
	ended chan struct{}
}

func startLoad(t *testing.T, d *harness.Daemon, id string, from int) *loading {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &loading{ended: make(chan struct{})}
	l.cmd = exec.Command(self, "client", "load", id, strconv.Itoa(from), d.Lock, d.Posix)
	l.cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	l.cmd.Stderr = os.Stderr
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(l.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			l.mu.Lock()
			l.lines = append(l.lines, lines.Text())
			l.mu.Unlock()
		}
		l.cmd.Wait()
	}()
	t.Cleanup(func() { l.cmd.Process.Kill() })
	return l
}

// end waits until the loader has ended by itself, and returns all it said.
func (l *loading) end(t *testing.T, limit time.Duration) []string {
	t.Helper()
	select {
	case <-l.ended:
	case <-time.After(limit):
		stack, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stack", l.cmd.Process.Pid))
		t.Fatalf("a client of the dead mount hangs:\n%s", stack)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}

// promises is what loaders were told, over all runs of the daemon.
type promises struct {
	said   map[string]int  // by "KIND FILE": the highest N acknowledged
	began  map[string]int  // likewise begun
	there  map[string]bool // files of kind made, by name; not those of which it is not known
	tokens map[string]uint64
	counts map[int]bool // every count acknowledged
	lastN  int
}

func newPromises() *promises {
	return &promises{said: map[string]int{}, began: map[string]int{}, there: map[string]bool{}, tokens: map[string]uint64{}, counts: map[int]bool{}}
}

// hear takes in what a loader said in one run of the daemon, and returns the errno that ended it.
func (p *promises) hear(t *testing.T, lines []string) string {
	t.Helper()
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) == 1 && i == len(lines)-1 {
			return f[0]
		}
		if len(f) < 4 {
			t.Fatalf("a loader said %q", line)
		}
		n, _ := strconv.Atoi(f[3])
		key, file := f[1]+" "+f[2], f[2]+"."+f[3]
		p.lastN = max(p.lastN, n)
		switch {
		case f[0] == ">" && (f[1] == "made" || f[1] == "gone"):
			delete(p.there, file)
		case f[0] == ">":
			p.began[key] = max(p.began[key], n)
		case f[1] == "made":
			p.there[file] = true
		case f[1] == "gone":
			p.there[file] = false
		default:
			p.said[key] = max(p.said[key], n)
			token, _ := strconv.ParseUint(f[4], 10, 64)
			if f[1] == "count" {
				if p.counts[n] {
					t.Errorf("two loaders counted %d", n)
				}
				p.counts[n] = true
			} else if token != 0 && token <= p.tokens[f[2]] {
				t.Errorf("%s: token %d after %d", f[2], token, p.tokens[f[2]])
			}
			p.tokens[f[2]] = max(p.tokens[f[2]], token)
		}
	}
	return "nothing"
}
