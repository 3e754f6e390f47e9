package inotify

// Name is a name in a directory.
type Name struct {
	Parent uint64
	Name   string
}

// Entry is what a name leads to; the zero Entry is nothing.
type Entry struct {
	Ino uint64
	Dir bool
}

func (e Entry) none() bool { return e.Ino == 0 }

// Step is a change of the world that watchers are shown by one call. With an empty To.Name it is of one name: Made if Before is nothing,
// else removed. Else it is a move, and Over is what was at To and is gone for good, if anything.
type Step struct {
	Name, To Name
	Entry    Entry
	Made     bool
	Over     Entry
}

// Move reports whether it is one.
func (s *Step) Move() bool { return s.To.Name != "" }

// World is the names of the tree as watchers have been shown them, where that is not how they are: pure, and told in the order of the
// log. The zero World is that of the tree as it is.
type World struct {
	records map[Name]*record
	queue   []*record          // in the order they came; some may be over
	was, is map[uint64]*record // by inode: the record whose was, is, leads to it
	acting  *Step              // being done: the world is still without it
}

// record is a name that leads elsewhere than watchers know.
type record struct {
	Name
	was, is Entry
}

// Len is how many names are not as they were shown.
func (w *World) Len() int { return len(w.records) }

// Made tells that a name was made.
func (w *World) Made(n Name, e Entry) { w.change(n, Entry{}, e) }

// Removed tells that a name was removed.
func (w *World) Removed(n Name, e Entry) { w.change(n, e, Entry{}) }

// Moved tells that a name was moved. What it replaced was removed before.
func (w *World) Moved(from, to Name, e Entry) {
	w.change(from, e, Entry{})
	w.change(to, Entry{}, e)
}

// Known tells that watchers know how a name is now: the kernel has told them, for a call that was not the Raiser's.
func (w *World) Known(n Name) {
	if r := w.records[n]; r != nil {
		w.set(r, Entry{}, Entry{})
	}
	if s := w.acting; s != nil && (s.Name == n || s.Move() && s.To == n) {
		w.acting = nil // too late: it would show what was before
	}
}

func (w *World) change(n Name, was, is Entry) {
	r := w.records[n]
	if r == nil {
		if w.records == nil {
			w.records, w.was, w.is = make(map[Name]*record), make(map[uint64]*record), make(map[uint64]*record)
		}
		r = &record{Name: n}
		w.records[n] = r
		w.queue = append(w.queue, r)
	} else {
		was = r.was
	}
	w.set(r, was, is)
}

// set changes a record, which is over if it then tells nothing.
func (w *World) set(r *record, was, is Entry) {
	if w.was[r.was.Ino] == r {
		delete(w.was, r.was.Ino)
	}
	if w.is[r.is.Ino] == r {
		delete(w.is, r.is.Ino)
	}
	r.was, r.is = was, is
	if was == is {
		delete(w.records, r.Name)
		return
	}
	if !was.none() {
		w.was[was.Ino] = r
	}
	if !is.none() {
		w.is[is.Ino] = r
	}
}

// over reports whether a record of the queue tells nothing any more.
func (w *World) over(r *record) bool { return w.records[r.Name] != r }

// Next begins the next step; Done ends it. ok is false if the world is as the tree is.
func (w *World) Next() (s Step, ok bool) {
	for len(w.queue) > 0 && w.over(w.queue[0]) {
		w.queue[0] = nil
		w.queue = w.queue[1:]
	}
	if len(w.queue) == 0 {
		w.queue = nil
		return Step{}, false
	}
	s = w.step(w.shownFirst(w.queue[0]))
	w.acting = &s
	return s, true
}

// maxAbove bounds the search for the record to begin with: directories that were put into each other in turn have none, and a step
// into one that was not shown yet cannot be taken.
const maxAbove = 128

// shownFirst returns the record to begin with for another: the directory must have been shown before what is in it.
func (w *World) shownFirst(r *record) *record {
	for range maxAbove {
		above := w.is[r.Parent]
		if to := w.is[r.was.Ino]; above == nil && to != nil && !r.was.none() { // it moves to there
			above = w.is[to.Parent]
		}
		if above == nil || above == r {
			break
		}
		r = above
	}
	return r
}

// step takes the step that a record asks for.
func (w *World) step(r *record) Step {
	if r.was.none() {
		if from := w.was[r.is.Ino]; from != nil {
			return w.move(from, r)
		}
		s := Step{Name: r.Name, Entry: r.is, Made: true}
		w.set(r, r.is, r.is)
		return s
	}
	if to := w.is[r.was.Ino]; to != nil {
		return w.move(r, to)
	}
	if from := w.was[r.is.Ino]; from != nil && !r.is.none() {
		return w.move(from, r)
	}
	s := Step{Name: r.Name, Entry: r.was}
	w.set(r, Entry{}, r.is)
	return s
}

// move takes the step from where a node was shown to where it is. A node that it replaces there is told of only if it is gone: to
// the kernel it will be.
func (w *World) move(from, to *record) Step {
	s := Step{Name: from.Name, To: to.Name, Entry: from.was}
	if !to.was.none() && w.is[to.was.Ino] == nil {
		s.Over = to.was
	}
	w.set(from, Entry{}, from.is)
	w.set(to, to.is, to.is)
	return s
}

// Done ends the step that Next began.
func (w *World) Done() { w.acting = nil }

// Acting returns the step that was begun, nil if none is.
func (w *World) Acting() *Step { return w.acting }

// Shown returns what watchers have been shown of a name; differs is false if that is how it is.
func (w *World) Shown(n Name) (e Entry, differs bool) {
	if s := w.acting; s != nil {
		switch {
		case n == s.Name && s.Made:
			return Entry{}, true
		case n == s.Name:
			return s.Entry, true
		case s.Move() && n == s.To:
			return s.Over, true
		}
	}
	if r := w.records[n]; r != nil {
		return r.was, true
	}
	return Entry{}, false
}

// Where returns the name under which a node was shown, if that is not the one that it has.
func (w *World) Where(ino uint64) (Name, bool) {
	if s := w.acting; s != nil && !s.Made && s.Entry.Ino == ino {
		return s.Name, true
	}
	if r := w.was[ino]; r != nil && ino != 0 {
		return r.Name, true
	}
	return Name{}, false
}
