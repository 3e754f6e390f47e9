package lockd

import (
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
	"github.com/lockfs/lockfs/lockd/table"
)

// What a process holds or waits for longer than youngFor is told to the cluster, in batches (DESIGN 3.4). Until then it costs its place in a
// list, which is linked through the locks so that the warm path allocates nothing.
//
//	granted ──► young ──┬─ released: nothing was told
//	                    └─ 50 ms ──► told (Report) ── released ──► gone (Report)
//
// The look at the processes is done by a goroutine of its own, since it may block; it also tells whose a lock is when the
// thread that asked for it has ended.
const (
	youngFor   = 50 * time.Millisecond
	tellLocks  = 256 // told at once
	tellWaits  = 64
	tellGone   = 4096
	maxHolds   = 4096 // that a wait names
	maxComm    = 64
	followTick = 100 * time.Millisecond // how often it is looked where the waits that were told are held up
)

// youngList are the locks that are not told yet, in order of the grant. Guarded by Host.mu.
type youngList struct{ first, last *Lock }

// add puts a lock at the end.
func (y *youngList) add(l *Lock) {
	if l.young {
		if y.last == l {
			return
		}
		y.drop(l)
	}
	l.young, l.prev = true, y.last
	if y.last != nil {
		y.last.next = l
	} else {
		y.first = l
	}
	y.last = l
}

// drop takes a lock off the list.
func (y *youngList) drop(l *Lock) {
	if !l.young {
		return
	}
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		y.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		y.last = l.prev
	}
	l.young, l.prev, l.next = false, nil, nil
}

// grown takes those that were granted before some time off the list.
func (y *youngList) grown(before int64) (list []*Lock) {
	for l := y.first; l != nil && len(list) < tellLocks && l.t.Since <= before; l = y.first {
		y.drop(l)
		list = append(list, l)
	}
	return list
}

// telling is a wait on its way to be told, and after. It is part of a waiter or of a rangeWait.
type telling struct {
	lock *Lock      // of a waiter
	wait *rangeWait // else
	list *tellingList
	prev *telling
	next *telling

	since int64  // when the wait began
	id    uint64 // told under it; 0: not yet
	at    uint64 // where it was held up then
	first bool   // and its place there
	rank  int64
}

// tellingList is a list of waits, in the order in which they came. Guarded by Host.mu.
type tellingList struct{ first, last *telling }

func (y *tellingList) add(t *telling) {
	t.list, t.prev, t.next = y, y.last, nil
	if y.last != nil {
		y.last.next = t
	} else {
		y.first = t
	}
	y.last = t
}

// drop takes a wait off the list that it is in, if any.
func (t *telling) drop() {
	y := t.list
	if y == nil {
		return
	}
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		y.first = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	} else {
		y.last = t.prev
	}
	t.list, t.prev, t.next = nil, nil, nil
}

// reports is what a host knows of what it told. Guarded by Host.mu.
type reports struct {
	young  youngList
	waits  tellingList // not told yet
	told   tellingList
	gone   []*statepb.ReportKey
	lastID uint64
	hasty  bool // tell of all at once, however young
}

// pending reports whether something will have to be told soon.
func (r *reports) pending() bool {
	return r.young.first != nil || r.waits.first != nil || len(r.gone) > 0
}

// due reports whether something is to be told now, or may be.
func (r *reports) due(now int64) bool {
	before := now - int64(youngFor)
	return r.hasty || len(r.gone) > 0 || r.told.first != nil ||
		r.young.first != nil && r.young.first.t.Since <= before || r.waits.first != nil && r.waits.first.since <= before
}

// begin notes a wait.
func (r *reports) begin(t *telling, now int64) {
	t.since, t.id = now, 0
	r.waits.add(t)
}

// end notes that a wait is over.
func (h *Host) endTelling(t *telling) {
	t.drop()
	if t.id == 0 {
		return
	}
	ino := uint64(0)
	if t.lock != nil {
		ino = t.lock.t.Ino
	} else {
		ino = t.wait.ino
	}
	h.goneReport(ino, t.id)
	t.id = 0
}

// goneReport notes that what was told is over.
func (h *Host) goneReport(ino, id uint64) {
	if h.lease.session != 0 {
		h.reports.gone = append(h.reports.gone, &statepb.ReportKey{Ino: ino, Id: id})
		h.hurry()
	}
}

// forgetReports begins anew: with the session all that was told has ended. The locks are lost, the waits go on.
func (h *Host) forgetReports() {
	h.reports.gone = nil
	var waits []*telling
	for _, y := range []*tellingList{&h.reports.told, &h.reports.waits} {
		for t := y.first; t != nil; t = y.first {
			t.drop()
			t.id = 0
			waits = append(waits, t)
		}
	}
	for _, t := range waits {
		h.reports.waits.add(t)
	}
}

// tellNow has the young told at once: some of them are in a deadlock already.
func (h *Host) tellNow() {
	h.reports.hasty = true
	h.prodded = true
}

