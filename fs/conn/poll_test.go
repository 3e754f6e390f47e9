package conn

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestPollWakes(t *testing.T) {
	for _, how := range []string{"poll", "select", "epoll", "epollet"} {
		t.Run(how, func(t *testing.T) {
			m := serveTest(t, nil)
			c := m.start("poll", how, m.dir+"/poll-a", "1")
			m.await("poll poll-a flags=1")
			c.says("waiting 0\n")
			if !c.running() {
				t.Fatalf("over before the file was ready: %q", c.stdout.String())
			}
			m.fs.arm("poll-a", true)
			if got := c.must(); got != "waiting 0\nwoken 1\n" {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestPollEveryChange wakes an edge-triggered epoll, which asks once and then relies on being told, again and again.
func TestPollEveryChange(t *testing.T) {
	const times = 200
	m := serveTest(t, nil)
	c := m.start("poll", "epollet", m.dir+"/poll-a", strconv.Itoa(times))
	for i := range times {
		c.says(fmt.Sprintf("waiting %d\n", i))
		m.fs.arm("poll-a", true)
	}
	c.must()
}

func TestPollAtOnce(t *testing.T) {
	m := serveTest(t, nil)
	if got := m.start("pollnow", m.dir+"/poll-a").must(); got != "0\n" {
		t.Errorf("poll of a file that is not ready: %q", got)
	}
}

func init() {
	children["pollnow"] = func(args []string) error {
		fd, err := unix.Open(args[0], unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		fmt.Println(n)
		return err
	}
	// poll HOW PATH TIMES waits so many times for the file to be ready.
	children["poll"] = func(args []string) error {
		fd, err := unix.Open(args[1], unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		times, _ := strconv.Atoi(args[2])
		wait := func() (int, error) {
			return unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		}
		switch args[0] {
		case "select":
			wait = func() (int, error) {
				var set unix.FdSet
				set.Set(fd)
				return unix.Select(fd+1, &set, nil, nil, nil)
			}
		case "epoll", "epollet":
			ep, err := unix.EpollCreate1(0)
			if err != nil {
				return err
			}
			event := unix.EpollEvent{Events: unix.EPOLLIN}
			if args[0] == "epollet" {
				event.Events |= unix.EPOLLET
			}
			if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
				return err
			}
			wait = func() (int, error) { return unix.EpollWait(ep, make([]unix.EpollEvent, 1), -1) }
		}
		lockThread()
		for i := range times {
			fmt.Println("waiting", i)
			n, err := wait()
			for err == unix.EINTR {
				n, err = wait()
			}
			if err != nil {
				return err
			}
			if i == times-1 {
				fmt.Println("woken", n)
			}
		}
		return nil
	}
}

// TestPollLatency shows what a wake-up costs, written at once and by way of the Notifier.
func TestPollLatency(t *testing.T) {
	const times = 400
	for _, how := range []string{"NotifyPoll", "Notifier.Poll"} {
		m := serveTest(t, nil)
		c := m.start("pollclock", m.dir+"/poll-a", strconv.Itoa(times))
		m.await("poll poll-a flags=1")
		var taken []time.Duration
		for i := range times {
			c.says(fmt.Sprintf("waiting %d\n", i))
			time.Sleep(200 * time.Microsecond) // for the child to get into epoll_wait
			var kh uint64
			m.fs.mu.Lock()
			for _, h := range m.fs.handles {
				kh, _ = h.waiters.Handle()
				h.ready = true
			}
			m.fs.mu.Unlock()
			begin := monotonic()
			if how == "NotifyPoll" {
				m.loop.NotifyPoll(kh)
			} else {
				m.loop.Notifier().Poll(kh)
			}
			line := fmt.Sprintf("woken %d ", i)
			c.says(line)
			var woken int64
			if _, err := fmt.Sscanf(c.stdout.after(line), "%d", &woken); err != nil {
				t.Fatal(err)
			}
			taken = append(taken, time.Duration(woken-begin))
		}
		c.must()
		slices.Sort(taken)
		t.Logf("%-14s to epoll_wait's return: p50 %v, p99 %v", how, taken[times/2], taken[times*99/100])
	}
}

func init() {
	children["pollclock"] = func(args []string) error {
		fd, err := unix.Open(args[0], unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		times, _ := strconv.Atoi(args[1])
		ep, err := unix.EpollCreate1(0)
		if err != nil {
			return err
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return err
		}
		lockThread()
		events := make([]unix.EpollEvent, 1)
		for i := range times {
			fmt.Println("waiting", i)
			for {
				if _, err := unix.EpollWait(ep, events, -1); err != unix.EINTR {
					break
				}
			}
			fmt.Println("woken", i, monotonic())
		}
		return nil
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}
