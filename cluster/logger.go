package cluster

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"slices"

	"github.com/hashicorp/go-hclog"

	"github.com/lockfs/lockfs/cluster/seldom"
	"github.com/lockfs/lockfs/cluster/wire"
)

// raftLog hands what raft and raft-wal log to slog. They tell of every step at Info and of ordinary elections at
// Warn, so their levels are lowered by one, and what is no news to an operator is lowered further (quiet). What they repeat as
// long as a host cannot be reached is logged once in a while.
type raftLog struct {
	to     *slog.Logger
	name   string
	seldom *seldom.Log     // nil: all is logged
	stop   <-chan struct{} // once it is closed nothing is news any more
	args   []any
}

var _ hclog.Logger = (*raftLog)(nil)

// quiet are messages at Warn or Error that belong to ordinary operation.
var quiet = map[string]bool{
	"heartbeat timeout reached, starting election":             true,
	"Election timeout reached, restarting election":            true,
	"not part of stable configuration, aborting election":      true,
	"no known peers, aborting election":                        true,
	"failed to commit logs":                                    true, // Node.appendEnded says so, once
	"failed to take snapshot":                                  true, // Node.snapshots does
	"skipping application of old log":                          true,
	"unable to get address for server, using fallback address": true,
	"failed to decode incoming command":                        true, // a connection broke, and the dialer says so
	"failed to flush response":                                 true,
}

// hintRefusals are what a follower says of a hint that came too early (hint.go). When it is the leader's true entries that are
// refused, the leader says so too.
var hintRefusals = map[string]bool{"failed to get previous log": true, "previous log term mis-match": true}

// others are the arguments that name another host.
var others = map[any]bool{"peer": true, "target": true, "from": true, "candidate": true, "server-id": true}

// due says whether to log something now, and how often it was not since it last was.
func (l *raftLog) due(level hclog.Level, msg string, args []any) (again int, yes bool) {
	if l.seldom == nil || level < hclog.Warn {
		return 0, true
	}
	key := l.name + ": " + msg
	if len(args) > 1 && others[args[0]] {
		key += fmt.Sprint(" ", args[1])
	}
	return l.seldom.Due(key)
}

func (l *raftLog) level(level hclog.Level, msg string) slog.Level {
	switch {
	case level <= hclog.Info, quiet[msg]:
		return slog.LevelDebug
	case level == hclog.Warn:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	if level <= hclog.Debug && level != hclog.NoLevel || hintRefusals[msg] {
		return
	}
	to := l.level(level, msg)
	if slices.ContainsFunc(args, func(a any) bool { err, is := a.(error); return is && wire.RefusedAs(err, wire.Starting) }) {
		to = slog.LevelDebug // it has yet to start, or to hear that it was admitted
	}
	select {
	case <-l.stop:
		to = slog.LevelDebug
	default:
	}
	if !l.to.Enabled(context.Background(), to) {
		return
	}
	again, yes := l.due(level, msg, args)
	if !yes {
		return
	}
	all := make([]any, 0, len(l.args)+len(args))
	for _, a := range append(append(all, l.args...), args...) {
		if f, ok := a.(hclog.Format); ok && len(f) > 1 {
			a = fmt.Sprintf(f[0].(string), f[1:]...)
		}
		all = append(all, a)
	}
	if len(all)%2 == 1 {
		all = append(all, "")
	}
	if again > 0 {
		all = append(all, "unlogged", again)
	}
	l.to.Log(context.Background(), to, msg, all...)
}

func (l *raftLog) Trace(string, ...any)          {}
func (l *raftLog) Debug(string, ...any)          {}
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }
func (l *raftLog) IsTrace() bool                 { return false }
func (l *raftLog) IsDebug() bool                 { return false }
func (l *raftLog) IsInfo() bool                  { return l.to.Enabled(context.Background(), slog.LevelDebug) }
func (l *raftLog) IsWarn() bool                  { return true }
func (l *raftLog) IsError() bool                 { return true }
func (l *raftLog) ImpliedArgs() []any            { return l.args }
func (l *raftLog) Name() string                  { return l.name }
func (l *raftLog) SetLevel(hclog.Level)          {}
func (l *raftLog) GetLevel() hclog.Level         { return hclog.Info }
func (l *raftLog) ResetNamed(n string) hclog.Logger {
	return &raftLog{to: l.to, name: n, seldom: l.seldom, stop: l.stop, args: l.args}
}

func (l *raftLog) Named(n string) hclog.Logger {
	if l.name != "" {
		n = l.name + "." + n
	}
	return l.ResetNamed(n)
}

func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{to: l.to, name: l.name, seldom: l.seldom, stop: l.stop, args: append(append([]any(nil), l.args...), args...)}
}

func (l *raftLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{l} }

func (l *raftLog) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}

// lineWriter logs each line written to it.
type lineWriter struct{ l *raftLog }

func (w lineWriter) Write(b []byte) (int, error) {
	w.l.Info(string(b))
	return len(b), nil
}