// tell is the goroutine that tells the cluster of locks and waits.
func (h *Host) tell() {
	defer h.work.Done()
	var k known
	for {
		select {
		case <-h.stopped:
			return
		case <-h.tellKick:
		}
		for h.tellOnce(&k) {
		}
	}
}

// known is what the goroutine knows of the locks that it told of in a session: by whose descriptors a process has them.
type known struct {
	session uint64
	locks   map[uint64]knownLock
	open    map[process.File]map[uint64]bool // the locks by what their descriptors are open on
}

type knownLock struct {
	ino  uint64
	tgid uint32
	desc process.Descriptor
}

// add notes a lock that is told of under a number.
func (k *known) add(id uint64, l knownLock) {
	k.locks[id] = l
	same := k.open[l.desc.File]
	if same == nil {
		same = make(map[uint64]bool)
		k.open[l.desc.File] = same
	}
	same[id] = true
}

// drop forgets it.
func (k *known) drop(id uint64) {
	l, ok := k.locks[id]
	if !ok {
		return
	}
	delete(k.locks, id)
	delete(k.open[l.desc.File], id)
	if len(k.open[l.desc.File]) == 0 {
		delete(k.open, l.desc.File)
	}
}

// telltale is one lock or wait that is being told.
type telltale struct {
	report state.Report
	gone   uint64 // the report that it replaces, of another grant
	lock   *Lock
	wait   *telling
	desc   process.Descriptor
}

// tellOnce tells of one batch, and reports whether there may be more.
func (h *Host) tellOnce(k *known) (more bool) {
	h.mu.Lock()
	session := h.lease.session
	if session == 0 || h.phase == closed {
		h.mu.Unlock()
		return false
	}
	gone, list := h.toTell()
	h.mu.Unlock()
	if k.session != session {
		*k = known{session: session, locks: make(map[uint64]knownLock), open: make(map[process.File]map[uint64]bool)}
	}
	for _, g := range gone {
		k.drop(g.Id)
	}
	if len(gone)+len(list) == 0 {
		return false
	}
	h.lookUpReports(list, k)
	h.mu.Lock()
	if h.lease.session == session {
		h.sendReports(gone, list)
	}
	h.unlock()
	return true
}

// toTell takes what is to be told now. Called with the mutex held.
func (h *Host) toTell() (gone []*statepb.ReportKey, list []telltale) {
	r := &h.reports
	before := h.cfg.Now() - int64(youngFor)
	if r.hasty {
		before += int64(youngFor)
	}
	base := h.timeBase()
	n := min(len(r.gone), tellGone)
	gone, r.gone = r.gone[:n:n], r.gone[n:]
	for _, l := range r.young.grown(before) {
		if !l.t.Held() {
			continue
		}
		list = append(list, h.telltaleOf(l, base))
	}
	n = 0
	for t := r.told.first; t != nil && n < tellWaits; t = t.next {
		if t.lock != nil && t.lock.t.Waits() && h.moved(t) {
			n++
			list = append(list, h.telltaleWait(t, base))
		}
	}
	for t := r.waits.first; t != nil && n < tellWaits && t.since <= before; t = r.waits.first {
		t.drop()
		r.told.add(t)
		r.lastID++
		t.id = r.lastID
		n++
		list = append(list, h.telltaleWait(t, base))
	}
	r.hasty = r.hasty && (len(list) >= tellWaits)
	return gone, list
}

// telltaleOf describes a lock that is held, under a new number.
func (h *Host) telltaleOf(l *Lock, base time.Time) telltale {
	old := l.report
	h.reports.lastID++
	l.report = h.reports.lastID
	return telltale{lock: l, gone: old, desc: descriptor(&l.t), report: state.Report{
		ReportKey: state.ReportKey{Ino: l.t.Ino, ID: l.report}, Kind: state.ReportHeld, Mode: l.t.Mode, Flags: l.t.Flags,
		PID: l.t.PID, Tgid: l.tgid, UID: l.t.UID, Since: base.Add(time.Duration(l.t.Since)).UnixNano(), Token: l.t.Token,
	}}
}

// telltaleWait describes a wait.
func (h *Host) telltaleWait(t *telling, base time.Time) telltale {
	x := telltale{wait: t}
	r := &x.report
	r.ID, r.Since = t.id, base.Add(time.Duration(t.since)).UnixNano()
	if w := t.wait; w != nil {
		r.Ino, r.At, r.Kind, r.Range = w.ino, w.ino, state.ReportRange, w.id
		r.PID, r.Tgid, r.UID, r.Mode = w.tid, w.want.PID, w.uid, queue.PR
		if w.want.Write {
			r.Mode = queue.EX
		}
		t.at = w.ino
		return x
	}
	l := t.lock
	r.Ino, r.Kind, r.Mode, r.Flags, r.PID, r.UID = l.t.Ino, state.ReportWait, l.t.Wanted, l.t.Flags, l.t.PID, l.t.UID
	if l.wait.tid != 0 {
		r.PID = l.wait.tid
	}
	if l.t.Converts() {
		r.Kind = state.ReportConversion
		if l.report != 0 {
			r.Holds = []state.ReportKey{{Ino: l.t.Ino, ID: l.report}}
		}
	}
	t.at = l.t.At()
	t.first, t.rank = h.table.Place(&l.t)
	r.At, r.First, r.Rank = t.at, t.first, t.rank
	return x
}

