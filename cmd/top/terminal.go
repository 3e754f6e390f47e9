package top

import (
	"bytes"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// terminal is a person's, in raw mode while it is shown.
type terminal struct {
	in, out *os.File
	before  *term.State
}

// Escape sequences of every terminal since the VT100 and xterm.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l" // the other screen, no cursor, lines are cut and not wrapped
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearLine   = "\x1b[2K"
	inverse     = "\x1b[7m"
	plain       = "\x1b[0m"
)

// isTerminal reports whether both ends are a person's.
func isTerminal(in io.Reader, out io.Writer) (i, o *os.File, ok bool) {
	i, inFile := in.(*os.File)
	o, outFile := out.(*os.File)
	return i, o, inFile && outFile && term.IsTerminal(int(i.Fd())) && term.IsTerminal(int(o.Fd()))
}

// enter takes the terminal.
func (t *terminal) enter() error {
	var err error
	if t.before, err = term.MakeRaw(int(t.in.Fd())); err != nil {
		return err
	}
	_, err = t.out.WriteString(enterScreen)
	return err
}

// leave gives it back as it was.
func (t *terminal) leave() {
	t.out.WriteString(leaveScreen)
	term.Restore(int(t.in.Fd()), t.before)
}

// size is how many columns and lines there are.
func (t *terminal) size() (width, height int) {
	width, height, err := term.GetSize(int(t.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return 80, 24
	}
	return width, height
}

// draw shows lines, the second one marked as the head of a table. It is one write, so that nothing flickers.
func (t *terminal) draw(lines []string) error {
	var b strings.Builder
	b.WriteString(home)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		if i == 1 && i < len(lines)-1 {
			line = inverse + line + plain
		}
		b.WriteString(clearLine + line)
	}
	_, err := t.out.WriteString(b.String())
	return err
}

// sequences are what the keys send that are no characters.
var sequences = []struct {
	bytes string
	key
}{
	{"\x1b[A", keyUp}, {"\x1bOA", keyUp}, {"\x1b[B", keyDown}, {"\x1bOB", keyDown}, {"\x1b[5~", keyPageUp}, {"\x1b[6~", keyPageDown},
	{"\x1b[H", keyHome}, {"\x1bOH", keyHome}, {"\x1b[1~", keyHome}, {"\x1b[F", keyEnd}, {"\x1bOF", keyEnd}, {"\x1b[4~", keyEnd},
}

// keys reads what is typed until nothing more comes. It runs as long as the process: a read of a terminal ends only with a key.
func (t *terminal) keys(to chan<- key) {
	defer close(to)
	buffer := make([]byte, 256)
	for {
		n, err := t.in.Read(buffer)
		for rest := buffer[:n]; len(rest) > 0; {
			k, size := parseKey(rest)
			rest = rest[size:]
			if k != 0 {
				to <- k
			}
		}
		if err != nil {
			return
		}
	}
}

// parseKey returns the first key of what was read, 0 for one that is not known, and its length.
func parseKey(b []byte) (key, int) {
	for _, s := range sequences {
		if bytes.HasPrefix(b, []byte(s.bytes)) {
			return s.key, len(s.bytes)
		}
	}
	if b[0] != 0x1b {
		r, size := utf8.DecodeRune(b)
		return key(r), size
	}
	if len(b) == 1 {
		return keyEscape, 1
	}
	return 0, len(b) // of another key: whatever it sent
}
