package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal with a program in it.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd

	mu   sync.Mutex
	text strings.Builder
	news chan struct{}
}

// inTerminal starts a program as the leader of a session whose terminal it has.
func inTerminal(t *testing.T, env []string, argv ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	w := &terminal{t: t, master: master, cmd: exec.Command(argv[0], argv[1:]...), news: make(chan struct{}, 1)}
	w.cmd.Stdin, w.cmd.Stdout, w.cmd.Stderr = slave, slave, slave
	w.cmd.Env = env
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.cmd.Process.Kill()
		master.Close()
	})
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := master.Read(buffer)
			w.mu.Lock()
			w.text.Write(buffer[:n])
			w.mu.Unlock()
			select {
			case w.news <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	return w
}

func (w *terminal) types(s string) {
	w.t.Helper()
	if _, err := w.master.WriteString(s); err != nil {
		w.t.Fatal(err)
	}
}

// shows waits until the screen has shown a text once more than it was waited for before, and forgets what was before it.
func (w *terminal) shows(want string) {
	w.t.Helper()
	over := time.After(time.Minute)
	for {
		w.mu.Lock()
		_, rest, found := strings.Cut(w.text.String(), want)
		if found {
			w.text.Reset()
			w.text.WriteString(rest)
		}
		text := w.text.String()
		w.mu.Unlock()
		if found {
			return
		}
		select {
		case <-w.news:
		case <-over:
			w.t.Fatalf("the terminal does not show %q, but %q", want, text)
		}
	}
}

// TestTerminal: the command of `lockfs run` has the terminal while it runs: it can read, Ctrl-C is for it, and Ctrl-Z stops it
// together with run, as a job of the shell.
func TestTerminal(t *testing.T) {
	needFUSE(t)
	bin := publicBinary(t)
	d := &daemon{dir: t.TempDir(), mounts: filepath.Join(bin, "mounts"), path: bin + ":" + os.Getenv("PATH")}
	t.Cleanup(d.kill)
	if err := d.start([]string{"--drain", "1s"}); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(d.point("lock"), "a")
	env := append(os.Environ(), "PATH="+d.path, "PS1=prompt> ", "TERM=dumb")
	w := inTerminal(t, env, "bash", "--norc", "--noprofile", "-i")
	w.shows("prompt> ")
	// What is typed before the command reads would be bash's: the command says when it is there.
	w.types("lockfs run " + lock + ` bash -c 'trap "echo back aga""in" CONT; echo now he""re; while read -r l; do echo got $l; done'` + "\r")
	w.shows("now here\r\n")
	w.types("hello\r")
	w.shows("got hello\r\n")

	w.types("\x1a") // Ctrl-Z
	w.shows("Stopped")
	w.shows("prompt> ")
	w.types("fg\r")
	w.shows("back again\r\n")
	w.types("there\r")
	w.shows("got there\r\n")
	w.types("\x03") // Ctrl-C
	w.shows("prompt> ")
	w.types("echo code $?\r")
	w.shows("code 130")
	w.shows("prompt> ")
	w.types("flock -n " + lock + " echo is free\r")
	w.shows("is free\r\n")
	w.types("exit\r")
	if err := w.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}
