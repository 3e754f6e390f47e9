package client

import (
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"
)

// How people are shown what listings say: the columns of `lockfs ls` and `lockfs top`.

// State is "held" or "waiting".
func (l Lock) State() string {
	if l.Waiting() {
		return "waiting"
	}
	return "held"
}

// Command is what the lock's process runs, as much as the reader may know, "-" if nothing.
func (l Lock) Command() string {
	for _, key := range []string{"command", "comm"} {
		if c := l.Fields.Get(key); c != "" {
			return shorten(Printable(c))
		}
	}
	return "-"
}

// shorten cuts a command line to what a table can bear.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// User is the name of the process's user, or his number, "-" if he is not known.
func (l Lock) User() string {
	if l.Owner == "" {
		return "-"
	}
	if name, known := users.Load(l.Owner); known {
		return name.(string)
	}
	name := l.Owner
	if u, err := user.LookupId(l.Owner); err == nil {
		name = Printable(u.Username)
	}
	users.Store(l.Owner, name)
	return name
}

// users are the names that were looked up, by number.
var users sync.Map

// BlockedBy names who holds a request up, as HOST:PID or HOST:PID/COMMAND.
func (l Lock) BlockedBy() []string {
	return strings.FieldsFunc(l.Fields.Get("blocked-by"), func(c rune) bool { return c == ',' })
}

// Age is how long ago t was, in the unit that a person would use, "-" for no time.
func Age(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(0, now.Sub(t))
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d"
}
