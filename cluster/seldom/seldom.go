// Package seldom logs what happens again and again once in a while.
package seldom

import (
	"log/slog"
	"sync"
	"time"
)

const (
	every = time.Minute // the same thing
	keys  = 256         // things that are told apart
)

// Log logs each thing at most once a minute, however often it happens, and then how often it was not logged.
type Log struct {
	log *slog.Logger

	mu    sync.Mutex
	since map[string]*told
}

type told struct {
	at    time.Time
	again int // times since
}

// New returns a Log that logs to another.
func New(log *slog.Logger) *Log { return &Log{log: log, since: map[string]*told{}} }

// Warn logs unless what the key stands for was logged lately.
func (l *Log) Warn(key, msg string, args ...any) {
	again, yes := l.Due(key)
	if !yes {
		return
	}
	if again > 0 {
		args = append(args, "unlogged", again)
	}
	l.log.Warn(msg, args...)
}

// Due says whether what the key stands for is to be logged now, and how often it was not since it last was. When there are too many
// keys the others are as one.
func (l *Log) Due(key string) (again int, yes bool) { return l.due(key, time.Now()) }

func (l *Log) due(key string, now time.Time) (again int, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.since[key]
	if t == nil && len(l.since) >= keys {
		for k, old := range l.since {
			if now.Sub(old.at) >= every {
				delete(l.since, k)
			}
		}
		if len(l.since) >= keys {
			key = ""
			t = l.since[key]
		}
	}
	if t == nil {
		l.since[key] = &told{at: now}
		return 0, true
	}
	if now.Sub(t.at) < every {
		t.again++
		return 0, false
	}
	again, t.again, t.at = t.again, 0, now
	return again, true
}
