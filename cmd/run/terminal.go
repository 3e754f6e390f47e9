package run

import (
	"errors"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminal hands the foreground of the controlling terminal to the command's group and takes it back, as a shell
// with job control does. The nil terminal does nothing: there is none, or this process is not in its foreground.
type terminal struct{ fd int }

func openTerminal() *terminal {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	if group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || group != unix.Getpgrp() {
		unix.Close(fd)
		return nil
	}
	return &terminal{fd}
}

// give makes the command's group the foreground one. The command may have been stopped for reading too early.
func (t *terminal) give(group int) {
	if t == nil {
		return
	}
	t.foreground(group)
	unix.Kill(-group, unix.SIGCONT)
}

// take makes this process's own group the foreground one again.
func (t *terminal) take() {
	if t != nil {
		t.foreground(unix.Getpgrp())
	}
}

// foreground sets the group with SIGTTOU blocked, which a process in the background would get for it.
func (t *terminal) foreground(group int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ttou, old unix.Sigset_t
	ttou.Val[0] = 1 << (uint(unix.SIGTTOU) - 1)
	if unix.PthreadSigmask(unix.SIG_BLOCK, &ttou, &old) == nil {
		unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group)
		unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	}
}

// wait waits for the command's end. When it is stopped from the terminal, this process's job stops too, and both go
// on together.
func wait(pid int, tty *terminal, ended chan<- syscall.WaitStatus) {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil || !status.Stopped():
			ended <- status
			return
		case tty != nil:
			tty.take()
			unix.Kill(0, unix.SIGTSTP)
			tty.give(pid)
		}
	}
}
