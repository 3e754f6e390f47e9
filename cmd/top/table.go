package top

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lockfs/lockfs/cmd/client"
)

// summary is the line above the table.
func (r *round) summary() string {
	alive, leader := 0, "none"
	for _, h := range r.hosts {
		if h.Get("state") == "alive" {
			alive++
		}
		if h.Get("role") == "leader" {
			leader = client.Printable(h.Get("host"))
		}
	}
	held, waiting := r.count()
	return fmt.Sprintf("%s  %d of %d hosts alive, leader %s  %d held, %d waiting", r.time.Format(time.TimeOnly), alive, len(r.hosts), leader,
		held, waiting)
}

// minResource is what the first column keeps of its width on a narrow screen.
const minResource = 16

// table returns the lines of a table, the head first. Resources are cut at their beginning so that a line fits into a width, if it
// can; 0 is any.
func table(rows []row, now time.Time, width int) []string {
	cells := [][]string{columns}
	for _, r := range rows {
		cells = append(cells, r.cells(now))
	}
	wide := make([]int, len(columns))
	for _, line := range cells {
		for i, c := range line {
			wide[i] = max(wide[i], utf8.RuneCountInString(c))
		}
	}
	if width > 0 {
		rest := 0
		for _, w := range wide[1 : len(wide)-1] {
			rest += w + 2
		}
		wide[0] = min(wide[0], max(minResource, width-rest-2-len("COMMAND")))
	}
	lines := make([]string, len(cells))
	for n, line := range cells {
		var b strings.Builder
		for i, c := range line {
			if i == 0 {
				c = tail(c, wide[0])
			}
			b.WriteString(c)
			if i < len(line)-1 {
				b.WriteString(strings.Repeat(" ", wide[i]-utf8.RuneCountInString(c)+2))
			}
		}
		lines[n] = b.String()
	}
	return lines
}

// tail cuts a text at its beginning.
func tail(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return "…" + string(r[len(r)-most+1:])
}
