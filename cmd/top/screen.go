package top

import (
	"strconv"
	"strings"
	"time"
)

// screen is what a person sees and has chosen.
type screen struct {
	selection
	last    round
	first   int  // row shown at the top
	editing bool // a filter is being typed
}

// key is what was typed: a character, or one of those below.
type key rune

const (
	keyUp key = -1 - iota
	keyDown
	keyPageUp
	keyPageDown
	keyHome
	keyEnd
	keyEscape
	keyInterrupt key = 3
	keyRedraw    key = 12
	keyEnter     key = '\r'
	keySuspend   key = 26
	keyRubout    key = 127
)

// press does what a key asks for, on a screen of so many lines, and reports whether it is to end.
func (s *screen) press(k key, height int) (quit bool) {
	if k == keyInterrupt {
		return true
	}
	if s.editing {
		s.edit(k)
		return false
	}
	page := max(1, height-frame)
	switch k {
	case 'q':
		return true
	case '/':
		s.editing = true
	case keyEscape:
		s.filter = ""
	case 'r':
		s.reverse = !s.reverse
	case keyUp, 'k':
		s.first--
	case keyDown, 'j':
		s.first++
	case keyPageUp:
		s.first -= page
	case keyPageDown, ' ':
		s.first += page
	case keyHome, 'g':
		s.first = 0
	case keyEnd, 'G':
		s.first = len(s.last.rows)
	}
	for i, by := range sortKeys {
		if k == key(by.letter) {
			s.key, s.first = i, 0
		}
	}
	return false
}

// maxFilter bounds what is typed.
const maxFilter = 200

// edit takes a key of the filter.
func (s *screen) edit(k key) {
	switch {
	case k == keyEnter || k == '\n':
		s.editing = false
	case k == keyEscape:
		s.editing, s.filter = false, ""
	case k == keyRubout || k == '\b':
		if r := []rune(s.filter); len(r) > 0 {
			s.filter = string(r[:len(r)-1])
		}
	case k >= ' ' && len(s.filter) < maxFilter && strconv.IsPrint(rune(k)):
		s.filter += string(rune(k))
	}
	s.first = 0
}

// frame is how many lines are no rows: the summary, the head, the keys.
const frame = 3

// lines are what a screen of that size shows; no more lines than it has.
func (s *screen) lines(width, height int, now time.Time) []string {
	rows := s.of(s.last.rows)
	room := max(0, height-frame)
	s.first = max(0, min(s.first, len(rows)-room))
	shown := rows[s.first:min(len(rows), s.first+room)]
	lines := append([]string{s.last.summary()}, table(shown, now, width)...)
	for len(lines) < height-1 {
		lines = append(lines, "")
	}
	return append(lines[:max(0, min(len(lines), height-1))], s.keys(len(rows)))
}

// keys is the line at the bottom: what can be typed, and what was chosen.
func (s *screen) keys(rows int) string {
	if s.editing {
		return "filter: " + s.filter + "▏  Enter keeps it, Esc drops it"
	}
	var b strings.Builder
	b.WriteString("sort:")
	for i, by := range sortKeys {
		name := strings.Replace(by.name, string(by.letter), "["+string(by.letter)+"]", 1)
		if i == s.key {
			name = strings.ToUpper(name)
		}
		b.WriteString(" " + name)
	}
	b.WriteString("  [r]everse  [/]filter")
	if s.filter != "" {
		b.WriteString(" " + strconv.Quote(s.filter))
	}
	b.WriteString("  [q]uit  ")
	if rows > 0 {
		b.WriteString(strconv.Itoa(s.first+1) + "/")
	}
	b.WriteString(strconv.Itoa(rows))
	return b.String()
}
