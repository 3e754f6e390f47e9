package state

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// This file holds how snapshots keep reports, suspicions and the last deadlocks, and what must hold of these.

// reportRecords yields them, and reports whether to go on.
func (v *View) reportRecords(yield func(*statepb.Record) bool) (rest bool) {
	rest = true
	v.reports.Scan(func(r *Report) bool {
		rest = yield(&statepb.Record{Record: &statepb.Record_Report{Report: savedReport(r)}})
		return rest
	})
	for _, x := range v.suspicions {
		rest = rest && yield(&statepb.Record{Record: &statepb.Record_Suspicion{Suspicion: x.saved()}})
	}
	for _, c := range v.cycles {
		rest = rest && yield(&statepb.Record{Record: &statepb.Record_Deadlock{Deadlock: c.saved()}})
	}
	for _, k := range v.unsearched {
		x := &statepb.SavedUnsearched{Session: k.Session, Ino: k.Ino, Id: k.ID}
		rest = rest && yield(&statepb.Record{Record: &statepb.Record_Unsearched{Unsearched: x}})
	}
	return rest
}

func savedReport(r *Report) *statepb.SavedReport {
	return &statepb.SavedReport{Session: r.Session, Born: r.Born, Report: r.Told()}
}

func (x *Suspicion) saved() *statepb.SavedSuspicion {
	p := &statepb.SavedSuspicion{Id: x.ID, Round: x.Round}
	for i := range x.Links {
		l := &x.Links[i]
		p.Links = append(p.Links, &statepb.SavedLink{
			Session: l.Wait.Session, Ino: l.Wait.Ino, Id: l.Wait.ID,
			By: uint32(l.By), BySession: l.Key.Session, ByIno: l.Key.Ino, ById: l.Key.ID, ByPid: l.PID,
		})
	}
	for _, a := range x.Answers {
		p.Answers = append(p.Answers, &statepb.SavedAnswer{Session: a.Session, Stuck: a.Stuck, Wrong: a.Wrong})
	}
	return p
}

func (c *Cycle) saved() *statepb.SavedDeadlock {
	p := &statepb.SavedDeadlock{Id: c.ID, Index: c.Index, Time: c.Time, LeftOut: uint32(c.LeftOut)}
	for i := range c.Parties {
		x := &c.Parties[i]
		p.Parties = append(p.Parties, &statepb.SavedParty{
			Wait: savedReport(x.Wait), Host: x.Host, By: uint32(x.By), Blocker: savedReport(x.Key), ByHost: x.ByHost,
		})
	}
	return p
}

// knownSaved looks at saved reports and at what is in them.
func knownSaved(list ...*statepb.SavedReport) error {
	for _, p := range list {
		if err := fields(p); err != nil {
			return err
		}
		if err := knownReports([]*statepb.Reported{p.GetReport()}); err != nil {
			return err
		}
	}
	return nil
}

// restoredReport reads what savedReport wrote. One that is only told of need not be what a host could report.
func restoredReport(p *statepb.SavedReport) (*Report, error) {
	if p.GetReport() == nil {
		return nil, fmt.Errorf("%w: an empty report", ErrCorrupt)
	}
	r, _ := loadedReport(p.Session, p.Report)
	r.Born = p.Born
	if !proto.Equal(r.Told(), p.Report) {
		return nil, fmt.Errorf("%w: report %d of session %d", ErrCorrupt, r.ID, r.Session)
	}
	return r, nil
}

func (v *View) loadReport(p *statepb.SavedReport) error {
	if err := knownSaved(p); err != nil {
		return err
	}
	r, err := restoredReport(p)
	if err != nil {
		return err
	}
	if last, ok := v.reports.Max(); ok && last.compare(r.ReportKey) >= 0 {
		return fmt.Errorf("%w: reports out of order", ErrCorrupt)
	}
	v.reports.Load(r)
	if i, ok := v.findSession(r.Session); ok {
		v.sessions[i].Reports++
	}
	return nil
}

func (v *View) loadSuspicion(p *statepb.SavedSuspicion) error {
	if err := eachKnown(p.Links); err != nil {
		return err
	}
	if err := eachKnown(p.Answers); err != nil {
		return err
	}
	x := &Suspicion{ID: p.Id, Round: p.Round}
	for _, l := range p.Links {
		x.Links = append(x.Links, Link{
			Wait: ReportKey{Ino: l.Ino, Session: l.Session, ID: l.Id},
			By:   By(min(l.By, 255)), Key: ReportKey{Ino: l.ByIno, Session: l.BySession, ID: l.ById}, PID: l.ByPid,
		})
	}
	for _, a := range p.Answers {
		x.Answers = append(x.Answers, Answer{Session: a.Session, Stuck: a.Stuck, Wrong: a.Wrong})
	}
	v.suspicions = append(v.suspicions, x)
	return nil
}

