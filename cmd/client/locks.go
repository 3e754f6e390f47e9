package client

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/lockd/queue"
)

// Lock is one entry of .lockfs/held or .lockfs/waiting.
type Lock struct {
	Path   string // of the resource in the tree, from its root, beginning with "/"
	Place  int    // in the queue, from 1; 0 for a lock that is held
	Mode   queue.Mode
	Range  string // of a byte-range lock, as "0-99" or "100-"; empty: a lock of the whole resource
	Host   string
	PID    int
	Owner  string    // uid of the process, empty if it is not known
	Since  time.Time // of the grant, or of the request while it waits
	Fields Fields    // all that the entry says
}

// Waiting reports whether the lock is asked for and not granted.
func (l Lock) Waiting() bool { return l.Place > 0 }

// Who names the holder for a person.
func (l Lock) Who() string { return l.Host + ":" + strconv.Itoa(l.PID) }

// All is what the entry's name says and then its fields.
func (l Lock) All() Fields {
	all := Fields{{"path", l.Path}, {"state", l.State()}, {"mode", l.Mode.String()}, {"host", l.Host}, {"pid", strconv.Itoa(l.PID)}}
	if l.Owner != "" {
		all = append(all, Field{"uid", l.Owner})
	}
	if !l.Since.IsZero() {
		all = append(all, Field{"since", l.Since.Format(time.RFC3339Nano)})
	}
	if l.Waiting() {
		all = append(all, Field{"place", strconv.Itoa(l.Place)})
	}
	for _, f := range l.Fields {
		if all.Get(f.Key) == "" {
			all = append(all, f)
		}
	}
	return all
}

// MarshalJSON writes All.
func (l Lock) MarshalJSON() ([]byte, error) { return l.All().MarshalJSON() }

// Asks names the mode, and of a byte-range lock the range.
func (l Lock) Asks() string {
	if l.Range == "" {
		return l.Mode.String()
	}
	return l.Mode.String() + " " + l.Range
}

// parseEntry reads the name of an entry: `EX@host1:4711`, in waiting `001.EX@host2:99`, of a byte-range lock `PR.0-99@host1:4711`, a
// second equal one with `#2`.
func parseEntry(name string) (l Lock, ok bool) {
	if place, rest, found := strings.Cut(name, "."); found && len(place) >= 3 && strings.Trim(place, "0123456789") == "" {
		l.Place, _ = strconv.Atoi(place)
		name = rest
	}
	if base, _, found := strings.Cut(name, "#"); found {
		name = base
	}
	mode, who, found := strings.Cut(name, "@")
	mode, l.Range, _ = strings.Cut(mode, ".")
	if l.Mode, ok = queue.ParseMode(mode); !ok || !found {
		return Lock{}, false
	}
	colon := strings.LastIndexByte(who, ':')
	if colon < 0 {
		return Lock{}, false
	}
	pid, err := strconv.Atoi(who[colon+1:])
	if err != nil {
		return Lock{}, false
	}
	l.Host, l.PID = who[:colon], pid
	return l, true
}

// Held returns the locks held at and below a path of the tree ("" is its root), in the order of their paths.
func (m Mount) Held(path string) ([]Lock, error) { return m.walk("held", path, true) }

// Waiting returns those asked for and not granted, likewise, each queue in its order.
func (m Mount) Waiting(path string) ([]Lock, error) { return m.walk("waiting", path, true) }

// HeldHere and WaitingHere leave out what is below.
func (m Mount) HeldHere(path string) ([]Lock, error)    { return m.walk("held", path, false) }
func (m Mount) WaitingHere(path string) ([]Lock, error) { return m.walk("waiting", path, false) }

// walk lists one of the two trees. A path that nobody holds anything at is no error.
func (m Mount) walk(list, path string, below bool) ([]Lock, error) {
	top := m.Control(list, path)
	locks := []Lock{} // not nil: JSON shows it
	err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // let go meanwhile
		}
		if errors.Is(err, fs.ErrPermission) && name != top {
			return fs.SkipDir // not this reader's affair
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(m.Control(list), name)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if !below && name != top {
				return fs.SkipDir
			}
			return nil
		}
		if l, ok := m.entry(name, "/"+filepath.Dir(rel)); ok {
			locks = append(locks, l)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(locks, func(a, b Lock) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Place, b.Place), a.Since.Compare(b.Since))
	})
	return locks, nil
}

// entry reads one entry; ok is false if it went meanwhile.
func (m Mount) entry(name, path string) (Lock, bool) {
	l, ok := parseEntry(filepath.Base(name))
	if !ok {
		return Lock{}, false
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return Lock{}, false
	}
	l.Path = path
	l.Fields = ParseLines(string(text))
	l.Owner = l.Fields.Get("uid")
	l.Since = ParseTime(l.Fields.Get("since"))
	return l, true
}

// ParseTime reads the times of listings: RFC 3339, or seconds since 1970 with a fraction. The zero time if neither.
func ParseTime(s string) time.Time {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t
	}
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		return time.Unix(0, int64(sec*1e9))
	}
	return time.Time{}
}

// Status reads .lockfs/status.
func (m Mount) Status(op string) (Fields, error) {
	text, err := os.ReadFile(m.Control("status"))
	if err != nil {
		return nil, exit.Of(op, m.Point, err)
	}
	return ParseLines(string(text)), nil
}

// Stat looks a path of the tree up.
func (m Mount) Stat(path string) error {
	_, err := os.Stat(m.Below(path))
	return err
}

// Merge puts each resource's queue behind its holders. Both lists are in the order of their paths.
func Merge(held, waiting []Lock) []Lock {
	all := append(slices.Clone(held), waiting...)
	slices.SortStableFunc(all, func(a, b Lock) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Place, b.Place))
	})
	return all
}
