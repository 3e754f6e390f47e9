package actor

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/queue"
)

// pollBits are the events of poll(2) and epoll(2), which have the same numbers.
var pollBits = []struct {
	name string
	bit  uint32
}{{"in", unix.POLLIN}, {"pri", unix.POLLPRI}, {"out", unix.POLLOUT}, {"err", unix.POLLERR}, {"hup", unix.POLLHUP}, {"nval", unix.POLLNVAL}, {"et", unix.EPOLLET}}

// bits are the events of some names.
func bits(names string) (events uint32) {
	for _, b := range pollBits {
		if slices.Contains(strings.Split(names, ","), b.name) {
			events |= b.bit
		}
	}
	return events
}

// names are those of some events.
func names(events uint32) (list []string) {
	for _, b := range pollBits {
		if events&b.bit != 0 {
			list = append(list, b.name)
		}
	}
	return list
}

// again makes a call that waits until no signal has interrupted it.
func again(call func() (int, error)) (n int, err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		n, err = call()
	}
	return n, err
}

func poll(p *program, a []string) (string, error) {
	fds := []unix.PollFd{{Fd: int32(p.fd(a[0])), Events: int16(bits(a[1]))}}
	_, err := again(func() (int, error) { return unix.Poll(fds, int(num(a[2]))) })
	return "[" + strings.Join(names(uint32(fds[0].Revents)), " ") + "]", err
}

func selectFD(p *program, a []string) (string, error) {
	fd, want := p.fd(a[0]), bits(a[1])
	sets := []struct {
		bit uint32
		set unix.FdSet
	}{{bit: unix.POLLIN}, {bit: unix.POLLPRI}, {bit: unix.POLLOUT}}
	timeout := unix.NsecToTimeval(num(a[2]) * int64(time.Millisecond))
	_, err := again(func() (int, error) {
		for i := range sets {
			if sets[i].set.Zero(); want&sets[i].bit != 0 {
				sets[i].set.Set(fd)
			}
		}
		return unix.Select(fd+1, &sets[0].set, &sets[2].set, &sets[1].set, &timeout)
	})
	var got uint32
	for i := range sets {
		if sets[i].set.IsSet(fd) {
			got |= sets[i].bit
		}
	}
	return "[" + strings.Join(names(got), " ") + "]", err
}

func watch(p *program, a []string) (string, error) {
	if _, made := p.fds[a[0]]; !made {
		ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return "", err
		}
		p.fds[a[0]] = ep
	}
	fd := p.fd(a[1])
	return "", unix.EpollCtl(p.fd(a[0]), unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: bits(a[2]), Fd: int32(fd)})
}

func epoll(p *program, a []string) (string, error) {
	events := make([]unix.EpollEvent, 64)
	n, err := again(func() (int, error) { return unix.EpollWait(p.fd(a[0]), events, int(num(a[1]))) })
	var got []string
	for _, e := range events[:max(n, 0)] {
		for name, fd := range p.fds {
			if fd == int(e.Fd) {
				got = append(got, name+":"+strings.Join(names(e.Events), ","))
			}
		}
	}
	slices.Sort(got)
	return "[" + strings.Join(got, " ") + "]", err
}

func request(p *program, a []string) (string, error) {
	mode, ok := queue.ParseMode(a[1])
	if !ok {
		return "", fmt.Errorf("no mode %s", a[1])
	}
	_, err := ioc.Lock(p.fd(a[0]), ioc.Request{Mode: uint32(mode), TTL: time.Duration(num(a[2])) * time.Millisecond})
	return "", err
}

func notice(p *program, a []string) (string, error) {
	n, err := ioc.TakeNotice(p.fd(a[0]))
	if err != nil {
		return "", err
	}
	said := n.Kind.String()
	for _, mode := range []uint32{n.Mode, n.Wanted} {
		if mode != 0 {
			said += " " + queue.Mode(mode).String()
		}
	}
	return said, nil
}
