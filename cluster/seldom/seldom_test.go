package seldom

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(slog.New(slog.NewTextHandler(&out, nil)))
		for range 5 {
			l.Warn("a", "first")
			l.Warn("b", "second")
			time.Sleep(every / 4)
		}
		if got := out.String(); strings.Count(got, "first") != 2 || strings.Count(got, "second unlogged=3") != 1 {
			t.Error(got)
		}
	})
}

// TestManyKeys: whoever makes up keys does not fill the memory or the log.
func TestManyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(slog.New(slog.DiscardHandler))
		logged := 0
		for i := range 4 * keys {
			if _, yes := l.Due(string(rune('A' + i))); yes {
				logged++
			}
		}
		if len(l.since) > keys+1 || logged > keys+1 {
			t.Errorf("%d keys, %d logged", len(l.since), logged)
		}
		time.Sleep(every)
		if _, yes := l.Due("new"); !yes || len(l.since) != 1 {
			t.Errorf("after the time: %v, %d keys", yes, len(l.since))
		}
	})
}
