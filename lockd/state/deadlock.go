package state

import "slices"

// rangeDeadlock says whether a wait for a byte range would close a cycle: whether its owner has, somewhere, what one of
// those waits for, directly or through others, that it would wait for itself. As in Linux (fs/locks.c,
// posix_locks_deadlock) the waits of POSIX owners are searched, on all files and here on all hosts; owners of open file
// descriptions are not, since any process that has the description may unlock.
func (s *State) rangeDeadlock(ino uint64, f *fileRanges, want *Range) bool {
	if s.cur.rangeWaits == 0 {
		return false
	}
	waits := make(map[rangeOwner][]waitAt)
	s.cur.ranges.Scan(func(ino uint64, f *fileRanges) bool {
		for i := range f.waits {
			if w := &f.waits[i]; !w.OFD {
				waits[w.owner()] = append(waits[w.owner()], waitAt{f: f, want: &w.Range, place: i})
			}
		}
		return true
	})
	seen := map[rangeOwner]bool{}
	var reaches func(w waitAt) bool
	reaches = func(w waitAt) bool {
		for _, o := range w.blockers() {
			if o == want.owner() {
				return true
			}
			if seen[o] {
				continue
			}
			seen[o] = true
			if slices.ContainsFunc(waits[o], reaches) {
				return true
			}
		}
		return false
	}
	return reaches(waitAt{f: f, want: want, place: len(f.waits)})
}

// waitAt is a wait for a range of a file, behind the first place waits.
type waitAt struct {
	f     *fileRanges
	want  *Range
	place int
}

// blockers returns the owners of what holds the wait up.
func (w waitAt) blockers() []rangeOwner {
	var owners []rangeOwner
	for i := range w.f.held {
		if w.f.held[i].conflicts(w.want) {
			owners = append(owners, w.f.held[i].owner())
		}
	}
	if w.f.holds(w.want.owner()) {
		return owners
	}
	for i := range w.f.waits[:w.place] {
		if w.f.waits[i].conflicts(w.want) {
			owners = append(owners, w.f.waits[i].owner())
		}
	}
	return owners
}
