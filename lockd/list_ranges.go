package lockd

import (
	"slices"
	"strconv"
	"time"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// NoUser is the UID of a process of which nobody knows whose it is.
const NoUser = 1<<32 - 1

// ByteRange is what a byte-range lock covers.
type ByteRange struct {
	Start, End uint64 // inclusive; End state.MaxRange: to the end, however the file grows
}

// String returns "0-99", or "100-" for what reaches to the end of the file.
func (r ByteRange) String() string {
	s := strconv.FormatUint(r.Start, 10) + "-"
	if r.End < state.MaxRange {
		s += strconv.FormatUint(r.End, 10)
	}
	return s
}

// rangeInfos lists the byte-range locks of a file, of all hosts: those held by their start, then those that wait in their order. The
// state has them all at once, and of their processes only the numbers: the rest is looked up for those of this host, and of
// what waits (but for open file descriptions) its host has told. They have no tokens.
func (h *Host) rangeInfos(ino uint64) (infos []LockInfo) {
	v, own := h.View(), h.Session()
	for r := range v.Ranges(ino) {
		info := rangeInfo(v, ino, r, own)
		info.Mode = rangeMode(r)
		infos = append(infos, info)
	}
	waits := 0
	for w := range v.RangeWaits(ino) {
		waits++
		info := rangeInfo(v, ino, w.Range, own)
		info.Wanted, info.Place, info.BlockedBy = rangeMode(w.Range), waits, rangesInTheWay(v, ino, w)
		if r := reportOf(v, ino, w); r != nil {
			info.UID, info.Comm, info.Since, info.Inherits = r.UID, r.Comm, time.Unix(0, r.Since), inheritedFrom(v, r)
		}
		infos = append(infos, info)
	}
	for i := range infos {
		if info := &infos[i]; info.Here && info.Comm == "" {
			p, _ := h.cfg.Processes.Look(info.PID)
			if info.Comm = p.Comm; p.Tgid != 0 {
				info.UID = p.UID
			}
		}
	}
	return infos
}

func rangeInfo(v *state.View, ino uint64, r state.Range, own uint64) LockInfo {
	return LockInfo{
		Ino: ino, Host: hostOf(v, r.Session), Here: r.Session == own, PID: r.PID, Tgid: r.PID, UID: NoUser,
		Range: &ByteRange{Start: r.Start, End: r.End},
	}
}

// rangeMode is the mode that goes together with others as a byte-range lock does.
func rangeMode(r state.Range) queue.Mode {
	if r.Write {
		return queue.EX
	}
	return queue.PR
}

// rangesInTheWay names the processes that have, or asked earlier for, what a wait for a byte range cannot have beside it.
func rangesInTheWay(v *state.View, ino uint64, w state.RangeWait) (list []Party) {
	add := func(r state.Range) {
		own := r.Session == w.Session && r.Owner == w.Owner
		apart := r.Start > w.End || w.Start > r.End || !r.Write && !w.Write
		p := Party{Host: hostOf(v, r.Session), PID: r.PID}
		if !own && !apart && !slices.Contains(list, p) && len(list) < maxBlockedBy {
			list = append(list, p)
		}
	}
	for r := range v.Ranges(ino) {
		add(r)
	}
	for x := range v.RangeWaits(ino) {
		if x.ID == w.ID && x.Session == w.Session {
			break
		}
		add(x.Range)
	}
	return list
}

// reportOf returns what a host told of a wait for a byte range, nil if nothing.
func reportOf(v *state.View, ino uint64, w state.RangeWait) *state.Report {
	for r := range v.Reports(ino) {
		if r.Kind == state.ReportRange && r.Session == w.Session && r.Range == w.ID {
			return r
		}
	}
	return nil
}
