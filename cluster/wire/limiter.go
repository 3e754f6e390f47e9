package wire

import (
	"log/slog"
	"sync"
	"time"
)

const (
	logEvery = time.Minute // the same for the same host
	logKeys  = 256         // hosts and reasons that are told apart
)

// limiter logs each thing once in a while, however often it happens.
type limiter struct {
	log *slog.Logger

	mu    sync.Mutex
	since map[string]*told
}

type told struct {
	at    time.Time
	again int // times since
}

func newLimiter(log *slog.Logger) *limiter { return &limiter{log: log, since: map[string]*told{}} }

// warn logs unless what the key stands for was logged lately.
func (l *limiter) warn(key, msg string, args ...any) {
	again, yes := l.due(key, time.Now())
	if !yes {
		return
	}
	if again > 0 {
		args = append(args, "unlogged", again)
	}
	l.log.Warn(msg, args...)
}

// due says whether to log now, and how often it was not done before. Past logKeys keys all others are as one.
func (l *limiter) due(key string, now time.Time) (again int, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.since[key]
	if t == nil && len(l.since) >= logKeys {
		for k, old := range l.since {
			if now.Sub(old.at) >= logEvery {
				delete(l.since, k)
			}
		}
		if len(l.since) >= logKeys {
			key = ""
			t = l.since[key]
		}
	}
	if t == nil {
		l.since[key] = &told{at: now}
		return 0, true
	}
	if now.Sub(t.at) < logEvery {
		t.again++
		return 0, false
	}
	again, t.again, t.at = t.again, 0, now
	return again, true
}
