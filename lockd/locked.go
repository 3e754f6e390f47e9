package lockd

import (
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// Locked tells which resources have locks or requests, here or on other hosts. It looks at no process, unlike AllLocks, and
// calls f once for each lock: the same resource comes as often as it has some.
func (h *Host) Locked(f func(ino uint64, held, waits bool)) {
	type lock struct {
		ino         uint64
		held, waits bool
	}
	h.lockNow()
	own := h.lease.session
	locks := make([]lock, 0, h.table.Len())
	for t := range h.table.All() {
		locks = append(locks, lock{t.Ino, t.Held(), t.Waits()})
	}
	h.unlock()
	for _, l := range locks {
		f(l.ino, l.held, l.waits)
	}
	v := h.View()
	for r := range v.AllReports() {
		if r.Session != own && r.Kind != state.ReportRange {
			f(r.Ino, !r.Waits(), r.Waits())
		}
	}
	for ino := range v.RangeFiles() {
		held, waits := false, false
		for range v.Ranges(ino) {
			held = true
			break
		}
		for range v.RangeWaits(ino) {
			waits = true
			break
		}
		f(ino, held, waits)
	}
}

// LocksOf calls f with what each lock of a resource has, wants, and its token; of other hosts as they told. What a
// host itself has, perhaps only cached, comes with no mode: its token is a lower bound of the next. No process is looked at.
func (h *Host) LocksOf(ino uint64, f func(mode, wanted queue.Mode, token uint64)) {
	type lock struct {
		mode, wanted queue.Mode
		token        uint64
	}
	var locks []lock
	h.lockNow()
	own := h.lease.session
	for t := range h.table.Locks(ino) {
		locks = append(locks, lock{t.Mode, t.Wanted, t.Token})
	}
	h.unlock()
	v := h.View()
	for x := range v.HostLocks(ino) {
		locks = append(locks, lock{token: x.Token(v.TokenBase())})
	}
	for r := range v.Reports(ino) {
		switch {
		case r.Session == own || r.Kind == state.ReportRange:
		case r.Waits():
			locks = append(locks, lock{wanted: r.Mode})
		default:
			locks = append(locks, lock{mode: r.Mode, token: r.Token})
		}
	}
	for _, l := range locks {
		f(l.mode, l.wanted, l.token)
	}
}
