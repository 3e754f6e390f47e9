package inotify

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// tree is a tree as its names say.
type tree map[Name]Entry

// TestWorld changes a tree at random and takes steps in between. Each step must be possible in the world that was shown so far, and
// in the end that is the tree.
func TestWorld(t *testing.T) { rapid.Check(t, checkWorld) }

func checkWorld(t *rapid.T) {
	var w World
	is, shown := tree{}, tree{}
	next := uint64(1)
	name := func(label string) Name {
		dirs := []uint64{1}
		for _, e := range is {
			if e.Dir {
				dirs = append(dirs, e.Ino)
			}
		}
		return Name{dirs[rapid.IntRange(0, len(dirs)-1).Draw(t, label+" in")], string(rune('a' + rapid.IntRange(0, 2).Draw(t, label)))}
	}
	changes := map[string]func(*rapid.T){
		"make": func(t *rapid.T) {
			if n := name("name"); is[n].none() {
				next++
				is[n] = Entry{next, rapid.Bool().Draw(t, "dir")}
				w.Made(n, is[n])
			}
		},
		"remove": func(*rapid.T) {
			if n := name("name"); !is[n].none() && is.empty(is[n].Ino) {
				w.Removed(n, is[n])
				delete(is, n)
			}
		},
		"move": func(*rapid.T) {
			from, to := name("from"), name("to")
			e, over := is[from], is[to]
			if e.none() || from == to || is.within(to.Parent, e.Ino) || !over.none() && (over.Dir != e.Dir || !is.empty(over.Ino)) {
				return
			}
			if !over.none() {
				w.Removed(to, over)
			}
			w.Moved(from, to, e)
			delete(is, from)
			is[to] = e
		},
		"show": func(t *rapid.T) { shown.show(t, &w) },
		"": func(t *rapid.T) {
			for n, e := range shown {
				if was, differs := w.Shown(n); differs && was != e {
					t.Fatalf("%v was shown as %v, not %v", n, e, was)
				}
			}
		},
	}
	t.Repeat(changes)
	for w.Len() > 0 {
		shown.show(t, &w)
	}
	if !maps.Equal(is, shown) {
		t.Fatalf("shown\n%v\nnot\n%v", shown, is)
	}
	if _, more := w.Next(); more || len(w.was)+len(w.is)+len(w.queue) > 0 {
		t.Fatalf("something is left: %+v", w)
	}
}

// show takes a step.
func (shown tree) show(t *rapid.T, w *World) {
	s, ok := w.Next()
	if !ok {
		return
	}
	defer w.Done()
	fatal := func() { t.Fatalf("step %+v where %v was shown", s, shown) }
	for _, n := range []Name{s.Name, s.To} {
		if was, differs := w.Shown(n); n.Name != "" && (!differs || was != shown[n] && !(n == s.To && s.Over.none())) {
			t.Fatalf("%v is %v during %+v", n, was, s)
		}
	}
	switch {
	case s.Move():
		if shown[s.Name] != s.Entry || !s.Over.none() && shown[s.To] != s.Over {
			fatal()
		}
		delete(shown, s.Name)
		shown[s.To] = s.Entry
	case s.Made:
		if !shown[s.Name].none() {
			fatal()
		}
		shown[s.Name] = s.Entry
	default:
		if shown[s.Name] != s.Entry {
			fatal()
		}
		delete(shown, s.Name)
	}
}

func (t tree) empty(dir uint64) bool {
	for n := range t {
		if n.Parent == dir {
			return false
		}
	}
	return true
}

// within reports whether a directory is another, or below it.
func (t tree) within(dir, top uint64) bool {
	if dir == top {
		return true
	}
	for n, e := range t {
		if e.Ino == dir {
			return t.within(n.Parent, top)
		}
	}
	return false
}

// TestWorldSteps is what becomes of changes that come at once.
func TestWorldSteps(t *testing.T) {
	file, other := Entry{2, false}, Entry{3, false}
	a, b, c := Name{1, "a"}, Name{1, "b"}, Name{1, "c"}
	for _, test := range []struct {
		what  string
		tell  func(w *World)
		steps string
	}{
		{"made and removed", func(w *World) { w.Made(a, file); w.Removed(a, file) }, ""},
		{"removed and made anew", func(w *World) { w.Removed(a, file); w.Made(a, other) }, "-a2 +a3 "},
		{"moved twice", func(w *World) { w.Moved(a, b, file); w.Moved(b, c, file) }, "a2>c0 "},
		{"moved to and fro", func(w *World) { w.Moved(a, b, file); w.Moved(b, a, file) }, ""},
		{"moved over another", func(w *World) { w.Removed(b, other); w.Moved(a, b, file) }, "a2>b3 "},
		{"swapped", func(w *World) { w.Moved(a, c, file); w.Moved(b, a, other); w.Moved(c, b, file) }, "a2>b0 +a3 "},
		{"made, then moved over", func(w *World) { w.Made(a, file); w.Removed(b, other); w.Moved(a, b, file) }, "-b3 +b2 "},
		{"moved into what was made meanwhile", func(w *World) {
			w.Moved(a, b, file)
			w.Made(c, Entry{4, true})
			w.Moved(b, Name{4, "d"}, file)
		}, "+c4 a2>d0 "},
		{"shown by the kernel", func(w *World) { w.Made(a, file); w.Known(a) }, ""},
	} {
		var w World
		test.tell(&w)
		got := ""
		for {
			s, ok := w.Next()
			if !ok {
				break
			}
			switch {
			case s.Move():
				got += fmt.Sprintf("%s%d>%s%d ", s.Name.Name, s.Entry.Ino, s.To.Name, s.Over.Ino)
			case s.Made:
				got += fmt.Sprintf("+%s%d ", s.Name.Name, s.Entry.Ino)
			default:
				got += fmt.Sprintf("-%s%d ", s.Name.Name, s.Entry.Ino)
			}
			w.Done()
		}
		if got != test.steps {
			t.Errorf("%s: %q, want %q", test.what, got, test.steps)
		}
	}
}

// TestWorldTooLate: what the kernel has shown by itself while a step was on its way is not undone by it.
func TestWorldTooLate(t *testing.T) {
	n, other, e := Name{1, "n"}, Name{2, "other"}, Entry{Ino: 7}
	for what, change := range map[string]func(w *World){
		"removal": func(w *World) { w.Removed(n, e) },
		"making":  func(w *World) { w.Made(n, e) },
		"move":    func(w *World) { w.Moved(other, n, e) },
	} {
		var w World
		change(&w)
		if _, ok := w.Next(); !ok || w.Acting() == nil {
			t.Fatalf("%s: no step", what)
		}
		w.Known(n)
		if w.Acting() != nil {
			t.Errorf("%s: goes on", what)
		}
		if e, differs := w.Shown(n); differs {
			t.Errorf("%s: shown as %v", what, e)
		}
		w.Done()
	}
}
