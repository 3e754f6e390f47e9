package top

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/lockd/queue"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// some is a round with three locks and two requests.
func some() round {
	lock := func(path string, mode queue.Mode, place, pid int, age time.Duration, waiters int, by string) row {
		l := client.Lock{Path: path, Mode: mode, Place: place, Host: "h", PID: pid, Owner: "4000000", Since: now.Add(-age)}
		l.Fields = client.Fields{{Key: "comm", Value: fmt.Sprint("cmd", pid)}, {Key: "blocked-by", Value: by}}
		return row{l, waiters}
	}
	return round{
		time:  now,
		hosts: []client.Fields{{{Key: "host", Value: "h"}, {Key: "role", Value: "leader"}, {Key: "state", Value: "alive"}}, {{Key: "state", Value: "failed"}}},
		rows: []row{
			lock("/a", queue.PR, 0, 1, time.Hour, 2, ""), lock("/a", queue.EX, 1, 2, time.Minute, 1, "h:1/cmd1,h:9"),
			lock("/a", queue.PR, 2, 3, time.Second, 0, "h:2"), lock("/b\x1b[2J", queue.EX, 0, 4, 48*time.Hour, 0, ""),
			lock("/c/a/long/way/down/the/tree", queue.CR, 0, 5, 2*time.Second, 0, ""),
		},
	}
}

// pids tells which rows are shown.
func pids(rows []row) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprint(&b, r.PID)
	}
	return b.String()
}

func TestSelection(t *testing.T) {
	r := some()
	for _, x := range []struct {
		s    selection
		want string
	}{
		{selection{}, "41253"}, {selection{reverse: true}, "35214"}, {selection{key: 1}, "12345"}, {selection{key: 2}, "12345"},
		{selection{key: 2, reverse: true}, "54321"}, {selection{key: 3}, "24135"}, {selection{filter: "CMD2"}, "2"}, {selection{filter: "waiting"}, "23"},
		{selection{filter: "long/way"}, "5"}, {selection{filter: "nothing"}, ""}, {selection{filter: "h:1/cmd1+1"}, "2"},
	} {
		if got := pids(x.s.of(r.rows)); got != x.want {
			t.Errorf("%+v: rows %s, want %s", x.s, got, x.want)
		}
	}
	if got := pids(r.rows); got != "12345" {
		t.Errorf("the round itself is in the order %s now", got)
	}
}

// TestScreen: whatever its size, no more lines than it has, and nothing that a terminal would obey.
func TestScreen(t *testing.T) {
	for height := 1; height < 12; height++ {
		for _, width := range []int{1, 20, 80, 300} {
			s := screen{last: some()}
			lines := s.lines(width, height, now)
			if len(lines) != height {
				t.Errorf("%d lines on a screen of %d", len(lines), height)
			}
			if strings.ContainsFunc(strings.Join(lines, ""), func(r rune) bool { return r < ' ' }) {
				t.Errorf("control characters in %q", lines)
			}
		}
	}
	s := screen{last: some(), selection: selection{key: 2}}
	lines := s.lines(80, 6, now)
	for i, want := range []string{"03:04:05  1 of 2 hosts alive, leader h  3 held, 2 waiting", "RESOURCE", "/a ", "/a ", "/a ", "sort: [a]ge [w]aiters [P]ATH [m]ode"} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d is %q, want %q", i, lines[i], want)
		}
	}
	s.press(keyEnd, 6)
	if lines := s.lines(80, 6, now); !strings.HasPrefix(lines[4], "…y/down/the/tree  CR") {
		t.Errorf("the last row is %q", lines[4])
	}
	s.press(keyHome, 6)
	if lines := s.lines(80, 6, now); !strings.HasPrefix(lines[2], "/a ") {
		t.Errorf("the first row is %q", lines[2])
	}
}

func TestKeys(t *testing.T) {
	s := screen{last: some()}
	press := func(typed string) (quit bool) {
		for rest := []byte(typed); len(rest) > 0; {
			k, n := parseKey(rest)
			rest = rest[n:]
			quit = s.press(k, 24) || quit
		}
		return quit
	}
	shown := func() string { s.lines(80, 24, now); return pids(s.of(s.last.rows)) }
	for _, x := range []struct{ typed, want string }{
		{"w", "12345"}, {"r", "34521"}, {"r", "12345"}, {"a", "41253"}, {"/cmdX\x7f2\r", "2"}, {"\x1b", "41253"}, {"/qä\x1b", "41253"},
		{"\x1b[B\x1b[6~\x1b[5~\x1b[A", "41253"}, {"m", "24135"},
	} {
		if press(x.typed) {
			t.Fatalf("%q ends it", x.typed)
		}
		if got := shown(); got != x.want {
			t.Errorf("after %q: %s, want %s", x.typed, got, x.want)
		}
	}
	if !press("q") || !press("/x\x03") {
		t.Error("q and Ctrl-C do not end it")
	}
}

func TestPause(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{0: period, 250 * time.Millisecond: 750 * time.Millisecond, time.Second: 3 * time.Second} {
		if got := pause(took); got != want {
			t.Errorf("after %v a pause of %v, want %v", took, got, want)
		}
	}
}