// moved reports whether a wait is held up elsewhere than was told, or stands at another place of the queue there: it may have gone back
// to a directory, and returned behind others.
func (h *Host) moved(t *telling) bool {
	first, rank := h.table.Place(&t.lock.t)
	return t.lock.t.At() != t.at || first != t.first || rank != t.rank
}

// lookUpReports fills in what the processes tell. No mutex is held.
func (h *Host) lookUpReports(list []telltale, k *known) {
	seen := make(map[uint32]process.Info)
	look := func(pid uint32) process.Info {
		p, ok := seen[pid]
		if !ok && pid != 0 {
			p, _ = h.cfg.Processes.Look(pid)
			seen[pid] = p
		}
		return p
	}
	for i := range list {
		x := &list[i]
		r := &x.report
		p := look(r.PID)
		if p.Tgid == 0 && x.lock != nil {
			p = look(x.lock.Opener)
		}
		if p.Tgid != 0 {
			r.Tgid = p.Tgid
			r.Started = uint64(look(p.Tgid).Started) // a thread begins later than its process
		}
		r.Comm = cut(p.Comm)
		if x.lock == nil {
			continue
		}
		if r.Tgid != 0 {
			x.desc.Opener = r.Tgid
		}
		k.drop(x.gone)
		k.add(r.ID, knownLock{ino: r.Ino, tgid: r.Tgid, desc: x.desc})
	}
	inherited := make(map[uint32][]state.ReportKey)
	for i := range list {
		r := &list[i].report
		if list[i].wait == nil || r.PID == 0 {
			continue
		}
		keys, ok := inherited[r.PID]
		if !ok {
			keys = h.inherited(r, k)
			inherited[r.PID] = keys
		}
		r.Holds = append(r.Holds, keys...)
	}
}

// inherited returns what a waiting process has of locks that others asked for. It looks at what that has open, however many
// locks the host has.
func (h *Host) inherited(r *state.Report, k *known) (keys []state.ReportKey) {
	owner := h.cfg.Processes.Owner(r.PID)
	for file := range owner.Files() {
		for id := range k.open[file] {
			l := k.locks[id]
			if (l.tgid == 0 || l.tgid != r.Tgid) && len(keys) < maxHolds && owner.Has(l.desc) {
				keys = append(keys, state.ReportKey{Ino: l.ino, ID: id})
			}
		}
	}
	slices.SortFunc(keys, func(a, b state.ReportKey) int { return int(a.ID) - int(b.ID) })
	return keys
}

func cut(comm string) string { return comm[:min(len(comm), maxComm)] }

// sendReports proposes what is still so. Called with the mutex held.
func (h *Host) sendReports(gone []*statepb.ReportKey, list []telltale) {
	op := &statepb.Report{Gone: gone}
	for i := range list {
		x := &list[i]
		id := x.report.ID
		switch {
		case x.lock != nil:
			if x.gone != 0 {
				op.Gone = append(op.Gone, &statepb.ReportKey{Ino: x.report.Ino, Id: x.gone})
			}
			if x.lock.report != id {
				continue // released meanwhile
			}
			x.lock.tgid = x.report.Tgid
		case x.wait.id != id:
			continue
		}
		op.Set = append(op.Set, x.report.Told())
	}
	h.counts.Reports += uint64(len(op.Set))
	if len(op.Gone)+len(op.Set) > 0 {
		h.command(&statepb.Command{Op: &statepb.Command_Report{Report: op}})
	}
}

// reported finds the lock or wait of this host that was told under a key; all nil if it is over.
func (h *Host) reported(k state.ReportKey) (held *Lock, waits *telling) {
	for t := range h.table.Locks(k.Ino) {
		l := t.User.(*Lock)
		switch {
		case l.report == k.ID && t.Held():
			return l, nil
		case l.wait != nil && l.wait.telling.id == k.ID:
			return nil, &l.wait.telling
		}
	}
	for _, w := range h.ranges {
		if w.telling.id == k.ID && w.ino == k.Ino {
			return nil, &w.telling
		}
	}
	return nil, nil
}

// blockedBy reports whether a lock waits for another of this host ahead of it, and whether it waits for other hosts.
func (h *Host) blockedBy(l *Lock, other *table.Lock) (ahead, hosts bool) {
	for b := range h.table.Blockers(&l.t) {
		ahead = ahead || b.Lock != nil && b.Lock == other
		hosts = hosts || b.Host
	}
	return ahead, hosts
}
