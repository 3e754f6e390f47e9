package lockd

import (
	"log/slog"
	"slices"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
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
	if l.unclaimed() != nil || l.Listener == nil && !h.heard() {
		return
	}
	mode, request := h.tellBlocked(l, e)
	if !request && !mode {
		return
	}
	n := h.lockNotice(NoticeBlocking, l)
	n.Wanted = e.Mode
	if e.By != nil {
		n.By = Party{Host: h.cfg.Name, PID: e.By.PID}
	} else {
		s, _ := h.View().Session(e.Asker.Session)
		n.By = Party{Host: s.Host, PID: e.Asker.PID, Comm: e.Asker.Comm}
	}
	if mode && l.Listener != nil && l.t.Flags&queue.NoBAST == 0 {
		h.counts.Blocking++
		h.tellListener(l, n)
	}
	if request {
		h.publish(n)
	}
}

// told is a blocking AST: for what mode, and for whose wait.
type told struct {
	mode  queue.Mode
	ino   uint64 // where it waits
	by    *Lock  // nil: on another host
	order uint64
	asker table.Asker
	since uint64 // of the wait of the asker's host
}

// maxTold bounds the waits that are remembered for one lock, to tell of none twice.
const maxTold = 16

// tellBlocked notes a blocking AST. It reports whether nobody else is known to wait for the mode, and whether the request was not
// told of before: one of another host is known by a recall, without delay, and by its report.
func (h *Host) tellBlocked(l *Lock, e *table.Event) (mode, request bool) {
	if l.extra != nil && !h.heard() && slices.ContainsFunc(l.extra.told, func(t told) bool { return t.mode == e.Mode && h.stillBlocked(&t) }) {
		return false, false
	}
	now := told{mode: e.Mode, ino: e.Ino, asker: e.Asker}
	if e.By != nil {
		now.by = e.By.User.(*Lock)
		if w := now.by.wait; w != nil {
			now.order = w.order
		}
	} else {
		now.since = h.View().HostWaitSince(e.Ino, e.Asker.Session)
	}
	x := l.extras()
	if len(x.told) >= maxTold {
		x.told = slices.Delete(x.told, 0, 1)
	}
	x.told = slices.DeleteFunc(x.told, func(t told) bool { return t.mode == e.Mode && !h.stillBlocked(&t) })
	mode = !slices.ContainsFunc(x.told, func(t told) bool { return t.mode == e.Mode })
	request = !slices.ContainsFunc(x.told, func(t told) bool {
		return t.by == now.by && t.order == now.order && t.asker.Session == now.asker.Session && t.asker.PID == now.asker.PID &&
			t.mode == now.mode && t.ino == now.ino
	})
	if request {
		x.told = append(x.told, now)
	}
	return mode, request
}

// stillBlocked reports whether a wait that was told of may still stand.
func (h *Host) stillBlocked(t *told) bool {
	if t.by != nil {
		return t.by.wait != nil && t.by.wait.order == t.order
	}
	return t.since != 0 && h.View().HostWaitSince(t.ino, t.asker.Session) == t.since
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

// publish queues a notice for the subscribers, here and on other hosts.
func (h *Host) publish(n Notice) {
	if !h.heard() {
		return
	}
	if n.Ino != 0 && n.above == nil {
		n.above = above(h.View(), n.Ino)
	}
	h.tellOthers(&n)
	h.publishHere(n)
}

// above are the directories above a node, the next one first.
func above(v *state.View, ino uint64) []*state.Node {
	n := v.Node(ino)
	if n == nil {
		return nil
	}
	return from(v, n.Parent)
}

// from are a directory and those above it.
func from(v *state.View, dir uint64) (dirs []*state.Node) {
	for d := v.Node(dir); d != nil; d = v.Node(d.Parent) {
		dirs = append(dirs, d)
	}
	return dirs
}

// publishHere queues a notice for the subscribers of this host.
func (h *Host) publishHere(n Notice) {
	if !h.subscribed.Load() {
		return
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
