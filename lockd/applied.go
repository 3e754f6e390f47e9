package lockd

import (
	"github.com/lockfs/lockfs/lockd/state"
)

// Applied tells the host of an applied entry: what it changed, and the state after it. Cluster calls it for every
// entry, in order, from the goroutine that applies. It is quick and never waits.
func (h *Host) Applied(index uint64, changes []state.Change, view *state.View) {
	h.view.Store(view)
	for _, f := range h.onChange {
		f(index, changes)
	}
	h.mu.Lock()
	if h.phase == fresh || h.phase == closed {
		h.mu.Unlock()
		return
	}
	h.onTime()
	for i := range changes {
		h.applied(&changes[i], changes[i+1:], view)
	}
	h.unlock()
}

// Restored tells the host that the state was replaced by a snapshot's. The session goes on if it lives there; what was
// answered in between is not known: whoever waits for it gets ErrNoQuorum. OnChange functions are called with no
// changes: anything may have changed.
func (h *Host) Restored(view *state.View) {
	h.view.Store(view)
	for _, f := range h.onChange {
		f(view.Index(), nil)
	}
	h.mu.Lock()
	defer h.unlock()
	if h.phase == fresh || h.phase == closed {
		return
	}
	for _, q := range []*proposals{h.queue, h.former} {
		if q == nil {
			continue
		}
		s, lives := view.Session(q.session)
		for len(q.list) > 0 && (!lives || q.list[0].seq <= s.Seq) {
			q.answered(q.list[0].seq).finish(Result{}, ErrNoQuorum)
		}
		if !lives {
			h.sessionEnded(&state.Change{Kind: state.SessionEnded, Session: q.session})
		}
	}
	for id, w := range h.ranges {
		h.rangeRestored(id, w, view)
	}
	h.table.Restored(view)
}

// rangeRestored ends a wait for a range that is no longer one.
func (h *Host) rangeRestored(id uint64, w *rangeWait, v *state.View) {
	for r := range v.RangeWaits(w.ino) {
		if r.Session == h.lease.session && r.ID == id {
			return
		}
	}
	for r := range v.Ranges(w.ino) {
		if r.Session == h.lease.session && r.Owner == w.want.Owner && r.Write == w.want.Write && r.Start <= w.want.Start && r.End >= w.want.End {
			w.finish(nil)
			return
		}
	}
	w.finish(errSessionLost) // it is asked for again
}

// applied handles one change; rest are those that follow it in the entry.
func (h *Host) applied(c *state.Change, rest []state.Change, v *state.View) {
	switch c.Kind {
	case state.Done:
		h.answer(c)
	case state.Gap:
		if h.queue != nil && h.queue.session == c.Session {
			h.queue.again()
		}
	case state.SessionOpened:
		if c.Host == h.cfg.Name {
			h.sessionOpened(c, v)
		}
	case state.SessionRenewed:
		if c.Session == h.lease.session {
			h.renewedAt(c.Stamp)
		}
	case state.SessionEnded:
		h.sessionEnded(c)
	case state.RangeGranted:
		if c.Session == h.lease.session {
			if r := h.ranges[c.ID]; r != nil {
				r.finish(nil)
			}
		}
	case state.HostRefused, state.HostLowered:
		h.recallAnswered(c, v)
	case state.Recall:
		if c.Session == h.lease.session {
			h.hurry()
		}
	}
	h.table.Applied(*c)
	h.noticeOf(c, rest, v)
}

// answer gives the answer to a command to whoever waits for it.
func (h *Host) answer(c *state.Change) {
	q := h.queue
	if q == nil || q.session != c.Session {
		if q = h.former; q == nil || q.session != c.Session {
			return
		}
	}
	for len(q.list) > 0 && q.list[0].seq < c.Seq {
		q.answered(q.list[0].seq).finish(Result{}, ErrNoQuorum) // its answer was not seen
	}
	if p := q.answered(c.Seq); p != nil {
		p.finish(Result{Index: c.Index, Ino: c.Ino, Generation: c.Generation, Code: c.Code}, nil)
	}
}

// noticeOf tells of a change of the tree, of a value or of the hosts.
func (h *Host) noticeOf(c *state.Change, rest []state.Change, v *state.View) {
	switch c.Kind {
	case state.Value, state.Invalidated:
		h.valueNotice(c, rest, v)
		return
	}
	if !h.subscribed.Load() {
		return
	}
	n := Notice{Time: h.wall(), Ino: c.Ino, Dir: c.Dir, Index: c.Index, By: h.partyOf(c.Session, v)}
	switch c.Kind {
	case state.Made:
		n.Kind, n.Path = NoticeCreated, joinPath(v.Path(c.Parent), c.Name)
		n.above = v.Ancestors(nil, c.Parent)
	case state.Removed:
		if c.Parent == 0 {
			return
		}
		n.Kind, n.Path = NoticeRemoved, joinPath(v.Path(c.Parent), c.Name)
		n.above = v.Ancestors(nil, c.Parent)
	case state.Moved:
		n.Kind, n.Path, n.To = NoticeRenamed, joinPath(v.Path(c.Parent), c.Name), joinPath(v.Path(c.NewParent), c.NewName)
		n.above = v.Ancestors(v.Ancestors(nil, c.Parent), c.NewParent)
	case state.SessionOpened:
		if c.Session <= h.joined {
			return // told of before
		}
		h.joined = c.Session
		n = Notice{Kind: NoticeHostJoined, Time: n.Time, Index: c.Index, By: Party{Host: c.Host}}
	case state.SessionEnded:
		n = Notice{Kind: NoticeHostLeft, Time: n.Time, Index: c.Index, By: Party{Host: c.Host}, Reason: c.Reason.String()}
	default:
		return
	}
	h.publish(n)
}

// valueNotice tells of a new or invalid value, also the locks of the resource here but the one that committed it.
func (h *Host) valueNotice(c *state.Change, rest []state.Change, v *state.View) {
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
		Path: v.Path(c.Ino), By: h.partyOf(c.Session, v),
	}
	if c.Kind == state.Invalidated {
		n.Kind = NoticeInvalid
	}
	author := h.author(c, rest)
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

// joinPath appends a name to the path of a directory.
func joinPath(dir, name string) string {
	if dir == "/" {
		return dir + name
	}
	return dir + "/" + name
}
