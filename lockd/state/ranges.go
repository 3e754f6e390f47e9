package state

import (
	"cmp"
	"iter"
	"slices"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// MaxRange is the last byte that a range can have: the end of the file, however it grows.
const MaxRange = 1<<63 - 1

// Range is a byte-range lock, or the wish for one. Its owner is a session and a number that the session's host has
// for a process (POSIX) or an open file description (OFD).
type Range struct {
	Session uint64
	Owner   uint64
	Start   uint64
	End     uint64 // inclusive
	PID     uint32 // on the session's host
	Write   bool
	OFD     bool // the owner is an open file description
}

func (r *Range) owner() rangeOwner { return rangeOwner{r.Session, r.Owner} }

// conflicts says whether two ranges cannot both be locked.
func (r *Range) conflicts(x *Range) bool {
	return (r.Write || x.Write) && r.Start <= x.End && x.Start <= r.End && r.owner() != x.owner()
}

type rangeOwner struct{ session, owner uint64 }

// RangeWait is a wait for a byte-range lock.
type RangeWait struct {
	Range
	ID    uint64
	Since uint64 // index of the entry that asked
}

// fileRanges are the byte-range locks of one file.
type fileRanges struct {
	epoch uint64      // may be written to in this one
	held  []Range     // by start, session and owner; those of one owner do not overlap, nor touch in one type
	waits []RangeWait // first come first
}

// RangeConflict returns the first lock that keeps an owner from a range: what F_GETLK wants to know.
func (v *View) RangeConflict(ino uint64, want Range) (Range, bool) {
	f, _ := v.ranges.Get(ino)
	if f == nil {
		return Range{}, false
	}
	i := f.conflict(&want)
	if i < 0 {
		return Range{}, false
	}
	return f.held[i], true
}

// Ranges returns the byte-range locks of a file, by their start.
func (v *View) Ranges(ino uint64) iter.Seq[Range] {
	return func(yield func(Range) bool) {
		if f, _ := v.ranges.Get(ino); f != nil {
			slices.Values(f.held)(yield)
		}
	}
}

// RangeWaits returns the waits for byte-range locks of a file, in the order they came.
func (v *View) RangeWaits(ino uint64) iter.Seq[RangeWait] {
	return func(yield func(RangeWait) bool) {
		if f, _ := v.ranges.Get(ino); f != nil {
			slices.Values(f.waits)(yield)
		}
	}
}

// RangeFiles returns the files that have byte-range locks or waits.
func (v *View) RangeFiles() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		v.ranges.Scan(func(ino uint64, _ *fileRanges) bool { return yield(ino) })
	}
}

func (f *fileRanges) conflict(want *Range) int {
	return slices.IndexFunc(f.held, func(r Range) bool { return r.conflicts(want) })
}

// holds says whether the owner has any lock on the file.
func (f *fileRanges) holds(o rangeOwner) bool {
	return slices.ContainsFunc(f.held, func(r Range) bool { return r.owner() == o })
}

// others says whether another session has or awaits a lock on the file.
func (f *fileRanges) others(session uint64) bool {
	return slices.ContainsFunc(f.held, func(r Range) bool { return r.Session != session }) ||
		slices.ContainsFunc(f.waits, func(w RangeWait) bool { return w.Session != session })
}

// mayHave says whether a request that waits behind the first n waits can be granted. It overtakes none of them that
// it conflicts with, unless its owner has a lock on the file already: they may be waiting for that very lock.
func (f *fileRanges) mayHave(want *Range, n int) bool {
	if f.conflict(want) >= 0 {
		return false
	}
	if f.holds(want.owner()) {
		return true
	}
	return !slices.ContainsFunc(f.waits[:n], func(w RangeWait) bool { return w.conflicts(want) })
}

// set gives the owner of r that range, in its type, and no longer in another: parts are cut off and joined as POSIX has it.
func (f *fileRanges) set(r Range) {
	f.cut(&r)
	f.held = slices.DeleteFunc(f.held, func(x Range) bool {
		if x.owner() != r.owner() || x.Write != r.Write || x.End+1 < r.Start || r.End+1 < x.Start {
			return false
		}
		r.Start, r.End = min(r.Start, x.Start), max(r.End, x.End)
		return true
	})
	f.insert(r)
}

