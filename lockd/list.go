package lockd

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/table"
)

// LockInfo is what a listing shows of one lock or request. Of another host's it is what that host told of it, some 100 ms after the
// fact (report.go); its TTL is not known, and of a conversion there are two, the lock and the request. Of byte ranges see rangeInfos.
type LockInfo struct {
	Ino       uint64
	Host      string
	Here      bool       // of this host
	Mode      queue.Mode // granted, or None
	Wanted    queue.Mode // waited for, or None
	Convert   bool       // what waits is a conversion
	Flags     queue.Flags
	PID       uint32 // the thread that asked
	Tgid      uint32 // its process; 0: gone
	UID       uint32 // NoUser: not known
	Comm      string
	Since     time.Time // of the grant, or of the request while nothing is granted
	Token     uint64
	Place     int           // among those that wait for this resource here, from 1; 0: does not wait
	TTL       time.Duration // left of the time to live; 0: unlimited
	BlockedBy []Party       // of what waits; a process, or its thread if it is gone
	Inherits  []Party       // of what waits: whose locks its process inherited
	Listener  Listener      // of a lock of this host
	Range     *ByteRange    // a byte-range lock; nil: a lock of the whole resource
}

// Locks returns the locks of a resource: of this host, those held before those that wait in their order, then what other
// hosts have and want, then the byte-range locks of all hosts. It looks at processes, some 20 µs each.
func (h *Host) Locks(ino uint64) []LockInfo {
	h.lockNow()
	var infos []LockInfo
	base := h.timeBase()
	for t := range h.table.Locks(ino) {
		infos = append(infos, h.lockInfo(t, base))
	}
	h.unlock()
	h.lookUp(infos)
	infos = append(infos, h.others(h.View().Reports(ino))...)
	return append(infos, h.rangeInfos(ino)...)
}

// AllLocks returns all locks, those of this host first, by resource as they are first used. The list is made at the first
// step, processes are looked up on the way.
func (h *Host) AllLocks() iter.Seq[LockInfo] {
	return func(yield func(LockInfo) bool) {
		h.lockNow()
		var infos []LockInfo
		base := h.timeBase()
		for t := range h.table.All() {
			infos = append(infos, h.lockInfo(t, base))
		}
		h.unlock()
		const step = 64
		for i := 0; i < len(infos); i += step {
			part := infos[i:min(i+step, len(infos))]
			h.lookUp(part)
			for _, info := range part {
				if !yield(info) {
					return
				}
			}
		}
		for _, info := range h.others(h.View().AllReports()) {
			if !yield(info) {
				return
			}
		}
		for ino := range h.View().RangeFiles() {
			for _, info := range h.rangeInfos(ino) {
				if !yield(info) {
					return
				}
			}
		}
	}
}

// Info returns what a listing shows of one lock; ok is false if it is neither held nor waiting.
func (h *Host) Info(l *Lock) (info LockInfo, ok bool) {
	h.lockNow()
	if !l.t.Held() && l.wait == nil {
		h.unlock()
		return LockInfo{}, false
	}
	infos := []LockInfo{h.lockInfo(&l.t, h.timeBase())}
	h.unlock()
	h.lookUp(infos)
	return infos[0], true
}

// Cmdline returns the command line of the process that has a lock of this host, empty if it is gone. It parks: the
// kernel reads it out of the process's memory, which may be mapped from a file that this daemon serves.
func (h *Host) Cmdline(c *Call, info *LockInfo) string {
	if !info.Here || info.PID == 0 {
		return ""
	}
	c.park()
	pid := info.Tgid
	if pid == 0 {
		pid = info.PID
	}
	return h.cfg.Processes.Cmdline(pid)
}

// Blocks reports whether somebody waits because of a lock, here or on another host.
func (h *Host) Blocks(l *Lock) bool {
	h.lockNow()
	defer h.unlock()
	return h.table.Blocks(&l.t) != queue.None
}

// timeBase returns what to add to a time of CLOCK_BOOTTIME to make it one of day.
func (h *Host) timeBase() time.Time { return h.wall().Add(-time.Duration(h.cfg.Now())) }

// lockInfo describes a lock of this host. Called with the mutex held.
func (h *Host) lockInfo(t *table.Lock, base time.Time) LockInfo {
	l := t.User.(*Lock)
	info := LockInfo{
		Listener: l.Listener, Tgid: l.tgid, Ino: t.Ino, Host: h.cfg.Name, Here: true, Mode: t.Mode, Wanted: t.Wanted, Convert: t.Converts(), Flags: t.Flags,
		PID: t.PID, UID: t.UID, Since: base.Add(time.Duration(t.Since)), Token: t.Token,
	}
	if t := l.ttl(); t != nil {
		info.TTL = max(t.end.Sub(h.wall()), 1)
	}
	if !t.Waits() {
		return info
	}
	info.Place = 1
	for b := range h.table.Blockers(t) {
		switch {
		case b.Lock != nil:
			if b.Waiting {
				info.Place++
			}
			info.BlockedBy = append(info.BlockedBy, Party{Host: h.cfg.Name, PID: descriptor(b.Lock).Opener})
		case b.Host:
			info.BlockedBy = append(info.BlockedBy, h.hostsInTheWay(t, b.Ino)...)
		}
		if len(info.BlockedBy) >= maxBlockedBy {
			break
		}
	}
	if l.wait != nil && l.wait.telling.id != 0 {
		v := h.View()
		if r := v.Report(state.ReportKey{Ino: t.Ino, Session: h.lease.session, ID: l.wait.telling.id}); r != nil {
			info.Inherits = inheritedFrom(v, r)
		}
	}
	return info
}

