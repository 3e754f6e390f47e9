package queue

import (
	"fmt"
	"slices"

	"pgregory.net/rapid"
)

// model is a queue written as plainly as the rules can be said, for comparison:
// lists, no counts, the tables derived from the meaning of the modes, and after
// every step a search from the start for the first that can be granted.
type model struct {
	ceiling Mode
	granted map[int]Mode
	intents map[Mode]int
	conv    []ask
	wait    []ask
}

// ask is a waiting request.
type ask struct {
	Request[int]
	convert bool // by Convert: the grant is the mode itself, not a join
}

func newModel(ceiling Mode) *model {
	return &model{ceiling: ceiling, granted: map[int]Mode{}, intents: map[Mode]int{}}
}

func (m *model) line() []ask { return slices.Concat(m.conv, m.wait) }

func (m *model) waits(h int) (ask, bool) {
	for _, a := range m.line() {
		if a.Holder == h {
			return a, true
		}
	}
	return ask{}, false
}

// result is what the holder would have if a were granted in that mode.
func (m *model) result(a ask, mode Mode) Mode {
	if a.convert || a.Shared {
		return mode
	}
	return naiveJoin(m.granted[a.Holder], mode)
}

// foreign is the number of intents of that mode that are not a's owner's.
func (m *model) foreign(a ask, mode Mode) int {
	return max(0, m.intents[mode]-int(a.OwnShared[mode-CR]))
}

// fits reports whether nothing granted, nor the ceiling, is in the way of a.
func (m *model) fits(a ask, mode Mode) bool {
	if !naiveCovers(m.ceiling, mode) {
		return false
	}
	for h, g := range m.granted {
		if h != a.Holder && !slices.Contains(a.Own, h) && !naiveCompatible(g, mode) {
			return false
		}
	}
	for _, i := range []Mode{CR, CW} {
		if m.foreign(a, i) > 0 && !naiveCompatible(i, mode) {
			return false
		}
	}
	return true
}

// choices returns the modes that a would take, the best first.
func (m *model) choices(a ask) []Mode {
	modes := []Mode{m.result(a, a.Mode)}
	for _, alt := range []struct {
		flag Flags
		mode Mode
	}{{AltPR, PR}, {AltCW, CW}} {
		r := m.result(a, alt.mode)
		if a.Flags&alt.flag != 0 && a.Mode != alt.mode && !a.Shared && naiveCovers(r, m.granted[a.Holder]) {
			modes = append(modes, r)
		}
	}
	return modes
}

// choose returns the mode in which a can be granted behind those ahead.
func (m *model) choose(a ask, ahead []ask) Mode {
	for _, b := range ahead {
		if a.Mode != NL && !slices.Contains(a.Own, b.Holder) {
			return None
		}
	}
	for _, mode := range m.choices(a) {
		if m.fits(a, mode) {
			return mode
		}
	}
	return None
}

func (m *model) give(a ask, mode Mode) Grant[int] {
	if a.Shared {
		m.intents[mode]++
		return Grant[int]{Holder: a.Holder, Mode: mode, Shared: true}
	}
	_, had := m.granted[a.Holder]
	m.granted[a.Holder] = mode
	return Grant[int]{Holder: a.Holder, Mode: mode, Converted: had}
}

func (m *model) remove(h int) bool {
	is := func(a ask) bool { return a.Holder == h }
	n := len(m.conv) + len(m.wait)
	m.conv, m.wait = slices.DeleteFunc(m.conv, is), slices.DeleteFunc(m.wait, is)
	return len(m.conv)+len(m.wait) < n
}

// settle grants, one by one, the first in the line that can be granted.
func (m *model) settle() (grants []Grant[int]) {
	for again := true; again; {
		again = false
		for i, a := range m.line() {
			if mode := m.choose(a, m.line()[:i]); mode != None {
				m.remove(a.Holder)
				grants = append(grants, m.give(a, mode))
				again = true
				break
			}
		}
	}
	return grants
}

// converts reports whether a goes by the rules of conversions.
func (m *model) converts(a ask) bool {
	own := a.OwnShared[0]+a.OwnShared[1] > 0
	for _, h := range a.Own {
		own = own || m.granted[h] >= CR
	}
	return a.convert || own
}

// queueAs puts a where it has to wait.
func (m *model) queueAs(a ask, conv bool) {
	list := &m.wait
	if conv {
		list = &m.conv
	}
	if a.Flags&HeadQue != 0 {
		*list = slices.Insert(*list, 0, a)
	} else {
		*list = append(*list, a)
	}
}

