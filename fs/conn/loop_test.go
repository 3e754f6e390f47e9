package conn

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestStatAndRead(t *testing.T) {
	m := serveTest(t, nil)
	if got := m.shell("stat -c %s file-a && cat file-a").must(); got != "64\n"+testData {
		t.Errorf("stat and cat: %q", got)
	}
	if got := m.shell("stat .go-fuse-epoll-hack 2>&1; echo x | cat > file-b; cat file-b").must(); !strings.Contains(got, "No such file") ||
		!strings.HasSuffix(got, "x\n") {
		t.Errorf("go-fuse's own name, and a write: %q", got)
	}
	if s := m.loop.Settings(); s == nil || s.Capabilities&wanted != wanted {
		t.Errorf("settings %+v", s)
	}
}

// TestLargeTransfers sends requests and replies that need the role's large buffers.
func TestLargeTransfers(t *testing.T) {
	m := serveTest(t, nil)
	script := "dd if=/dev/urandom of=/tmp/conn-$$ bs=1k count=257 2>/dev/null; cat /tmp/conn-$$ > file-a; cmp file-a /tmp/conn-$$ && " +
		"rm /tmp/conn-$$ && echo same"
	if got := m.shell(script).must(); got != "same\n" {
		t.Errorf("%q", got)
	}
	if n := m.fs.count("write"); n != 3 {
		t.Errorf("257 KiB came in %d writes, 3 expected", n)
	}
}

// TestDropAttrAfterReply: attributes that are cached for an hour are asked for again after a reply that drops them.
func TestDropAttrAfterReply(t *testing.T) {
	m := serveTest(t, func(fs *testFS, _ *Options) { fs.valid = time.Hour })
	for name, asks := range map[string]int{"file-keep": 0, "file-drop": 1} {
		m.shell("stat " + name).must()
		before := m.fs.count("getattr")
		m.shell("cat " + name + "; stat -c %s " + name).must()
		if got := m.fs.count("getattr") - before; got != asks {
			t.Errorf("%s: %d GETATTRs after the read, not %d", name, got, asks)
		}
	}
	if got := m.fs.read.Load(); got == 0 || got != int64(m.fs.count("read")-2) {
		t.Errorf("AfterReply was done %d times", got)
	}
}

// TestLateNotifications come when the device has been closed, and its number may be another file's.
func TestLateNotifications(t *testing.T) {
	m := serveTest(t, nil)
	m.loop.Close()
	m.awaitEnd()
	if fd, _ := unix.Dup(2); fd >= 0 {
		defer unix.Close(fd)
	}
	m.loop.NotifyPoll(1)
	if err := m.loop.InvalInode(1, -1, 0); err != unix.ENODEV {
		t.Errorf("InvalInode: %v", err)
	}
	m.loop.Notifier().Inode(1, 1, 0, 0)
	if !m.loop.Notifier().Wait(1, nil, time.Second) {
		t.Error("Wait waits for a Notifier that has ended")
	}
}

func TestParkedOpen(t *testing.T) {
	m := serveTest(t, nil)
	var parked []*child
	for i := range 8 {
		parked = append(parked, m.shell("exec 9>gate-a; echo opened"+strconv.Itoa(i)))
	}
	for i := 1; ; i++ {
		if m.loop.Parked() == len(parked) {
			break
		}
		if i > 2000 {
			t.Fatalf("%d handlers parked", m.loop.Parked())
		}
		time.Sleep(time.Millisecond)
	}
	for range 20 {
		if got := m.shell("stat -c %s gate-a && cat gate-a && flock -n file-b true").must(); got != "64\n"+testData {
			t.Errorf("beside parked opens: %q", got)
		}
	}
	if first, second := m.loop.Alive(), m.loop.Alive(); !first || !second { // the second asks what the first began
		t.Error("the loop is idle, which is alive")
	}
	for _, c := range parked {
		if !c.running() {
			t.Errorf("%s: over before the gate was opened", c.what)
		}
	}
	m.fs.open("gate-a")
	for i, c := range parked {
		if got := c.must(); got != fmt.Sprintf("opened%d\n", i) {
			t.Errorf("%s: %q", c.what, got)
		}
	}
	if m.loop.Parked() != 0 {
		t.Errorf("%d still parked", m.loop.Parked())
	}
}

// TestAlive has a handler block without parking, as only a faulty one would.
func TestAlive(t *testing.T) {
	m := serveTest(t, nil)
	m.fs.mu.Lock()
	c := m.shell("stat file-a")
	for m.loop.current.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	first, second := m.loop.Alive(), m.loop.Alive()
	m.fs.mu.Unlock()
	if !first || second {
		t.Errorf("alive %v at the first look, %v at the second; it is stuck", first, second)
	}
	c.must()
	if !m.loop.Alive() {
		t.Error("not alive when it went on")
	}
}

func init() {
	children["open"] = func(args []string) error {
		// open(2) is not restarted here, though Go's handlers have SA_RESTART.
		caught := make(chan os.Signal, 1)
		signal.Notify(caught, unix.SIGUSR1)
		fmt.Println(lockThread())
		fd, err := unix.Open(args[0], unix.O_RDWR, 0)
		fmt.Println("opened", errnoName(err))
		if err == nil {
			unix.Close(fd)
		}
		return nil
	}
}

