package lockd

import (
	"maps"
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// What a lock's grant and release change between the processes of one host is no entry of the log, mostly. Where the readers of notices
// are on other hosts these say so in the log, and are told there, in the background:
//
//	b: a@events is opened ── Watch{a} ──► log ──► a: others watch /a
//	a: a is granted ── Tell{granted} ──► log ──► b: the notice
//
// A Tell goes before every command that is queued after what it tells of: whoever is granted what a host let go of is so after
// all have been told of that. Where nobody watches nothing is told, and it costs nothing.

// maxNews bounds what is to be told and not answered yet. What comes while so much waits is dropped, and its number is told.
const maxNews = 4 * state.MaxTold

// news is what this host watches elsewhere, and what it has to tell those who watch here. Guarded by Host.mu.
type news struct {
	watching []uint64        // as it was said last
	watched  map[uint64]bool // by other hosts
	list     []*statepb.Told
	dropped  uint64
	underway uint64 // number of the last Tell, until it is answered; 0: none
	unheard  int    // notices in those that are not answered
	tells    []tell // those, in order
}

// tell is a Tell that is not answered yet: its number, and how many notices it has.
type tell struct {
	seq     uint64
	notices int
}

// events are those of the state for the kinds that hosts tell each other.
var events = map[NoticeKind]state.Event{
	NoticeGranted: state.EventGranted, NoticeConverted: state.EventConverted, NoticeReleased: state.EventReleased,
	NoticeLost: state.EventLost, NoticeBlocking: state.EventBlocking,
}

// noticeKinds are the kinds of those events.
var noticeKinds = func() map[state.Event]NoticeKind {
	kinds := map[state.Event]NoticeKind{state.EventDropped: NoticeOverflow}
	for kind, event := range events {
		kinds[event] = kind
	}
	return kinds
}()

// heard reports whether anybody reads notices, here or elsewhere. Called with the mutex held.
func (h *Host) heard() bool { return h.subscribed.Load() || len(h.news.watched) > 0 }

// watch says what this host wants to be told of, if that has changed. It is called with no mutex held.
func (h *Host) watch() {
	h.mu.Lock()
	if want := h.wants(); !slices.Equal(want, h.news.watching) {
		h.sayWatch(want)
	}
	h.unlock()
}

// wants returns the resources that the subscriptions are for: the root, for all, if they are too many.
func (h *Host) wants() []uint64 {
	h.subsMu.Lock()
	defer h.subsMu.Unlock()
	inos := make(map[uint64]bool)
	for _, s := range h.subs {
		if s.filter.Ino != 0 {
			inos[s.filter.Ino] = true
		} else {
			inos[state.Root] = true
		}
	}
	if inos[state.Root] || len(inos) > state.MaxWatches {
		return []uint64{state.Root}
	}
	return slices.Sorted(maps.Keys(inos))
}

func (h *Host) sayWatch(want []uint64) {
	h.news.watching = want
	h.command(&statepb.Command{Op: &statepb.Command_Watch{Watch: &statepb.Watch{Inos: want}}})
}

// watchAgain says in a new session what the former one said. What was not told in between is lost.
func (h *Host) watchAgain(v *state.View) {
	h.news.watching = nil
	want := h.wants()
	if len(want) == 0 {
		return
	}
	h.sayWatch(want)
	for s := range v.Sessions() {
		if s.ID != h.lease.session {
			h.publishHere(Notice{Kind: NoticeOverflow, Time: h.wall()}) // how many, nobody knows
			return
		}
	}
}

// watchedBy takes note of what other hosts want to be told of.
func (h *Host) watchedBy(v *state.View) {
	h.news.watched = nil
	for s := range v.Sessions() {
		if s.ID == h.lease.session {
			continue
		}
		for _, ino := range s.Watches {
			if h.news.watched == nil {
				h.news.watched = make(map[uint64]bool)
			}
			h.news.watched[ino] = true
		}
	}
}

// tellOthers keeps a notice of a lock here for the hosts that watch it.
func (h *Host) tellOthers(n *Notice) {
	event, told := events[n.Kind]
	if !told || h.queue == nil || !h.news.watched[n.Ino] &&
		!slices.ContainsFunc(n.above, func(d *state.Node) bool { return h.news.watched[d.Ino] }) {
		return
	}
	if len(h.news.list)+h.news.unheard >= maxNews {
		h.news.dropped++
		return
	}
	t := &statepb.Told{
		Event: uint32(event), Ino: n.Ino, Mode: uint32(n.Mode), Token: n.Token, Pid: n.By.PID, Comm: []byte(n.By.Comm),
		Wanted: uint32(n.Wanted), Reason: []byte(n.Reason),
	}
	if n.Kind == NoticeBlocking {
		t.Host = []byte(n.By.Host)
	}
	h.news.list = append(h.news.list, t)
}

// tellNews queues what is to be told before anything else is queued.
func (h *Host) tellNews() {
	for n := &h.news; len(n.list) > 0 || n.dropped > 0 && n.underway == 0; {
		told := n.list[:min(len(n.list), state.MaxTold)]
		cmd := &statepb.Command{
			TimeUnixNs: h.wall().UnixNano(),
			Op:         &statepb.Command_Tell{Tell: &statepb.Tell{Lost: n.dropped, Told: told}},
		}
		n.list, n.dropped = n.list[len(told):], 0
		if len(n.list) == 0 {
			n.list = nil
		}
		h.queue.add(&pending{own: true, named: cmd})
		n.underway, n.unheard = h.queue.next-1, n.unheard+len(told)
		n.tells = append(n.tells, tell{n.underway, len(told)})
	}
}

// answered takes note that a command was answered, and so all before it.
func (n *news) answered(seq uint64) {
	for len(n.tells) > 0 && n.tells[0].seq <= seq {
		n.unheard -= n.tells[0].notices
		n.tells = n.tells[1:]
	}
	if len(n.tells) == 0 {
		n.underway, n.tells = 0, nil
	}
}

// newsPending reports whether there is something to tell now: one Tell is under way at a time, and gathers what comes meanwhile.
func (h *Host) newsPending() bool {
	return (len(h.news.list) > 0 || h.news.dropped > 0) && h.news.underway == 0 && h.queue != nil
}

// forgetNews drops what the former session had to tell: with its end its locks have gone.
func (h *Host) forgetNews() {
	h.news.list, h.news.tells, h.news.dropped, h.news.underway, h.news.unheard = nil, nil, 0, 0, 0
}

// nameProcesses fills in the names of processes in a command that shows them to other hosts. It looks into /proc, so no
// mutex is held.
func (h *Host) nameProcesses(cmd *statepb.Command) {
	names := make(map[uint32][]byte)
	name := func(pid uint32) []byte {
		comm, ok := names[pid]
		if !ok && pid != 0 {
			comm = []byte(cut(h.cfg.Processes.Comm(pid)))
			names[pid] = comm
		}
		return comm
	}
	switch op := cmd.Op.(type) {
	case *statepb.Command_Acquire:
		op.Acquire.Comm = name(op.Acquire.Pid)
	case *statepb.Command_Tell:
		for _, t := range op.Tell.Told {
			if len(t.Comm) == 0 && (len(t.Host) == 0 || string(t.Host) == h.cfg.Name) {
				t.Comm = name(t.Pid)
			}
		}
	}
}

// told hands on to the subscribers here what another host tells.
func (h *Host) told(c *state.Change, at step) {
	if !h.subscribed.Load() || h.isOwn(c.Session) {
		return
	}
	n := Notice{
		Kind: noticeKinds[c.Event], Time: h.wall(), Ino: c.Ino, Mode: c.Mode, Wanted: c.Wanted, Token: c.Token, Reason: c.NewName,
		Index: c.Index, Count: c.ID, By: h.partyOf(c.Session, at.view),
	}
	if n.By.Host == "" {
		n.By = h.partyOf(c.Session, at.old) // its session ended in the same entry
	}
	n.By.PID, n.By.Comm = c.PID, c.Name
	if c.Event == state.EventBlocking {
		n.By.Host = c.Host
	}
	if c.Ino != 0 {
		v := at.has(c.Ino)
		n.Path, n.above = v.Path(c.Ino), above(v, c.Ino)
	}
	h.publishHere(n)
}

// isOwn reports whether a session is or was this daemon's own.
func (h *Host) isOwn(session uint64) bool {
	return session == h.lease.session || h.former != nil && session == h.former.session || session == h.opening.end
}

// releasedWith tells of the locks that went with a session of another host: it cannot do so itself any more. Locks that it had for
// less than youngFor are not known here.
func (h *Host) releasedWith(session state.Session, why string, at step) {
	if !h.subscribed.Load() {
		return
	}
	told, rest := 0, uint64(0)
	for r := range at.old.AllReports() {
		if r.Session != session.ID || r.Waits() {
			continue
		}
		if told++; told > maxNews { // no reader keeps so many
			rest++
			continue
		}
		h.publishHere(Notice{
			Kind: NoticeReleased, Time: h.wall(), Ino: r.Ino, Mode: r.Mode, Token: r.Token, Index: at.view.Index(), Reason: why,
			By: Party{Host: session.Host, PID: r.PID, Comm: r.Comm}, Path: at.old.Path(r.Ino), above: above(at.old, r.Ino),
		})
	}
	if rest > 0 {
		h.publishHere(Notice{Kind: NoticeOverflow, Time: h.wall(), Count: rest})
	}
}

// Watching waits, for a moment at most, until what was said to other hosts of a new subscription is in the log, so that they tell
// of what happens from now on.
func (h *Host) Watching(c *Call) {
	others := false
	for s := range h.View().Sessions() {
		others = others || s.ID != h.Session()
	}
	if !others || h.Fresh() != nil {
		return
	}
	barrier := &statepb.Command{Op: &statepb.Command_Barrier{Barrier: &statepb.Barrier{}}}
	_, _ = h.do(c, barrier, &pending{}, patience{most: watchingFor, cancel: c.cancel()}) // without contact it watches all the same
}

// watchingFor bounds Watching.
const watchingFor = time.Second
