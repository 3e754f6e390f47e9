package run

import (
	"errors"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/queue"
)

// pause is how long those asked for so far may take to be granted, before more are asked for: a slot that nobody has is
// granted in less, and the rest need not be made, nor taken from hosts that keep them for their next use.
const pause = 10 * time.Millisecond

// asks are the requests for slots.
type asks struct {
	o     *options
	dir   string
	idle  []int // not asked for yet, and free as far as this host knows
	taken []int // not asked for yet, and held
	polls []unix.PollFd
	slots []int // of each of polls
}

// first asks for one idle slot, then ever more of them, at last for all, and returns the first that is granted.
func (a *asks) first(began time.Time) (held, error) {
	for group := 1; ; group *= 2 {
		next := a.taken
		if len(a.idle) > 0 {
			next, a.idle = a.idle[:min(group, len(a.idle))], a.idle[min(group, len(a.idle)):]
		} else {
			a.taken = nil
		}
		for _, slot := range next {
			if h, err := a.ask(slot); err != nil || h.slot != 0 {
				return h, err
			}
		}
		more := len(a.idle)+len(a.taken) > 0
		end, limited := began.Add(a.o.waiting.Limit), a.o.waiting.Limit > 0
		if soon := time.Now().Add(pause); more && (!limited || soon.Before(end)) {
			end, limited = soon, true
		}
		switch h, err := a.wait(end, limited); {
		case err != nil || h.slot != 0:
			return h, err
		case len(a.polls) == 0 && !more:
			return held{}, a.o.waiting.Conflict("run", a.dir, unix.EAGAIN)
		case a.o.waiting.Limit > 0 && time.Since(began) >= a.o.waiting.Limit:
			return held{}, a.o.waiting.Conflict("run", a.dir, unix.ETIMEDOUT)
		}
	}
}

// ask asks for one slot and does not wait. It returns the slot if it is granted at once, else none.
func (a *asks) ask(slot int) (held, error) {
	path := filepath.Join(a.dir, strconv.Itoa(slot))
	for {
		fd, err := openSlot(path)
		if err != nil {
			return held{}, err
		}
		request := a.o.ioctl()
		request.Wait, request.Flags = 0, request.Flags&^ioc.HeadQue|ioc.Async|ioc.NoDlckWt
		granted, err := ioc.Lock(fd, request)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ESTALE): // not asked; removed
			unix.Close(fd)
			continue
		case err != nil:
			unix.Close(fd)
			return held{}, a.refused(slot, err)
		case granted.Mode != 0:
			return held{fd: fd, path: path, mode: queue.Mode(granted.Mode), token: granted.Token, slot: slot}, nil
		}
		a.polls, a.slots = append(a.polls, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}), append(a.slots, slot)
		return held{}, nil
	}
}

// refused is the error of a request that is not granted, none if it is one for a try and the slot is merely busy.
func (a *asks) refused(slot int, err error) error {
	if a.o.waiting.Never && busy(err) {
		return nil
	}
	return a.o.waiting.Conflict("run", filepath.Join(a.dir, strconv.Itoa(slot)), err)
}

// wait waits until one of those asked for is granted, all are refused, or the end, if there is one. It returns none if
// none is granted.
func (a *asks) wait(end time.Time, limited bool) (held, error) {
	for len(a.polls) > 0 {
		millis := -1
		if limited {
			millis = int(max(0, min(time.Until(end)+time.Millisecond-1, 1<<30*time.Millisecond)).Milliseconds())
		}
		n, err := unix.Poll(a.polls, millis)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return held{}, exit.Of("run", a.dir, err)
		case n == 0 && !time.Now().Before(end):
			return held{}, nil
		}
		for i := len(a.polls) - 1; i >= 0; i-- {
			if a.polls[i].Revents != 0 {
				if h, err := a.answered(i); err != nil || h.slot != 0 {
					return h, err
				}
			}
		}
	}
	return held{}, nil
}

// answered takes one that poll(2) found something about out of those under way: granted, or refused.
func (a *asks) answered(i int) (held, error) {
	fd, slot := int(a.polls[i].Fd), a.slots[i]
	granted := a.polls[i].Revents&unix.POLLIN != 0
	a.polls = append(a.polls[:i], a.polls[i+1:]...)
	a.slots = append(a.slots[:i], a.slots[i+1:]...)
	if granted {
		t, err := ioc.TokenOf(fd)
		if err == nil {
			return held{fd: fd, path: filepath.Join(a.dir, strconv.Itoa(slot)), mode: queue.Mode(t.Mode), token: t.Token, slot: slot}, nil
		}
		unix.Close(fd)
		return held{}, a.refused(slot, err)
	}
	_, err := unix.Read(fd, make([]byte, 1)) // says why
	unix.Close(fd)
	switch {
	case errors.Is(err, unix.ESTALE):
		return a.ask(slot) // removed before it was asked for
	case err == nil:
		err = unix.EIO
	}
	return held{}, a.refused(slot, err)
}

// withdraw takes back what is still asked for. What was granted at this very moment is let go of.
func (a *asks) withdraw() {
	for _, p := range a.polls {
		unix.Close(int(p.Fd))
	}
	a.polls = nil
}
