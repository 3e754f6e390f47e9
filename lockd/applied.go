package lockd

import (
	"github.com/lockfs/lockfs/lockd/state"
)

// Applied tells the host of an applied entry: what it changed, and the state after it. Cluster calls it for every
// entry, in order, from the goroutine that applies. It is quick and never waits.
func (h *Host) Applied(index uint64, changes []state.Change, view *state.View) {
	old := h.view.Swap(view)
	from := h.authors(changes)
	for _, f := range h.onChange {
		f(index, changes, from)
	}
	clear(from)
	h.mu.Lock()
	if h.phase == fresh || h.phase == closed {
		h.mu.Unlock()
		return
	}
	h.onTime()
	var renewals, own bool
	for i := range changes {
		c := &changes[i]
		if c.Kind == state.SessionRenewed {
			renewals, own = true, own || c.Session == h.lease.session
		}
		h.applied(c, step{rest: changes[i+1:], old: old, view: view})
	}
	if renewals {
		h.keepStep(h.cfg.Now(), own)
	}
	h.unlock()
}

// authors finds who made the changes of the tree in an entry: for each the Call.From of who waits for the command, which is the one
// that the session's next answer is to. The slice is used again for the next entry.
func (h *Host) authors(changes []state.Change) []any {
	session := h.sessionID.Load()
	h.from = h.from[:0]
	made := false // a change since the last answer
	for i := range changes {
		c := &changes[i]
		switch {
		case c.Session != session:
		case c.Kind.Tree():
			made = true
		case c.Kind == state.Done && made:
			h.from = madeBy(h.waitsFor(session, c.Seq), session, changes[:i], h.from)
			made = false
		}
	}
	return h.from
}

// madeBy appends for the changes that have no author yet the one that made all those of the session.
func madeBy(author any, session uint64, changes []state.Change, from []any) []any {
	for i := len(from); i < len(changes); i++ {
		if c := &changes[i]; c.Session == session && c.Kind.Tree() {
			from = append(from, author)
		} else {
			from = append(from, nil)
		}
	}
	return from
}

// waitsFor returns the Call.From of who waits for the answer to a command, nil if nobody does.
func (h *Host) waitsFor(session, seq uint64) any {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.queue
	if q == nil || q.session != session || len(q.list) == 0 || seq < q.list[0].seq {
		return nil
	}
	if at := seq - q.list[0].seq; at < uint64(len(q.list)) && q.list[at].done != nil {
		return q.list[at].from
	}
	return nil
}

// step is where a change stands: what follows it in the entry, and the state before and after the entry.
type step struct {
	rest      []state.Change
	old, view *state.View
	own       bool // the session that ended was this daemon's
}

// applied handles one change.
func (h *Host) applied(c *state.Change, at step) {
	switch c.Kind {
	case state.Done:
		h.answer(c)
	case state.Gap:
		if h.queue != nil && h.queue.session == c.Session {
			h.queue.again()
		}
	case state.SessionOpened:
		if c.Host == h.cfg.Name {
			h.sessionOpened(c, at.view)
		}
	case state.SessionRenewed:
		if c.Session == h.lease.session {
			h.renewedAt(c.Stamp)
		}
	case state.SessionEnded:
		at.own = h.isOwn(c.Session)
		h.sessionEnded(c)
		h.watchedBy(at.view)
	case state.Watched:
		h.watchedBy(at.view)
	case state.Told:
		h.told(c, at)
	case state.RangeGranted:
		if c.Session == h.lease.session {
			if r := h.ranges[c.ID]; r != nil {
				r.grant(c.Session)
			}
		}
	case state.HostRefused, state.HostLowered:
		h.recallAnswered(c, at.view)
	case state.Recall:
		if c.Session == h.lease.session {
			h.counts.Recalls++
			h.hurry()
		}
	case state.Suspected:
		h.askedOf(c.ID)
	case state.Deadlocked:
		h.deadlocked(c, at.view)
	}
	h.table.Applied(*c)
	h.noticeOf(c, at)
}

// answer gives the answer to a command to whoever waits for it.
func (h *Host) answer(c *state.Change) {
	q := h.queue
	if q != nil && q.session == c.Session {
		h.news.answered(c.Seq)
	}
	if q == nil || q.session != c.Session {
		if q = h.former; q == nil || q.session != c.Session {
			return
		}
	}
	for len(q.list) > 0 && q.list[0].seq < c.Seq {
		q.answered(q.list[0].seq).finish(Result{session: q.session}, errUnseen)
	}
	if p := q.answered(c.Seq); p != nil {
		p.finish(Result{Index: c.Index, Ino: c.Ino, Generation: c.Generation, Code: c.Code, session: c.Session}, nil)
	}
}