func (m *model) now(a ask) Mode {
	had := m.granted[a.Holder]
	if r := m.result(a, a.Mode); !a.Shared && had != None && naiveCovers(had, r) {
		return r
	}
	var ahead []ask
	switch head := a.Flags&HeadQue != 0; {
	case m.converts(a) && a.Flags&QueCvt != 0 && !head:
		ahead = m.conv
	case m.converts(a):
	case head:
		ahead = m.conv
	default:
		ahead = m.line()
	}
	return m.choose(a, ahead)
}

func (m *model) ask(a ask) (Outcome, Mode) {
	if mode := m.now(a); mode != None {
		m.give(a, mode)
		return Granted, mode
	}
	if a.Flags&NoQueue != 0 {
		return Refused, None
	}
	m.queueAs(a, m.converts(a))
	return Waiting, None
}

// blockers returns the names of what is in the way of a.
func (m *model) blockers(a ask, ahead []ask) map[string]bool {
	set := map[string]bool{}
	mode := m.result(a, a.Mode)
	if !naiveCovers(m.ceiling, mode) {
		set["ceiling"] = true
	}
	for h, g := range m.granted {
		if h != a.Holder && !slices.Contains(a.Own, h) && !naiveCompatible(g, mode) {
			set[fmt.Sprint("held ", h, g)] = true
		}
	}
	for _, i := range []Mode{CR, CW} {
		if n := m.foreign(a, i); n > 0 && !naiveCompatible(i, mode) {
			set[fmt.Sprint("intents ", i, n)] = true
		}
	}
	for _, b := range ahead {
		if a.Mode != NL && !slices.Contains(a.Own, b.Holder) {
			set[fmt.Sprint("ahead ", b.Holder, b.Mode)] = true
		}
	}
	return set
}

// inWay reports whether a cannot go on while a lock of that mode is held.
func (m *model) inWay(a ask, g Mode) bool {
	for _, mode := range m.choices(a) {
		if naiveCompatible(g, mode) {
			return false
		}
	}
	return true
}

// waitsFor is the edge of the deadlock search, place i to place j of the line.
func (m *model) waitsFor(i, j int) bool {
	a, b := m.line()[i], m.line()[j]
	switch {
	case i == j || slices.Contains(a.Own, b.Holder):
		return false
	case j < i && a.Mode != NL:
		return true
	}
	stuck := func(h int) bool {
		g, ok := m.granted[h]
		return ok && h != a.Holder && !slices.Contains(a.Own, h) && m.inWay(a, g)
	}
	if b.convert && stuck(b.Holder) || slices.ContainsFunc(b.Own, stuck) {
		return true
	}
	for _, i := range []Mode{CR, CW} {
		if b.OwnShared[i-CR] > 0 && m.foreign(a, i) > 0 && m.inWay(a, i) {
			return true
		}
	}
	return false
}

// onCycle reports whether place i waits, through others, for itself: by the
// closure of waitsFor.
func (m *model) onCycle(i int) bool {
	n := len(m.line())
	reach := map[int]bool{}
	for grown := true; grown; {
		grown = false
		for j := range n {
			for k := range n {
				if (j == i || reach[j]) && !reach[k] && m.waitsFor(j, k) {
					reach[k], grown = true, true
				}
			}
		}
	}
	return reach[i]
}

// amend changes what h asks for; it keeps its place if it asks for less.
func (m *model) amend(h int, mode Mode) []Grant[int] {
	for _, list := range []*[]ask{&m.conv, &m.wait} {
		for i, a := range *list {
			if a.Holder != h {
				continue
			}
			less := naiveCovers(a.Mode, mode)
			a.Mode = mode
			had := m.granted[h]
			switch r := m.result(a, mode); {
			case !a.Shared && had != None && naiveCovers(had, r):
				m.remove(h)
				return []Grant[int]{m.give(a, r)}
			case less:
				(*list)[i] = a
			default:
				conv := list == &m.conv
				m.remove(h)
				m.queueAs(a, conv)
			}
			return nil
		}
	}
	return nil
}

// checkCompatible looks for two locks that exclude each other.
func (m *model) checkCompatible(t *rapid.T) {
	for h, a := range m.granted {
		for g, b := range m.granted {
			if g < h && !naiveCompatible(a, b) {
				t.Fatalf("%d has %v and %d has %v", h, a, g, b)
			}
		}
		for i, n := range m.intents {
			if n > 0 && !naiveCompatible(a, i) {
				t.Fatalf("%d has %v and there are intents %v", h, a, i)
			}
		}
	}
}