// cut takes a range away from its owner, and reports whether it had any of it.
func (f *fileRanges) cut(r *Range) bool {
	var rests [2]Range // of one lock that is cut in the middle, or of two at the ends
	n, cut := 0, false
	f.held = slices.DeleteFunc(f.held, func(x Range) bool {
		if x.owner() != r.owner() || x.End < r.Start || r.End < x.Start {
			return false
		}
		cut = true
		if x.Start < r.Start {
			rests[n] = x
			rests[n].End = r.Start - 1
			n++
		}
		if x.End > r.End {
			rests[n] = x
			rests[n].Start = r.End + 1
			n++
		}
		return true
	})
	for _, x := range rests[:n] {
		f.insert(x)
	}
	return cut
}

func (f *fileRanges) insert(r Range) {
	i, _ := slices.BinarySearchFunc(f.held, r, rangeOrder)
	f.held = slices.Insert(f.held, i, r)
}

func rangeOrder(a, b Range) int {
	return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.Session, b.Session), cmp.Compare(a.Owner, b.Owner))
}

// fileRanges returns the byte-range locks of a file, to be written to; settleRanges afterwards.
func (s *State) fileRanges(ino uint64) *fileRanges {
	f, _ := s.cur.ranges.Get(ino)
	switch {
	case f == nil:
		return &fileRanges{epoch: s.epoch}
	case f.epoch == s.epoch:
		return f
	}
	return &fileRanges{epoch: s.epoch, held: slices.Clone(f.held), waits: slices.Clone(f.waits)}
}

// settleRanges grants what can be granted now and stores the locks of the file.
func (s *State) settleRanges(ino uint64, f *fileRanges) {
	for i := 0; i < len(f.waits); {
		w := f.waits[i]
		if !f.mayHave(&w.Range, i) {
			i++
			continue
		}
		// The owner's locks may become weaker, and its earlier waits may overtake others from now on.
		affects := f.holds(w.owner()) || slices.ContainsFunc(f.waits[:i], func(x RangeWait) bool { return x.owner() == w.owner() })
		f.waits = slices.Delete(f.waits, i, i+1)
		s.countWait(w.Session, -1)
		before := len(f.held)
		f.set(w.Range)
		s.countRanges(w.Session, len(f.held)-before)
		s.emit(Change{Kind: RangeGranted, Session: w.Session, Ino: ino, Owner: w.Owner, ID: w.ID})
		s.lookForAll(s.graph.waitsBy(w.Session, w.PID))
		if affects {
			i = 0
		}
	}
	s.dirty |= partRanges
	if len(f.held) > 0 || len(f.waits) > 0 {
		s.cur.ranges.Set(ino, f)
		return
	}
	s.cur.ranges.Delete(ino)
	s.lastLockGone(ino)
}

func (s *State) countRanges(id uint64, by int) {
	if x := s.session(id); x != nil && by != 0 {
		x.Ranges += uint64(by)
	}
}

func (s *State) countWait(id uint64, by int) {
	s.cur.rangeWaits += uint64(by)
	s.countRanges(id, by)
}

func (s *State) rangeLock(op *statepb.RangeLock, done *Change) {
	done.Ino, done.ID, done.Owner = op.Ino, op.Id, op.Owner
	r := Range{
		Session: done.Session, Owner: op.Owner, Start: op.Start, End: op.End, PID: op.Pid, Write: op.Write,
		OFD: op.Ofd,
	}
	switch {
	case op.Start > op.End || op.End > MaxRange || op.Wait && op.Id == 0:
		done.Code = Invalid
		return
	case s.own(op.Ino, done.Session) == nil:
		done.Code = NotFound
		return
	case s.session(done.Session).Ranges+2 > s.cur.limits.Ranges: // a lock may be cut in two
		done.Code = TooMany
		return
	}
	f := s.fileRanges(op.Ino)
	ahead := 0 // F_SETLK asks what is locked, not who waits (POSIX)
	if op.Wait {
		ahead = len(f.waits)
	}
	switch {
	case f.mayHave(&r, ahead):
		before := len(f.held)
		f.set(r)
		s.countRanges(r.Session, len(f.held)-before)
		s.lookForAll(s.graph.waitsBy(r.Session, r.PID))
	case !op.Wait:
		done.Code = Busy
		return
	case slices.ContainsFunc(f.waits, func(w RangeWait) bool { return w.Session == r.Session && w.ID == op.Id }):
		done.Code = Exists
		return
	case !op.Ofd && s.rangeDeadlock(op.Ino, f, &r):
		done.Code = Deadlock
		return
	default:
		done.Code = Waiting
		f.waits = append(f.waits, RangeWait{Range: r, ID: op.Id, Since: s.index})
		s.countWait(r.Session, 1)
		s.lookForAll(s.graph.waitsBy(r.Session, r.PID)) // it may have been told of before it came
	}
	s.settleRanges(op.Ino, f)
}

