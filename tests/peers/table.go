package main

import (
	"fmt"
	"strings"
)

// row is one line of the table: one figure of one workload.
type row struct {
	workload string
	clients  int
	what     string
	value    func(measured) float64
	text     func(float64) string
	less     bool // the less the better
	goals    []goal
}

// goal is what lockfs is to reach beside some of the others: at least so many times as good as the best of them.
type goal struct {
	than  string // of the best of whom, as the table says it
	among func(*service) bool
	times float64
	fair  bool // only who is fair counts: in whose W3 nobody waits longer than fairWait times its turn
}

// limit is a goal for lockfs alone; the value may not be above.
func limit(v float64) []goal { return []goal{{times: v}} }

// fairWait is the longest wait, in turns, of a lock that is called fair.
const fairWait = 5

func isReplicated(s *service) bool { return s.Kind == replicated }
func isMemory(s *service) bool     { return s.Kind == volatile }
func isLoopback(s *service) bool   { return s.Name == "loopback" }

func perSecond(m measured) float64 { return m.OpsPerSecond }
func handOffs(m measured) float64  { return m.HandOff.PerSecond }

var rows = []row{
	{"W1", 1, "pairs/s", perSecond, digits, false, []goal{
		{"the best replicated peer", isReplicated, 30, false}, {"Redis in memory", isMemory, 3, false}, {"the loopback", isLoopback, 1 / 0.7, false}}},
	{"W2", 16, "pairs/s", perSecond, digits, false, nil},
	{"W2", 64, "pairs/s", perSecond, digits, false, []goal{
		{"the best replicated peer", isReplicated, 8, false}, {"Redis in memory", isMemory, 1, false}}},
	{"W3", 16, "hand-offs/s", handOffs, digits, false, []goal{{"the best fair replicated peer", isReplicated, 10, true}}},
	{"W3", 16, "longest wait, in fair turns", func(m measured) float64 { return m.HandOff.WaitToFair }, digits, true, limit(fairWait)},
	{"W3", 16, "least share", func(m measured) float64 { return m.HandOff.LeastShare }, digits, false, nil},
	{"W4", 64, "time to hold them", func(m measured) float64 { return float64(m.Elapsed) }, span, true, limit(5e9)},
	{"W4", 64, "bytes a lock, all servers", func(m measured) float64 { return m.BytesPerLock }, digits, true, limit(1024)},
	{"W5", 4, "to a new lock", func(m measured) float64 { return float64(m.Outage.NewLock) }, span, true, limit(1e9)},
	{"W5", 4, "without a warm lock", func(m measured) float64 { return float64(m.Outage.WarmGap) }, span, true, nil},
	{"W6", 1, "pairs/s", perSecond, digits, false, []goal{{"the best replicated peer", isReplicated, 1.3, false}}},
	{"W6", 64, "pairs/s", perSecond, digits, false, []goal{{"the best replicated peer", isReplicated, 1.3, false}}},
	{"W7", 64, "reads/s", perSecond, digits, false, []goal{{"the best replicated peer", isReplicated, 50, false}}},
	{"W7", 64, "write to first read", func(m measured) float64 { return float64(m.News.P50) }, span, true, nil},
	{"W8", 2, "hand-offs/s", handOffs, digits, false, []goal{{"the best replicated peer", isReplicated, 1, false}}},
	{"W8", 2, "release to grant, p50", func(m measured) float64 { return float64(m.HandOff.P50) }, span, true, []goal{{"the best replicated peer", isReplicated, 1, false}}},
	{"flock", 1, "pairs/s", perSecond, digits, false, []goal{{"the loopback", isLoopback, 1 / 0.7, false}}},
}

// measured reports whether a row is of what was measured, on any service.
func (r *results) measured(w row) bool {
	for _, s := range r.Services {
		if _, ok := r.value(w, s); ok {
			return true
		}
	}
	return false
}

// value is a row's figure for a service.
func (r *results) value(w row, s *service) (float64, bool) {
	m, ok := r.look(w.workload, w.clients, s.Name).middle()
	if !ok {
		return 0, false
	}
	return w.value(m), true
}

// ratio is how many times as good a is as b.
func (w row) ratio(a, b float64) float64 {
	if w.less {
		a, b = b, a
	}
	if b == 0 {
		return 0
	}
	return a / b
}

// best is the best of those that a goal is about.
func (r *results) best(w row, g goal) (name string, value float64, ok bool) {
	for _, s := range r.Services {
		if !g.among(s) || g.fair && !r.isFair(s) {
			continue
		}
		if v, measured := r.value(w, s); measured && (!ok || w.ratio(v, value) > 1) {
			name, value, ok = s.Name, v, true
		}
	}
	return name, value, ok
}

// isFair reports whether nobody waited much longer than its turn for a service's contended lock.
func (r *results) isFair(s *service) bool {
	m, ok := r.look("W3", 16, s.Name).middle()
	return ok && m.HandOff != nil && m.HandOff.WaitToFair <= fairWait
}

// table is the results in markdown.
func (r *results) table() string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "%s, %d cores, Linux %s; rounds of %s, the middle of %d; all on one machine, in one run, in turns.\n\n", r.Date, r.Cores, r.Kernel, r.For, r.Rounds)
	b.WriteString("| workload | clients | |")
	for _, s := range r.Services {
		fmt.Fprintf(b, " %s |", s.Name)
	}
	b.WriteString("\n| --- | ---: | --- |" + strings.Repeat(" ---: |", len(r.Services)) + "\n")
	for _, w := range rows {
		if !r.measured(w) {
			continue
		}
		fmt.Fprintf(b, "| %s | %d | %s |", w.workload, w.clients, w.what)
		for _, s := range r.Services {
			fmt.Fprintf(b, " %s |", r.entry(w, s))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n| goal | | lockfs is | |\n| --- | --- | ---: | --- |\n")
	for _, w := range rows {
		for _, g := range w.goals {
			b.WriteString(r.judge(w, g))
		}
	}
	b.WriteString("\n")
	for _, s := range r.Services {
		fmt.Fprintf(b, "- %s: %s (%s)\n", s.Name, s.What, s.Kind)
	}
	return b.String()
}

func (r *results) entry(w row, s *service) string {
	if v, ok := r.value(w, s); ok {
		return w.text(v)
	}
	if c := r.look(w.workload, w.clients, s.Name); c != nil && strings.HasPrefix(c.Not, "failed") {
		return "failed"
	}
	return "–"
}

// judge is the line of one goal, empty if it was not measured.
func (r *results) judge(w row, g goal) string {
	var us float64
	var ok bool
	for _, s := range r.Services {
		if s.Kind == ours {
			us, ok = r.value(w, s)
		}
	}
	if !ok {
		return ""
	}
	if g.among == nil {
		return fmt.Sprintf("| %s, %d: %s | at most %s | %s | %s |\n", w.workload, w.clients, w.what, w.text(g.times), w.text(us), verdict(us <= g.times))
	}
	name, value, ok := r.best(w, g)
	if !ok {
		return ""
	}
	ratio := w.ratio(us, value)
	return fmt.Sprintf("| %s, %d: %s | at least %s times %s (%s) | %s times | %s |\n", w.workload, w.clients, w.what, short(g.times), g.than, name,
		short(ratio), verdict(ratio >= g.times))
}

func verdict(ok bool) string {
	if ok {
		return "met"
	}
	return "**missed**"
}

// short is a ratio with two digits behind the point, or none if it is large.
func short(v float64) string {
	if v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}
