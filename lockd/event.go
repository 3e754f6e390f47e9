package lockd

import (
	"log/slog"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/table"
)

// event handles one event of the table. Called with the mutex held.
func (h *Host) event(e *table.Event) {
	var l *Lock
	if e.Lock != nil {
		l = e.Lock.User.(*Lock)
	}
	switch e.Kind {
	case table.Granted:
		h.grantedLater(l, e)
	case table.Refused:
		if l.wait != nil {
			h.finish(l, reason(e.Reason))
		}
	case table.Blocking:
		h.blocking(l, e)
	case table.Waiting:
		h.lookAgain(l)
	case table.Deadlock:
		h.suspected(l)
	case table.Lost:
		if g := l.unclaimed(); g != nil && g.before == queue.None {
			g.timer.Stop()
			l.claimed() // nobody has it
			return
		}
		n := h.lockNotice(NoticeLost, l)
		n.Mode, n.Token = l.Mode(), l.Token()
		h.lose(l, n, h.lossReason)
	case table.Jeopardy:
		h.jeopardy(true)
	case table.Safe:
		h.jeopardy(false)
	}
}

// grantedLater ends the wait of a request that was not granted by Try.
func (h *Host) grantedLater(l *Lock, e *table.Event) {
	w := l.wait
	l.t.Since = h.cfg.Now()
	switch {
	case w == nil && l.unclaimed() == nil && l.Mode() == e.Mode:
		return // what was granted without a claim is given back
	case w == nil:
		h.granted(l, 0, e.Converted)
		return
	case w.linger != nil:
		l.extras().unclaimed = w.linger
		h.finish(l, nil)
		return
	}
	h.granted(l, w.expires, e.Converted)
	if l.async {
		kind := NoticeGranted
		if e.Converted {
			kind = NoticeConverted
		}
		h.tellListener(l, h.lockNotice(kind, l))
	}
	h.finish(l, nil)
}

// blocking is a blocking AST. Subscribers are told of each request that is held up, the lock's own listener once for each
// mode that is asked for, and again when whoever caused that does not wait any more.
func (h *Host) blocking(l *Lock, e *table.Event) {
	if l.unclaimed() != nil {
		return
	}
	fresh := l.Listener != nil && l.tellBlocked(e)
	if !fresh && !h.subscribed.Load() {
		return
	}
	n := h.lockNotice(NoticeBlocking, l)
	n.Wanted = e.Mode
	if e.By != nil {
		n.By = Party{Host: h.cfg.Name, PID: e.By.PID}
	} else {
		s, _ := h.View().Session(e.BySession)
		n.By = Party{Host: s.Host}
	}
	if fresh {
		h.counts.Blocking++
		h.tellListener(l, n)
	}
	h.publish(n)
}

// told is a blocking AST that was delivered: for what mode, and for whose wait.
type told struct {
	mode  queue.Mode
	by    *Lock // nil: of another host
	order uint64
}

// tellBlocked reports whether a blocking AST is due, and notes that it is delivered.
func (l *Lock) tellBlocked(e *table.Event) bool {
	now := told{mode: e.Mode}
	if e.By != nil {
		now.by = e.By.User.(*Lock)
		if w := now.by.wait; w != nil {
			now.order = w.order
		}
	}
	x := l.extras()
	for i := range x.told {
		t := &x.told[i]
		if t.mode != e.Mode {
			continue
		}
		if t.by != nil && t.by.wait != nil && t.by.wait.order == t.order {
			return false
		}
		*t = now
		return true
	}
	x.told = append(x.told, now)
	return true
}

// lockNotice begins a notice of a lock. Whose it is stands in By; for blocking that is replaced by who asks.
func (h *Host) lockNotice(kind NoticeKind, l *Lock) Notice {
	return Notice{
		Kind: kind, Time: h.wall(), Ino: l.t.Ino, Mode: l.t.Mode, Token: l.t.Token,
		By:   Party{Host: h.cfg.Name, PID: l.t.PID},
		Path: h.View().Path(l.t.Ino),
	}
}

// tellListener queues a notice for a lock's own listener.
func (h *Host) tellListener(l *Lock, n Notice) {
	if l.Listener != nil {
		h.outbox = append(h.outbox, delivery{to: l.Listener, n: n})
	}
}

// publish queues a notice for the subscribers.
func (h *Host) publish(n Notice) {
	if !h.subscribed.Load() {
		return
	}
	if n.Ino != 0 && n.above == nil {
		n.above = h.View().Ancestors(nil, n.Ino)
	}
	h.counts.Notices++
	h.outbox = append(h.outbox, delivery{n: n})
}

// jeopardy tells that the lease is half gone, or safe again.
func (h *Host) jeopardy(on bool) {
	h.lease.jeopardy = on
	kind := NoticeSafe
	if on {
		kind = NoticeJeopardy
		h.say(slog.LevelWarn, "the session was not renewed for half its time to live: nothing is granted from the cache", "session", h.lease.session)
	} else {
		h.say(slog.LevelInfo, "the session is renewed again", "session", h.lease.session)
	}
	n := Notice{Kind: kind, Time: h.wall(), By: Party{Host: h.cfg.Name}}
	h.tellAll(n)
	h.publish(n)
}

// tellAll tells the listeners of all locks that are held.
func (h *Host) tellAll(n Notice) {
	for t := range h.table.All() {
		if l, ok := t.User.(*Lock); ok && t.Mode != queue.None {
			h.tellListener(l, n)
		}
	}
}
