package daemon

import (
	"iter"
	"strconv"
	"time"

	"github.com/lockfs/lockfs/cmd/web"
	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
)

// Limits of the page.
const (
	pageRows   = 200    // of each table
	pageLooks  = 50_000 // locks that are looked at
	pageCycles = 20
)

// Page is what the page of --http shows.
func (d *daemon) Page(names bool) *web.Page {
	p := &web.Page{Host: d.o.Name, State: "starting", Made: time.Now()}
	if err := d.Ready(); err != nil {
		p.NotReady = err.Error()
	}
	a := d.asked.Load()
	if a == nil {
		return p
	}
	s, n, v := a.Host.Status(), a.Node.Status(), a.Host.View()
	p.Host, p.State = s.Name, s.State()
	number := strconv.Itoa
	p.Facts = []web.Fact{
		{Key: "State", Value: s.State()}, {Key: "Cluster", Value: n.Cluster}, {Key: "Role", Value: n.Role}, {Key: "Leader", Value: s.Leader},
		{Key: "Lease left", Value: s.Lease.Round(10 * time.Millisecond).String()}, {Key: "Entries applied", Value: strconv.FormatUint(n.Applied, 10)},
		{Key: "Locks held here", Value: number(s.Locks - s.Waiting)}, {Key: "Waiting here", Value: number(s.Waiting)},
		{Key: "Cached here", Value: number(s.Cached)}, {Key: "Files and directories", Value: strconv.FormatUint(s.Nodes, 10)},
		{Key: "Deadlocks broken here", Value: strconv.FormatUint(s.Deadlocks, 10)}, {Key: "Version", Value: Version},
	}
	for _, h := range a.Node.Hosts() {
		x, _ := v.Session(h.Session)
		p.Hosts = append(p.Hosts, web.Host{Name: h.Name, Role: h.Role, State: string(h.State), Address: h.Address, Version: h.Version,
			Session: h.Session, Reports: x.Reports})
	}
	if names {
		p.Locks = publicLocks(v, a.Mounts, p.Made)
	}
	return p
}

// publicLocks are the locks and waits that every user of this machine may see: nil if none may see any, since the mounts serve one
// user alone.
func publicLocks(v *state.View, mounts []*fs.Mounted, now time.Time) *web.Locks {
	var from *fs.FS
	for _, m := range mounts {
		if m.AllowOther() {
			from = m.FS()
		}
	}
	if from == nil {
		return nil
	}
	l, looks := &web.Locks{}, 0
	for r := range v.AllReports() {
		if looks++; looks > pageLooks {
			l.More = true
			break
		}
		rows := &l.Held
		if r.Waits() {
			rows = &l.Waiting
		}
		switch {
		case !from.Public(r.Ino):
		case len(*rows) == pageRows:
			l.More = true
		default:
			*rows = append(*rows, publicLock(v, r, now))
		}
	}
	for x := range last(v.Cycles(), pageCycles) {
		if from.PublicCycle(x) {
			l.Deadlocks = append(l.Deadlocks, publicDeadlock(v, x, now))
		}
	}
	return l
}

// last returns the last n of a list, the last one first.
func last[T any](list []T, n int) iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := len(list) - 1; i >= max(0, len(list)-n); i-- {
			if !yield(list[i]) {
				return
			}
		}
	}
}

func publicLock(v *state.View, r *state.Report, now time.Time) web.Lock {
	l := web.Lock{Path: v.Path(r.Ino), Mode: r.Mode.String(), Who: who(v, r), Comm: r.Comm, Age: since(now, r.Since)}
	if r.Waits() {
		for by := range v.Blockers(r) {
			if l.BlockedBy = append(l.BlockedBy, who(v, by)); len(l.BlockedBy) == 8 {
				break
			}
		}
	}
	return l
}

func publicDeadlock(v *state.View, x *state.Cycle, now time.Time) web.Deadlock {
	d := web.Deadlock{Ago: since(now, x.Time)}
	for i, p := range x.Parties {
		name := lockd.Party{Host: p.Host, PID: p.Wait.Tgid}.String()
		if i == 0 {
			d.Victim, d.Path = name, v.Path(p.Wait.Ino)
		}
		d.Waits = append(d.Waits, name+" waited for "+p.Wait.Mode.String()+" of "+v.Path(p.Wait.Ino))
	}
	return d
}

// who names the process of a report.
func who(v *state.View, r *state.Report) string {
	s, _ := v.Session(r.Session)
	return lockd.Party{Host: s.Host, PID: r.Tgid}.String()
}

// since is how long ago a time in ns was.
func since(now time.Time, ns int64) time.Duration {
	return max(0, now.Sub(time.Unix(0, ns))).Round(100 * time.Millisecond)
}
