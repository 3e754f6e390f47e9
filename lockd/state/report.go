package state

import (
	"cmp"
	"iter"
	"slices"

	"github.com/tidwall/btree"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// ReportKind says what a [Report] is of.
type ReportKind uint8

const (
	ReportHeld       ReportKind = iota + 1 // a lock
	ReportWait                             // a request for a lock
	ReportConversion                       // a request for another mode of a lock that is held, which has a report of its own
	ReportRange                            // a request for a byte range; Mode is PR or EX
)

// Report is one lock or one wait of a process, as its host tells of it once it is older than a short time (DESIGN 3.4). It
// is immutable.
type Report struct {
	ReportKey
	Kind    ReportKind
	Mode    queue.Mode // held, or asked for
	Flags   queue.Flags
	PID     uint32 // the thread that asked
	Tgid    uint32 // its process, the owner; 0: not known
	UID     uint32
	Comm    string
	Since   int64  // of the grant or of the request: ns since 1970 by the host's clock
	Token   uint64 // of what is held
	Started uint64 // when the process was, in the host's own unit; a number of a process is used again

	At    uint64      // of a wait: where it is held up, Ino or a directory above
	First bool        // it waits there among the conversions
	Rank  int64       // its order there
	Holds []ReportKey // what its process inherited, and what it converts
	Range uint64      // of a wait for a byte range: its id
	Born  uint64      // index of the entry that told of the wait first
}

// ReportKey names a report.
type ReportKey struct {
	Ino     uint64 // the resource
	Session uint64
	ID      uint64 // another grant or another wait has another
}

func (k ReportKey) compare(x ReportKey) int {
	return cmp.Or(cmp.Compare(k.Ino, x.Ino), cmp.Compare(k.Session, x.Session), cmp.Compare(k.ID, x.ID))
}

// Waits says whether the report is of a wait.
func (r *Report) Waits() bool { return r.Kind != ReportHeld }

// needs returns the mode that a wait asks for where it is held up.
func (r *Report) needs() queue.Mode {
	if r.At == r.Ino {
		return r.Mode
	}
	return r.Mode.Intent()
}

// Limits of a report.
const (
	maxComm  = 64
	maxHolds = 4096
)

// loadedReport returns what a host told, or false if it makes no sense.
func loadedReport(session uint64, p *statepb.Reported) (*Report, bool) {
	r := &Report{
		ReportKey: ReportKey{Ino: p.Ino, Session: session, ID: p.Id},
		Kind:      ReportKind(min(p.Kind, 255)), Mode: queue.Mode(min(p.Mode, 255)), Flags: queue.Flags(p.Flags),
		PID: p.Pid, Tgid: p.Tgid, UID: p.Uid, Comm: string(p.Comm), Since: p.Since, Token: p.Token, Started: p.Started,
		At: p.At, First: p.First, Rank: p.Rank, Range: p.Range,
	}
	for _, k := range p.Holds {
		r.Holds = append(r.Holds, ReportKey{Ino: k.GetIno(), Session: session, ID: k.GetId()})
	}
	ok := r.ID != 0 && r.Kind >= ReportHeld && r.Kind <= ReportRange && r.Mode <= queue.EX && r.Mode.Valid() &&
		p.Flags <= 1<<16-1 && len(r.Comm) <= maxComm && len(r.Holds) <= maxHolds
	return r, ok
}

// Told returns the report as a host tells it.
func (r *Report) Told() *statepb.Reported {
	p := &statepb.Reported{
		Ino: r.Ino, Id: r.ID, Kind: uint32(r.Kind), Mode: uint32(r.Mode), Flags: uint32(r.Flags), Pid: r.PID, Tgid: r.Tgid,
		Uid: r.UID, Comm: []byte(r.Comm), Since: r.Since, Token: r.Token, Started: r.Started,
		At: r.At, First: r.First, Rank: r.Rank, Range: r.Range,
	}
	for _, k := range r.Holds {
		p.Holds = append(p.Holds, &statepb.ReportKey{Ino: k.Ino, Id: k.ID})
	}
	return p
}

func newReports() *btree.BTreeG[*Report] {
	return btree.NewBTreeGOptions(func(a, b *Report) bool { return a.compare(b.ReportKey) < 0 },
		btree.Options{NoLocks: true, Degree: degree})
}

// Report returns a report, nil if there is none of that name.
func (v *View) Report(k ReportKey) *Report {
	r, _ := v.reports.Get(&Report{ReportKey: k})
	return r
}

// Reports returns the reports of a resource, by session.
func (v *View) Reports(ino uint64) iter.Seq[*Report] {
	return func(yield func(*Report) bool) {
		v.reports.Ascend(&Report{ReportKey: ReportKey{Ino: ino}}, func(r *Report) bool { return r.Ino == ino && yield(r) })
	}
}

// AllReports returns all reports, by resource and session.
func (v *View) AllReports() iter.Seq[*Report] {
	return func(yield func(*Report) bool) { v.reports.Scan(yield) }
}

// ReportsBelow returns the reports of a directory and of all below it. It looks at all reports.
func (v *View) ReportsBelow(dir uint64) iter.Seq[*Report] {
	return func(yield func(*Report) bool) {
		v.reports.Scan(func(r *Report) bool { return !v.within(r.Ino, dir) || yield(r) })
	}
}

// report takes what a host tells of its locks and waits.
func (s *State) report(op *statepb.Report, done *Change) {
	for _, k := range op.Gone {
		s.dropReport(ReportKey{Ino: k.GetIno(), Session: done.Session, ID: k.GetId()})
	}
	for _, p := range op.Set {
		r, ok := loadedReport(done.Session, p)
		code := OK
		switch {
		case !ok:
			code = Invalid
		case s.cur.Node(r.Ino) == nil:
			code = NotFound
		case s.session(done.Session).Reports >= s.cur.limits.HostLocks+s.cur.limits.Ranges && s.cur.Report(r.ReportKey) == nil:
			code = TooMany
		default:
			s.setReport(r)
		}
		if code != OK {
			done.Code, done.Ino = code, r.Ino
		}
	}
}

// setReport stores a report, in place of one of its name, and looks for the cycles that it may close.
func (s *State) setReport(r *Report) {
	old := s.cur.Report(r.ReportKey)
	if old != nil {
		if r.Waits() {
			r.Born = old.Born
		}
		s.dropReport(old.ReportKey)
	}
	if r.Waits() && r.Born == 0 {
		r.Born = s.index
	}
	s.cur.reports.Set(r)
	s.dirty |= partReports
	s.session(r.Session).Reports++
	s.graph.add(r)
	if r.Waits() {
		if r.Kind != ReportRange && (old == nil || old.At != r.At) {
			s.emit(Change{Kind: Awaited, Session: r.Session, Ino: r.At, Wanted: r.needs(), PID: r.PID, Name: r.Comm, ID: r.ID})
		}
		s.lookFor(r)
		return
	}
	s.lookForAll(s.graph.waitsOf(r))
}

// dropReport ends a report, if there is one of that name, and the suspicions that it is part of.
func (s *State) dropReport(k ReportKey) {
	r, ok := s.cur.reports.Delete(&Report{ReportKey: k})
	if !ok {
		return
	}
	s.dirty |= partReports
	if x := s.session(k.Session); x != nil {
		x.Reports--
	}
	led := r.Waits() && r.Kind != ReportRange && s.graph.first(r)
	s.graph.remove(r)
	if led {
		s.lookForAt(r.At, r.Session) // others are the first now
	}
	s.endSuspicions(k)
}

// dropReports ends the reports of a session that ended.
func (s *State) dropReports(session uint64) {
	s.dropAll(slices.Collect(func(yield func(*Report) bool) {
		s.cur.reports.Scan(func(r *Report) bool { return r.Session != session || yield(r) })
	}))
}

// forgetReports ends the reports of a node that is gone.
func (s *State) forgetReports(ino uint64) { s.dropAll(slices.Collect(s.cur.Reports(ino))) }

func (s *State) dropAll(list []*Report) {
	for _, r := range list {
		s.dropReport(r.ReportKey)
	}
}

// Blockers returns the reports of what holds a wait up where it is: locks that exclude it, on the resource or below, and requests of
// its own host that are ahead, or have passed and keep an intent. Not what other hosts ask for, and no byte ranges.
func (v *View) Blockers(w *Report) iter.Seq[*Report] {
	return func(yield func(*Report) bool) {
		n := v.Node(w.At)
		if w.Kind == ReportRange || w.needs() == queue.None || n == nil {
			return
		}
		reports := v.Reports(w.At)
		if n.Dir && !(queue.Compatible(w.needs(), queue.CR) && queue.Compatible(w.needs(), queue.CW)) {
			reports = v.ReportsBelow(w.At)
		}
		for r := range reports {
			mode := r.Mode
			if r.Ino != w.At {
				mode = mode.Intent()
			}
			var blocks bool
			switch {
			case r.ReportKey == w.ReportKey || r.Kind == ReportRange:
			case !r.Waits():
				blocks = mode != queue.None && !queue.Compatible(mode, w.needs()) && !own(w, r)
			case r.passed(v, place{w.At, w.needs()}):
				blocks = true
			default:
				blocks = r.At == w.At && r.Session == w.Session && w.ID != 0 && r.compareAt(w) < 0
			}
			if blocks && !yield(r) {
				return
			}
		}
	}
}