func (s *State) rangeUnlock(op *statepb.RangeUnlock, done *Change) {
	done.Ino, done.Owner = op.Ino, op.Owner
	r := Range{Session: done.Session, Owner: op.Owner, Start: op.Start, End: op.End}
	if op.All {
		r.Start, r.End = 0, MaxRange
	}
	if r.Start > r.End || r.End > MaxRange {
		done.Code = Invalid
		return
	}
	if _, ok := s.cur.ranges.Get(op.Ino); !ok {
		return
	}
	f := s.fileRanges(op.Ino)
	held, waits := len(f.held), len(f.waits)
	if f.cut(&r) {
		s.countRanges(r.Session, len(f.held)-held)
		s.emit(Change{Kind: RangeReleased, Session: r.Session, Ino: op.Ino, Owner: op.Owner})
	}
	for i := range f.waits {
		if w := &f.waits[i]; w.owner() == r.owner() {
			s.lookForAll(s.graph.waitsBy(w.Session, w.PID)) // without a lock on the file it has no right to go ahead
		}
	}
	if op.All {
		f.waits = slices.DeleteFunc(f.waits, func(w RangeWait) bool { return w.owner() == r.owner() })
		s.countWait(r.Session, len(f.waits)-waits)
	}
	s.settleRanges(op.Ino, f)
}

func (s *State) rangeCancel(op *statepb.RangeCancel, done *Change) {
	done.ID = op.Id
	ino := op.Ino
	mine := func(w RangeWait) bool { return w.Session == done.Session && w.ID == op.Id }
	if ino == 0 {
		s.cur.ranges.Scan(func(at uint64, f *fileRanges) bool {
			if slices.ContainsFunc(f.waits, mine) {
				ino = at
			}
			return ino == 0
		})
	}
	if f, _ := s.cur.ranges.Get(ino); f == nil || !slices.ContainsFunc(f.waits, mine) {
		done.Code = NotFound
		return
	}
	done.Ino = ino
	f := s.fileRanges(ino)
	f.waits = slices.DeleteFunc(f.waits, mine)
	s.countWait(done.Session, -1)
	s.settleRanges(ino, f)
}

// dropRanges ends all byte-range locks and waits of a session that ended.
func (s *State) dropRanges(session uint64) {
	var inos []uint64
	s.cur.ranges.Scan(func(ino uint64, f *fileRanges) bool {
		if slices.ContainsFunc(f.held, func(r Range) bool { return r.Session == session }) ||
			slices.ContainsFunc(f.waits, func(w RangeWait) bool { return w.Session == session }) {
			inos = append(inos, ino)
		}
		return true
	})
	for _, ino := range inos {
		f := s.fileRanges(ino)
		waits := len(f.waits)
		f.held = slices.DeleteFunc(f.held, func(r Range) bool { return r.Session == session })
		f.waits = slices.DeleteFunc(f.waits, func(w RangeWait) bool { return w.Session == session })
		s.countWait(session, len(f.waits)-waits)
		s.settleRanges(ino, f)
	}
}

// forgetRanges ends the byte-range locks of a file that is gone.
func (s *State) forgetRanges(ino uint64) {
	f, ok := s.cur.ranges.Delete(ino)
	if !ok {
		return
	}
	s.dirty |= partRanges
	for i := range f.held {
		s.countRanges(f.held[i].Session, -1)
	}
	for i := range f.waits {
		s.countWait(f.waits[i].Session, -1)
	}
}
