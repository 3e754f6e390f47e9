package exit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestReport(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		text string
	}{
		{nil, OK, ""},
		{Status(7), 7, ""},
		{Usagef("ls", "no %s", "way"), Usage, "lockfs: ls: no way; see lockfs ls --help\n"},
		{Of("run", "/l/a", syscall.EDEADLK), Refused, "lockfs: run /l/a: waiting would be a deadlock; release what this process or its partner holds, then try again\n"},
		{Of("ls", "/l", &os.PathError{Op: "open", Path: "/l", Err: syscall.ENOTCONN}), Unavailable, "lockfs: ls /l: the daemon of this mount is gone; start lockfs mount on it again\n"},
		{&Error{Op: "run", Path: "/l", What: "no", Code: NoInput, Err: syscall.EACCES}, NoInput, "lockfs: run /l: no; NL CR PR need read permission, CW PW EX write permission\n"},
		{errors.New("odd"), Software, "lockfs: odd\n"},
		{fmt.Errorf("more: %w", Of("ls", "/l", syscall.EXDEV)), Software, "lockfs: more: ls /l: invalid cross-device link\n"},
	} {
		var b bytes.Buffer
		if code := Report(&b, c.err); code != c.code || b.String() != c.text {
			t.Errorf("%v: code %d, %q", c.err, code, b.String())
		}
	}
}

// TestMeanings: each errno once, each with both halves of a message.
func TestMeanings(t *testing.T) {
	seen := map[syscall.Errno]bool{}
	for _, m := range meanings {
		if seen[m.errno] || m.what == "" || m.do == "" || m.code == 0 || strings.HasSuffix(m.what, ".") {
			t.Errorf("%v: %+v", m.errno, m)
		}
		seen[m.errno] = true
	}
}
