package cli

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// resize gives the terminal a size and tells who runs in it.
func (w *terminal) resize(columns, lines uint16) {
	w.t.Helper()
	if err := unix.IoctlSetWinsize(int(w.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: lines}); err != nil {
		w.t.Fatal(err)
	}
}

// modes are how the terminal treats what is typed.
func (w *terminal) modes() unix.Termios {
	w.t.Helper()
	modes, err := unix.IoctlGetTermios(int(w.master.Fd()), unix.TCGETS)
	if err != nil {
		w.t.Fatal(err)
	}
	return *modes
}

// TestTop: what a person sees and types, and that the terminal is his again afterwards, however top ends.
func TestTop(t *testing.T) {
	d, _ := startHTTP(t)
	d.shell(t, `touch $M/orders $M/"$(printf 'evil\033[2J')"`)
	release := d.hold(t, `exec 9<>$M/orders 8<$M/"$(printf 'evil\033[2J')"@pr`)
	w := inTerminal(t, append(os.Environ(), "PATH="+d.path, "PS1=prompt> ", "TERM=xterm", "M="+d.point("lock")), "bash", "--norc", "--noprofile", "-i")
	w.resize(120, 12)
	w.shows("prompt> ")
	before := w.modes()

	w.types("lockfs top $M\r")
	w.shows("\x1b[?1049h")
	w.shows("2 held, 0 waiting")
	w.shows("/orders")
	w.shows(`/evil\x1b[2J`)
	w.shows("sort: [A]GE")
	w.types("p")
	w.shows("sort: [a]ge [w]aiters [P]ATH")
	w.types("/nosuch")
	w.shows("filter: nosuch")
	w.types("\r")
	w.shows(`[/]filter "nosuch"  [q]uit  0`)
	w.types("/\x7f\x7f\x7f\x7f\x7f\x7forders ex\r") // not what only its command has
	w.shows(`"orders ex"  [q]uit  1/1`)
	w.resize(120, 2)
	w.shows("[q]uit")
	w.resize(100, 9)
	w.shows("RESOURCE")
	release()
	w.shows("0 held, 0 waiting") // by itself, a second later
	w.types("q")
	w.shows("\x1b[?1049l")
	w.shows("prompt> ")
	if w.modes() != before {
		t.Error("after q the terminal is not as it was")
	}

	w.types("lockfs top $M\r")
	w.shows("[q]uit")
	w.types("\x03")
	w.shows("\x1b[?1049l")
	w.shows("prompt> ")
	w.types("lockfs top $M\r")
	w.shows("[q]uit")
	w.types("\x1a") // Ctrl-Z
	w.shows("Stopped")
	w.shows("prompt> ")
	w.types("fg\r")
	w.shows("\x1b[?1049h")
	w.shows("[q]uit")
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	w.shows("\x1b[?1049l")
	w.shows("lockfs: top ")
	w.shows("prompt> ")
	if w.modes() != before {
		t.Error("after the mount was gone the terminal is not as it was")
	}
	w.types("exit\r")
	w.cmd.Wait()
}
