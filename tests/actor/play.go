package actor

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// step is a line of a play: an actor, how, its call, and the result.
var step = regexp.MustCompile(`^(\w+)([&=!]?)\s*(.*?)\s*=>\s*(.*)$`)

// Play runs the play in a file; paths in it begin at dir.
func Play(t *testing.T, file, dir string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cast := map[string]*Actor{}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		m := step.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("%s:%d: want ACTOR CALL => RESULT", file, i+1)
		}
		name, how, call, want := m[1], m[2], m[3], m[4]
		a := cast[name]
		if a == nil {
			a = Start(t, dir)
			cast[name] = a
		}
		got := a.step(how, call)
		if how == "!" {
			delete(cast, name)
		}
		for name, b := range cast {
			got = strings.ReplaceAll(got, "pid="+strconv.Itoa(b.PID()), "pid="+name)
		}
		if got != want {
			t.Fatalf("%s:%d: %s\ngot  %s", file, i+1, line, got)
		}
	}
}

func (a *Actor) step(how, call string) string {
	a.t.Helper()
	switch how {
	case "&":
		a.Begin(call)
		if result, waiting := a.Waits(); !waiting {
			return result
		}
		return "waits"
	case "=":
		return a.End()
	case "!":
		a.Kill()
		return "ok"
	}
	return a.Do(call)
}