// maxBlockedBy bounds what one listing entry names.
const maxBlockedBy = 64

// hostsInTheWay names those on other hosts who hold a resource in a mode that is in a request's way: the processes or, where
// a host has not told of any yet, the host.
func (h *Host) hostsInTheWay(t *table.Lock, at uint64) (list []Party) {
	v := h.View()
	w := &state.Report{ReportKey: state.ReportKey{Ino: t.Ino, Session: h.lease.session}, Kind: state.ReportWait, Mode: t.Wanted, At: at}
	list = inTheWay(v, w, h.lease.session)
	for x := range v.HostLocks(at) {
		if x.Session == h.lease.session || x.Mode == queue.None || queue.Compatible(x.Mode, t.Wanted) {
			continue
		}
		host := hostOf(v, x.Session)
		if !slices.ContainsFunc(list, func(p Party) bool { return p.Host == host }) {
			list = append(list, Party{Host: host})
		}
	}
	return list
}

func hostOf(v *state.View, session uint64) string {
	s, _ := v.Session(session)
	return s.Host
}

// lookUp fills in what the processes tell. No mutex is held.
func (h *Host) lookUp(infos []LockInfo) {
	seen := make(map[uint32]process.Info)
	look := func(pid uint32) process.Info {
		p, ok := seen[pid]
		if !ok && pid != 0 {
			p, _ = h.cfg.Processes.Look(pid)
			seen[pid] = p
		}
		return p
	}
	for i := range infos {
		info := &infos[i]
		p := look(info.PID)
		if p.Tgid == 0 {
			p = look(info.Tgid) // the thread has ended
		}
		info.Tgid, info.Comm = p.Tgid, p.Comm
		for j := range info.BlockedBy {
			info.BlockedBy[j].Comm = look(info.BlockedBy[j].PID).Comm
		}
	}
}

// others lists what other hosts told of their locks and waits; what waits in the order of the queues, as far as it is known.
func (h *Host) others(reports iter.Seq[*state.Report]) (infos []LockInfo) {
	v, own := h.View(), h.Session()
	var waits []*state.Report
	for r := range reports {
		switch {
		case r.Session == own || r.Kind == state.ReportRange:
		case r.Waits():
			waits = append(waits, r)
		default:
			infos = append(infos, reportInfo(v, r))
		}
	}
	sortWaits(v, waits)
	for _, r := range waits {
		info := reportInfo(v, r)
		info.BlockedBy = inTheWay(v, r, 0)
		info.Inherits = inheritedFrom(v, r)
		infos = append(infos, info)
	}
	for i := range infos {
		if infos[i].Wanted == queue.None {
			continue
		}
		infos[i].Place = 1
		if i > 0 && infos[i-1].Ino == infos[i].Ino {
			infos[i].Place += infos[i-1].Place
		}
	}
	return infos
}

func reportInfo(v *state.View, r *state.Report) LockInfo {
	info := LockInfo{
		Ino: r.Ino, Host: hostOf(v, r.Session), Convert: r.Kind == state.ReportConversion, Flags: r.Flags, PID: r.PID, Tgid: r.Tgid,
		UID: r.UID, Comm: r.Comm, Since: time.Unix(0, r.Since), Token: r.Token,
	}
	if r.Waits() {
		info.Wanted = r.Mode
	} else {
		info.Mode = r.Mode
	}
	return info
}

// sortWaits puts waits in order: by resource, then as their hosts stand in the state's queue, then as they stand in those.
func sortWaits(v *state.View, waits []*state.Report) {
	type key struct{ ino, session uint64 }
	places := make(map[key]int)
	for _, r := range waits {
		if _, ok := places[key{r.Ino, r.Session}]; ok {
			continue
		}
		for x := range v.HostLocks(r.Ino) {
			places[key{r.Ino, x.Session}] = x.Place
		}
	}
	first := func(r *state.Report) int {
		if r.First {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(waits, func(a, b *state.Report) int {
		return cmp.Or(cmp.Compare(a.Ino, b.Ino), cmp.Compare(places[key{a.Ino, a.Session}], places[key{b.Ino, b.Session}]),
			cmp.Compare(first(a), first(b)), cmp.Compare(a.Rank, b.Rank))
	})
}

// inTheWay names the processes whose locks or earlier requests a wait is told to be held up by, but those of a session.
func inTheWay(v *state.View, w *state.Report, except uint64) (list []Party) {
	add := func(r *state.Report) bool {
		if r.Session != except {
			pid := r.Tgid
			if pid == 0 {
				pid = r.PID
			}
			if p := (Party{Host: hostOf(v, r.Session), PID: pid, Comm: r.Comm}); !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
		return len(list) < maxBlockedBy
	}
	for r := range v.Blockers(w) {
		if !add(r) {
			break
		}
	}
	return list
}

// inheritedFrom names the processes whose locks a waiting process inherited.
func inheritedFrom(v *state.View, w *state.Report) (list []Party) {
	for _, k := range w.Holds {
		r := v.Report(k)
		if r == nil || r.Tgid == w.Tgid {
			continue
		}
		p := Party{Host: hostOf(v, r.Session), PID: r.Tgid, Comm: r.Comm}
		if !slices.Contains(list, p) && len(list) < maxBlockedBy {
			list = append(list, p)
		}
	}
	return list
}
