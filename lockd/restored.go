package lockd

import "github.com/lockfs/lockfs/lockd/state"

// Restored tells the host that the state was replaced by a snapshot's: at the start, or since the host was so far behind
// that the entries in between are gone. The session goes on if it lives there. What the entries would have told of the
// tree, OnChange functions and subscribers are told all at once (state.View.Since); the table finds in the state what
// this host was granted, what it waits for and what is recalled. What was answered in between is not known: whoever
// waits for it gets ErrNoQuorum. It takes as long as the state is large.
func (h *Host) Restored(view *state.View) {
	old := h.view.Swap(view)
	if !h.goesOn() {
		return // nobody knows anything yet, or any more
	}
	changes := view.Since(old)
	for _, f := range h.onChange {
		f(view.Index(), changes, nil)
	}
	h.mu.Lock()
	defer h.unlock()
	if h.phase == closed {
		return
	}
	h.onTime()
	h.publishHere(Notice{Kind: NoticeOverflow, Time: h.wall(), Index: view.Index()}) // what hosts told meanwhile is not in the state
	own := h.lease.session
	for _, q := range []*proposals{h.queue, h.former} {
		if q != nil {
			h.restoredQueue(q, view)
		}
	}
	for id, w := range h.ranges {
		h.rangeRestored(id, w, view)
	}
	h.table.Restored(view)
	h.restoredSessions(own, step{old: old, view: view})
	h.restoredDeadlocks(view)
	h.news.answered(h.news.underway)
	h.watchedBy(view)
	for i := range changes {
		h.noticeOf(&changes[i], step{old: old, view: view})
	}
}

// goesOn reports whether the host was started and is not closed.
func (h *Host) goesOn() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.phase != fresh && h.phase != closed
}

// restoredQueue ends what was answered unseen. All else is sent again: whether the state met a gap in the numbers, and
// refused all behind it, was not seen either.
func (h *Host) restoredQueue(q *proposals, v *state.View) {
	s, lives := v.Session(q.session)
	for len(q.list) > 0 && lives && q.list[0].seq <= s.Seq {
		q.answered(q.list[0].seq).finish(Result{session: q.session}, errUnseen)
	}
	if lives {
		q.again()
		return
	}
	for _, p := range q.list {
		p.finish(Result{session: q.session}, errUnseen) // it may have been applied before the session ended
	}
	q.list, q.sent = nil, 0
	h.sessionEnded(&state.Change{Kind: state.SessionEnded, Session: q.session})
}

// restoredSessions takes note of the sessions that were opened and ended meanwhile, this host's own included.
func (h *Host) restoredSessions(own uint64, at step) {
	old, v := at.old, at.view
	for s := range old.Sessions() {
		if _, lives := v.Session(s.ID); !lives {
			h.publishHere(Notice{Kind: NoticeHostLeft, Time: h.wall(), Index: v.Index(), By: Party{Host: s.Host}}) // why, nobody knows here
			if s.ID != own {
				h.releasedWith(s, "", at)
			}
		}
	}
	for s := range v.Sessions() {
		c := &state.Change{Kind: state.SessionOpened, Index: v.Index(), Session: s.ID, Host: s.Host, Nonce: s.Nonce, TTL: s.TTL}
		if s.Host == h.cfg.Name && s.ID != h.lease.session {
			h.sessionOpened(c, v)
		}
		if _, known := old.Session(s.ID); !known {
			h.noticeOf(c, step{old: old, view: v})
		}
	}
}

// rangeRestored ends a wait for a range that is no longer one. What is still under way is answered as ever.
func (h *Host) rangeRestored(id uint64, w *rangeWait, v *state.View) {
	if !w.answered() {
		return
	}
	for r := range v.RangeWaits(w.ino) {
		if r.Session == h.lease.session && r.ID == id {
			return
		}
	}
	for r := range v.Ranges(w.ino) {
		if r.Session == h.lease.session && r.Owner == w.want.Owner && r.Write == w.want.Write && r.Start <= w.want.Start && r.End >= w.want.End {
			w.grant(r.Session)
			return
		}
	}
	w.finish(errSessionLost) // it is asked for again
}
