package run

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
)

// command takes the lock and runs argv under it.
func (o *options) command(path string, argv []string) error {
	binary, err := exec.LookPath(argv[0])
	if err != nil {
		return &exit.Error{Op: "run", Path: argv[0], What: "cannot be executed", Do: "check the name and its permissions",
			Code: exit.Unavailable, Err: err}
	}
	acquire := o.acquire
	if o.slots > 0 {
		acquire = o.acquireSlot
	}
	h, err := acquire(path)
	if err != nil {
		return err
	}
	if o.verbose {
		fmt.Fprintf(os.Stderr, "lockfs: run: executing %s\n", argv[0])
	}
	if !o.close {
		if _, err := unix.FcntlInt(uintptr(h.fd), unix.F_SETFD, 0); err != nil {
			return exit.Of("run", path, err)
		}
	}
	env := environment(h, !o.close)
	if o.noFork {
		return notExecuted(argv[0], syscall.Exec(binary, argv, env))
	}
	return o.watch(h, binary, argv, env)
}

// environment is this process's with what CMD is told of its lock, and without what an outer run was told of its.
func environment(h held, inherits bool) []string {
	env := slices.DeleteFunc(os.Environ(), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return slices.Contains([]string{"LOCKFS_PATH", "LOCKFS_TOKEN", "LOCKFS_MODE", "LOCKFS_FD", "LOCKFS_SLOT"}, name)
	})
	env = append(env, "LOCKFS_PATH="+h.path, "LOCKFS_TOKEN="+strconv.FormatUint(h.token, 10), "LOCKFS_MODE="+h.mode.String())
	if inherits {
		env = append(env, "LOCKFS_FD="+strconv.Itoa(h.fd))
	}
	if h.slot != 0 {
		env = append(env, "LOCKFS_SLOT="+strconv.Itoa(h.slot))
	}
	return env
}

func notExecuted(name string, err error) error {
	return &exit.Error{Op: "run", Path: name, What: "cannot be executed: " + err.Error(), Code: exit.Unavailable, Err: err}
}

func shellPath() string {
	if s := os.Getenv("SHELL"); s != "" {
		return s
	}
	return "/bin/sh"
}

// handedOn are the signals that are passed to the command; those that mean an end go to its whole group, as they
// would come from a terminal.
var handedOn = map[os.Signal]bool{
	unix.SIGHUP: true, unix.SIGINT: true, unix.SIGQUIT: true, unix.SIGTERM: true,
	unix.SIGUSR1: false, unix.SIGUSR2: false, unix.SIGALRM: false, unix.SIGWINCH: false, unix.SIGCONT: false,
}

// watch starts the command and looks after it until it ends.
func (o *options) watch(h held, binary string, argv, env []string) error {
	signals := make(chan os.Signal, 16)
	for sig := range handedOn {
		if !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	defer signal.Stop(signals)

	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	tty := openTerminal()
	pid, err := syscall.ForkExec(binary, argv, attr)
	if err != nil {
		return notExecuted(argv[0], err)
	}
	tty.give(pid)
	ended := make(chan syscall.WaitStatus, 1)
	go wait(pid, tty, ended)
	news := make(chan news)
	go listen(h.fd, o.onBlocking != 0, news)

	var (
		lost bool
		kill <-chan time.Time
	)
	for {
		select {
		case status := <-ended:
			tty.take()
			if lost && !o.onLoss.ignore {
				endGroup(pid, kill)
				return &exit.Error{Op: "run", Path: h.path, What: "the lock was lost",
					Do: argv[0] + " was ended; see lockfs status", Code: exit.Lost}
			}
			return statusOf(status)
		case sig := <-signals:
			to := pid
			if handedOn[sig] {
				to = -pid
			}
			unix.Kill(to, sig.(unix.Signal))
		case n := <-news:
			switch {
			case !n.lost:
				unix.Kill(pid, o.onBlocking)
			case o.onLoss.ignore:
				lost = true
				fmt.Fprintf(os.Stderr, "lockfs: run %s: the lock was lost, %s goes on as --on-loss ignore says\n", h.path, argv[0])
			default:
				lost = true
				unix.Kill(-pid, o.onLoss.signal)
				unix.Kill(-pid, unix.SIGCONT) // a stopped group would not hear it
				kill = time.After(o.grace)
			}
		case <-kill:
			unix.Kill(-pid, unix.SIGKILL)
		}
	}
}

// endGroup waits until nothing is left of a group whose leader has ended, and ends by force what is still there
// when the time is up. That a group is empty is no event that could be waited for.
func endGroup(group int, timeUp <-chan time.Time) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for unix.Kill(-group, 0) == nil {
		select {
		case <-tick.C:
		case <-timeUp:
			unix.Kill(-group, unix.SIGKILL)
			return
		}
	}
}

// statusOf is the exit code of a command that ended, as a shell has it.
func statusOf(status syscall.WaitStatus) error {
	code := status.ExitStatus()
	if status.Signaled() {
		code = 128 + int(status.Signal())
	}
	if code == 0 {
		return nil
	}
	return exit.Status(code)
}

// news is what poll(2) tells of the lock.
type news struct{ lost bool }

// listen waits on the descriptor for notices, if they are wanted, and for the loss of the lock.
func listen(fd int, notices bool, out chan<- news) {
	poll := []unix.PollFd{{Fd: int32(fd)}}
	if notices {
		poll[0].Events = unix.POLLPRI
	}
	for {
		_, err := unix.Poll(poll, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || poll[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
			out <- news{lost: true}
			return
		}
		if poll[0].Revents&unix.POLLPRI != 0 && takeBlocking(fd) {
			out <- news{}
		}
	}
}

// takeBlocking takes all notices and reports whether one of them was that another is blocked.
func takeBlocking(fd int) bool {
	blocking := false
	for {
		n, err := ioc.TakeNotice(fd)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return blocking
		}
		blocking = blocking || n.Kind == ioc.Blocking
	}
}