func (v *View) loadCycle(p *statepb.SavedDeadlock) error {
	c := &Cycle{ID: p.Id, Index: p.Index, Time: p.Time, LeftOut: int(p.LeftOut)}
	for _, x := range p.Parties {
		if err := fields(x); err != nil {
			return err
		}
		if err := knownSaved(x.Wait, x.Blocker); err != nil {
			return err
		}
		wait, err := restoredReport(x.Wait)
		if err != nil {
			return err
		}
		key, err := restoredReport(x.Blocker)
		if err != nil {
			return err
		}
		c.Parties = append(c.Parties, Party{Wait: wait, Host: x.Host, By: By(min(x.By, 255)), Key: key, ByHost: x.ByHost})
	}
	v.cycles = append(v.cycles, c)
	return nil
}

func (v *View) checkReports() error {
	counts := make(map[uint64]uint64)
	var bad error
	v.reports.Scan(func(r *Report) bool {
		counts[r.Session]++
		_, ok := loadedReport(r.Session, r.Told())
		switch {
		case !ok || v.Node(r.Ino) == nil:
			bad = fmt.Errorf("report %+v", *r)
		case r.Waits() != (r.Born > 0) || r.Born > v.index:
			bad = fmt.Errorf("report %+v at index %d", *r, v.index)
		}
		return bad == nil
	})
	if bad != nil {
		return bad
	}
	for _, x := range v.sessions {
		if x.Reports != counts[x.ID] {
			return fmt.Errorf("session %d counts %d reports, has %d", x.ID, x.Reports, counts[x.ID])
		}
		delete(counts, x.ID)
	}
	if len(counts) > 0 {
		return fmt.Errorf("%d sessions that are not there have reports", len(counts))
	}
	return v.checkSuspicions()
}

func (v *View) checkSuspicions() error {
	for i, x := range v.suspicions {
		if i > 0 && v.suspicions[i-1].ID >= x.ID || x.ID>>suspicionBits > v.index || len(x.Links) == 0 || len(x.Links) > maxCycle {
			return fmt.Errorf("suspicion %d of %d links at index %d", x.ID, len(x.Links), v.index)
		}
		for j := range x.Links {
			l := &x.Links[j]
			w := v.Report(l.Wait)
			ok := w != nil && w.Waits() && w.Flags&queue.NoDlckWt == 0
			switch l.By {
			case ByLock:
				h := v.Report(l.Key)
				ok = ok && h != nil && !h.Waits()
			case ByWait:
				ok = ok && l.Key == x.Links[(j+1)%len(x.Links)].Wait
			case ByRange:
			default:
				ok = false
			}
			if !ok {
				return fmt.Errorf("suspicion %d: link %+v", x.ID, *l)
			}
		}
		for _, a := range x.Answers {
			if !slices.Contains(x.sessions(), a.Session) {
				return fmt.Errorf("suspicion %d: an answer of session %d", x.ID, a.Session)
			}
		}
		if x.confirmed() {
			return fmt.Errorf("suspicion %d is confirmed", x.ID)
		}
	}
	for i, c := range v.cycles {
		if i > 0 && v.cycles[i-1].ID == c.ID || c.Index > v.index || len(c.Parties) == 0 || len(c.Parties) > maxParties {
			return fmt.Errorf("deadlock %d of index %d", c.ID, c.Index)
		}
	}
	seen := make(map[ReportKey]bool)
	for _, k := range v.unsearched {
		if v.Report(k) == nil || seen[k] {
			return fmt.Errorf("a search for deadlocks through %v", k)
		}
		seen[k] = true
	}
	if len(v.suspicions) > maxSuspicions || len(v.cycles) > maxCycles {
		return fmt.Errorf("%d suspicions, %d deadlocks", len(v.suspicions), len(v.cycles))
	}
	return nil
}

// checkGraph compares the graph with the reports.
func (s *State) checkGraph() error {
	g := graphOf(&s.cur)
	if s.graph.at.Len() != g.at.Len() || s.graph.owners.Len() != g.owners.Len() || s.graph.heirs.Len() != g.heirs.Len() {
		return fmt.Errorf("the graph of reports has %d waits, %d owned and %d inherited, should have %d, %d and %d",
			s.graph.at.Len(), s.graph.owners.Len(), s.graph.heirs.Len(), g.at.Len(), g.owners.Len(), g.heirs.Len())
	}
	return nil
}