// noticeOf tells of a change of the tree, of a value or of the hosts.
func (h *Host) noticeOf(c *state.Change, at step) {
	v := at.view
	switch c.Kind {
	case state.Value, state.Invalidated:
		if c.Kind == state.Value && c.Session == h.lease.session {
			h.counts.Commits++
		}
		h.valueNotice(c, at)
		return
	}
	if !h.subscribed.Load() {
		return
	}
	n := Notice{Time: h.wall(), Ino: c.Ino, Dir: c.Dir, Index: c.Index, By: h.partyOf(c.Session, v)}
	switch c.Kind {
	case state.Made:
		n.Kind, n.Path, n.above = NoticeCreated, at.path(c.Parent, c.Name), at.from(c.Parent)
	case state.Removed:
		if c.Parent == 0 {
			return
		}
		n.Kind, n.Path, n.above = NoticeRemoved, at.path(c.Parent, c.Name), at.from(c.Parent)
	case state.Moved:
		n.Kind, n.Path, n.To = NoticeRenamed, at.path(c.Parent, c.Name), at.path(c.NewParent, c.NewName)
		n.above, n.to = at.from(c.Parent), at.from(c.NewParent)
	case state.SessionOpened:
		if c.Session <= h.joined {
			return // told of before
		}
		h.joined = c.Session
		n = Notice{Kind: NoticeHostJoined, Time: n.Time, Index: c.Index, By: Party{Host: c.Host}}
	case state.SessionEnded:
		if c.Reason == state.Leave && lives(c.Host, v) {
			return // one too many, of a host that asked more than once
		}
		n = Notice{Kind: NoticeHostLeft, Time: n.Time, Index: c.Index, By: Party{Host: c.Host}, Reason: c.Reason.String()}
		h.publishHere(n)
		if c.Reason != state.Leave && !at.own { // who leaves has told all of it
			h.releasedWith(state.Session{ID: c.Session, Host: c.Host}, c.Reason.String(), at)
		}
		return
	default:
		return
	}
	h.publishHere(n)
}

// lives reports whether a host has a session.
func lives(host string, v *state.View) bool {
	for s := range v.Sessions() {
		if s.Host == host {
			return true
		}
	}
	return false
}

// valueNotice tells of a new or invalid value, also the locks of the resource here but the one that committed it.
func (h *Host) valueNotice(c *state.Change, at step) {
	var listening []*Lock
	for t := range h.table.Locks(c.Ino) {
		if l := t.User.(*Lock); l.Listener != nil {
			listening = append(listening, l)
		}
	}
	if listening == nil && !h.subscribed.Load() {
		return
	}
	n := Notice{
		Kind: NoticeValue, Time: h.wall(), Ino: c.Ino, Index: c.Index, Generation: c.Generation,
		Path: at.view.Path(c.Ino), By: h.partyOf(c.Session, at.view),
	}
	if n.By.Host == "" {
		n.By = h.partyOf(c.Session, at.old) // the end of its session made the value invalid
	}
	if c.Kind == state.Invalidated {
		n.Kind = NoticeInvalid
	}
	author := h.author(c, at.rest)
	for _, l := range listening {
		if l != author {
			h.tellListener(l, n)
		}
	}
	h.publish(n)
}

// author returns the lock whose commit made a change: the next answer to a command of this session is that command's.
func (h *Host) author(c *state.Change, rest []state.Change) *Lock {
	if h.queue == nil || c.Session != h.queue.session || len(h.queue.list) == 0 {
		return nil
	}
	for i := range rest {
		if rest[i].Kind == state.Done && rest[i].Session == c.Session {
			if p := h.queue.list[0]; p.seq == rest[i].Seq {
				return p.lock
			}
			return nil
		}
	}
	return nil
}

// partyOf names the host of a session.
func (h *Host) partyOf(session uint64, v *state.View) Party {
	if session == 0 {
		return Party{}
	}
	s, _ := v.Session(session)
	return Party{Host: s.Host}
}

// path is the path of an entry, in a directory that may be gone by the end of the log entry.
func (at *step) path(dir uint64, name string) string {
	switch path := at.has(dir).Path(dir); path {
	case "":
		return "" // it came and went within the entry
	case "/":
		return path + name
	default:
		return path + "/" + name
	}
}

// from are a directory and those above it.
func (at *step) from(dir uint64) []*state.Node { return from(at.has(dir), dir) }

// has returns the later of the two views that has a node, if any has.
func (at *step) has(ino uint64) *state.View {
	if at.view.Node(ino) == nil {
		return at.old
	}
	return at.view
}
