package client

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/exit"
)

// Command gives the daemon a command, through .lockfs/control, and returns its answer. The error is an *exit.Error that says
// so if the daemon ended before it answered.
func (m Mount) Command(op, line string) (answer string, err error) {
	f, err := os.OpenFile(m.Control("control"), os.O_RDWR, 0)
	if err != nil {
		return "", m.private(op, err)
	}
	defer f.Close()
	if _, err := f.WriteString(line + "\n"); err != nil {
		return "", exit.Of(op, m.Point, err)
	}
	text, err := io.ReadAll(f)
	if err != nil {
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENODEV) {
			return "", &exit.Error{Op: op, Path: m.Point, What: "the daemon ended before it answered", Do: "its log says what came of it",
				Code: exit.Unavailable, Err: err}
		}
		return "", exit.Of(op, m.Point, err)
	}
	if reason, bad := strings.CutPrefix(string(text), "error "); bad {
		return "", &exit.Error{Op: op, What: strings.TrimSpace(reason), Code: exit.Refused}
	}
	return strings.TrimPrefix(string(text), "ok\n"), nil
}

// private says who may open what not everybody may.
func (m Mount) private(op string, err error) error {
	e := &exit.Error{Op: op, Path: m.Point, Err: err}
	if errors.Is(err, unix.EACCES) {
		e.What, e.Do, e.Code = "no permission", "that is for root and the daemon's own user", exit.Refused
	}
	return e
}

// OpenSnapshot opens a snapshot of the whole state, to be read once from its beginning to its end.
func (m Mount) OpenSnapshot(op string) (*os.File, error) {
	f, err := os.Open(m.Control("snapshot"))
	if err != nil {
		return nil, m.private(op, err)
	}
	return f, nil
}

// Hosts reads .lockfs/hosts: what is known of each host of the cluster, by name.
func (m Mount) Hosts(op string) ([]Fields, error) {
	list, err := os.ReadDir(m.Control("hosts"))
	if err != nil {
		return nil, exit.Of(op, m.Point, err)
	}
	hosts := []Fields{} // not nil: JSON shows it
	for _, e := range list {
		text, err := os.ReadFile(filepath.Join(m.Control("hosts"), e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // it left meanwhile
		}
		if err != nil {
			return nil, exit.Of(op, m.Point, err)
		}
		hosts = append(hosts, ParseLines(string(text)))
	}
	return hosts, nil
}