func TestInterrupt(t *testing.T) {
	m := serveTest(t, nil)
	c := m.start("open", m.dir+"/gate-a")
	m.await("open gate-a")
	c.says("\n")
	tid, _ := strconv.Atoi(strings.TrimSpace(c.stdout.String()))
	if err := unix.Tgkill(c.cmd.Process.Pid, tid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	m.await("interrupted gate-a")
	if got := c.must(); !strings.Contains(got, "opened EINTR") {
		t.Errorf("%q", got)
	}

	c = m.shell("exec 9>gate-b")
	m.await("open gate-b")
	c.cmd.Process.Kill()
	m.await("interrupted gate-b")
	if _, err := c.wait(); err == nil {
		t.Error("killed, but it ended well")
	}

	holder := m.shell("exec 9<file-c; flock 9; echo held; read x")
	holder.says("held")
	if _, err := m.shell("flock -w 0.1 file-c true").wait(); err == nil {
		t.Error("flock -w got a lock that is held")
	}
	holder.stdin.Close()
	holder.wait()
	m.shell("flock -w 5 file-c true").must()
}

// TestInterruptStorm interrupts opens that are granted at the very same time: every one is answered once, and none of
// the handles stays behind.
func TestInterruptStorm(t *testing.T) {
	m := serveTest(t, nil)
	m.start("storm", m.dir).must()
	deadline := time.Now().Add(limit)
	for {
		m.fs.mu.Lock()
		left := len(m.fs.handles)
		m.fs.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d handles left", left)
		}
		time.Sleep(time.Millisecond)
	}
	t.Logf("%d interrupts were answered EAGAIN first", m.loop.retried.Load())
}

func init() {
	children["storm"] = func(args []string) error {
		caught := make(chan os.Signal, 1)
		signal.Notify(caught, unix.SIGUSR1)
		path := args[0] + "/file-storm"
		holder, err := unix.Open(path, unix.O_RDWR, 0)
		if err != nil {
			return err
		}
		tid := make(chan int)
		ask, answer := make(chan bool), make(chan error)
		go func() {
			tid <- lockThread()
			for range ask {
				fd, err := unix.Open(path, unix.O_RDWR, 0)
				if err == nil {
					err = unix.Flock(fd, unix.LOCK_EX)
					unix.Close(fd)
				}
				answer <- err
			}
		}()
		waiter := <-tid
		for i := range 400 {
			if err := unix.Flock(holder, unix.LOCK_EX); err != nil {
				return err
			}
			ask <- true
			time.Sleep(time.Duration(i%20) * 10 * time.Microsecond)
			unix.Tgkill(unix.Getpid(), waiter, unix.SIGUSR1)
			if err := unix.Flock(holder, unix.LOCK_UN); err != nil {
				return err
			}
			if err := <-answer; err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
		close(ask)
		return unix.Close(holder)
	}
}

// TestReleaseOrder: a try-lock right after the close of a descriptor never meets the lock of that descriptor.
func TestReleaseOrder(t *testing.T) {
	rounds := 20000
	if testing.Short() {
		rounds = 2000
	}
	m := serveTest(t, nil)
	if got := m.start("closetry", m.dir+"/file-a", strconv.Itoa(rounds)).must(); got != "spurious 0\n" {
		t.Errorf("%d rounds: %q", rounds, got)
	}
}

// TestReleaseCrowd has many threads close and try at once. RELEASE is a background request, of which the kernel would
// hold back all but 12 while it sends the lock requests that come after them. The file system is made to stall after
// FLUSH, as a busy machine would have it, so that they pile up.
func TestReleaseCrowd(t *testing.T) {
	m := serveTest(t, func(fs *testFS, _ *Options) { fs.stallFlush = 100 })
	if got := m.start("crowd", m.dir, "100", "40").must(); got != "spurious 0\n" {
		t.Errorf("%q", got)
	}
}

func init() {
	children["closetry"] = func(args []string) error {
		rounds, _ := strconv.Atoi(args[1])
		lockThread()
		spurious := 0
		for range rounds {
			fd, err := openLocked(args[0])
			if errors.Is(err, unix.EWOULDBLOCK) {
				spurious++
			} else if err != nil {
				return err
			}
			unix.Close(fd)
		}
		fmt.Println("spurious", spurious)
		return nil
	}
	children["crowd"] = func(args []string) error {
		threads, _ := strconv.Atoi(args[1])
		rounds, _ := strconv.Atoi(args[2])
		var spurious atomic.Int64
		var group errgroup
		for i := range threads {
			group.Go(func() error {
				lockThread()
				for range rounds {
					fd, err := openLocked(fmt.Sprintf("%s/file-%d", args[0], i))
					if errors.Is(err, unix.EWOULDBLOCK) {
						spurious.Add(1)
					} else if err != nil {
						return err
					}
					unix.Close(fd)
				}
				return nil
			})
		}
		err := group.Wait()
		fmt.Println("spurious", spurious.Load())
		return err
	}
}

// openLocked opens a file and tries its lock. The descriptor is valid with EWOULDBLOCK too.
func openLocked(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
}

// errgroup is a WaitGroup that keeps the first error.
type errgroup struct {
	sync.WaitGroup
	once sync.Once
	err  error
}

func (g *errgroup) Go(do func() error) {
	g.WaitGroup.Go(func() {
		if err := do(); err != nil {
			g.once.Do(func() { g.err = err })
		}
	})
}

func (g *errgroup) Wait() error {
	g.WaitGroup.Wait()
	return g.err
}
