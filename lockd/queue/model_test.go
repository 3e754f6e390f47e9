package queue

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

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

// pair is a queue and its model, driven by rapid.
type pair struct {
	q       Queue[int]
	m       *model
	holders int
	owners  bool // requests name own entries
}

// TestMain asks for more than rapid's 100 runs unless the command line says.
func TestMain(m *testing.M) {
	flag.Parse()
	set := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { set[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": "1500", "rapid.steps": "60"} {
		if !set[name] {
			flag.Set(name, value)
		}
	}
	os.Exit(m.Run())
}

func TestQueueAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ceiling := rapid.SampledFrom([]Mode{None, PR, PW, EX, EX, EX, EX}).Draw(t, "ceiling")
		p := &pair{
			q: New[int](ceiling), m: newModel(ceiling),
			holders: rapid.SampledFrom([]int{3, 5, 8, 40}).Draw(t, "holders"),
			owners:  rapid.Bool().Draw(t, "owners"),
		}
		p.fill()
		t.Repeat(map[string]func(*rapid.T){
			"":        p.check,
			"request": p.request,
			"try":     p.try,
			"convert": p.convert,
			"release": p.release,
			"lower":   p.lower,
			"intent":  p.intent,
			"cancel":  p.cancel,
			"setOwn":  p.setOwn,
			"amend":   p.amend,
			"ceiling": p.ceiling,
			"copy":    p.copy,
		})
	})
}

// fill gives a crowd its first locks, so that they are indexed.
func (p *pair) fill() {
	for h := 1; h < p.holders-10; h++ {
		a := ask{Request: Request[int]{Holder: h, Mode: CR, Flags: NoQueue}}
		p.m.ask(a)
		p.q.TryGrant(a.Request)
	}
}

func (p *pair) holder(t *rapid.T) int { return rapid.IntRange(1, p.holders).Draw(t, "holder") }

func (p *pair) mode(t *rapid.T) Mode {
	if p.holders > 10 && rapid.IntRange(0, 9).Draw(t, "weak") > 0 {
		return rapid.SampledFrom([]Mode{NL, CR, CR, CW}).Draw(t, "mode")
	}
	return rapid.SampledFrom([]Mode{NL, CR, CW, PR, PW, EX, EX}).Draw(t, "mode")
}

// ask draws a request of one who does not wait already. Holders 1 to 3 have one
// owner, 4 to 6 the next.
func (p *pair) ask(t *rapid.T, h int) ask {
	a := ask{Request: Request[int]{Holder: h, Mode: p.mode(t)}}
	if rapid.IntRange(0, 2).Draw(t, "plain") > 0 {
		for f := NoQueue; f <= AltCW; f <<= 1 {
			if rapid.IntRange(0, 5).Draw(t, f.String()) == 0 {
				a.Flags |= f
			}
		}
	}
	if (a.Mode == CR || a.Mode == CW) && p.m.granted[h] == None {
		a.Shared = rapid.Bool().Draw(t, "shared")
	}
	if p.owners && rapid.Bool().Draw(t, "own") {
		a.Own, a.OwnShared = p.own(t, h)
	}
	return a
}

func (p *pair) own(t *rapid.T, h int) (own []int, shared [2]uint32) {
	for o := 1; o <= p.holders; o++ {
		if o != h && (o-1)/3 == (h-1)/3 && rapid.Bool().Draw(t, "owns") {
			own = append(own, o)
		}
	}
	for i := range shared {
		shared[i] = rapid.SampledFrom([]uint32{0, 0, 0, 1, 2}).Draw(t, "intents")
	}
	return own, shared
}

func (p *pair) waiting(h int) bool {
	_, waits := p.m.waits(h)
	return waits
}

func (p *pair) request(t *rapid.T) {
	h := p.holder(t)
	if p.waiting(h) {
		t.Skip("waits")
	}
	a := p.ask(t, h)
	p.blockersOf(t, a)
	fit, fits := p.q.Fits(a.Request)
	wantOut, wantMode := p.m.ask(a)
	out, mode := p.q.Request(a.Request)
	if out != wantOut || mode != wantMode {
		t.Fatalf("request %+v: %v %v, want %v %v", a, out, mode, wantOut, wantMode)
	}
	if fits != (out == Granted) || fit != mode {
		t.Fatalf("request %+v: %v %v, but it fits: %v %v", a, out, mode, fit, fits)
	}
}

func (p *pair) try(t *rapid.T) {
	h := p.holder(t)
	if p.waiting(h) {
		t.Skip("waits")
	}
	a := p.ask(t, h)
	a.Flags |= NoQueue
	out, want := p.m.ask(a)
	mode, ok := p.q.TryGrant(a.Request)
	if ok != (out == Granted) || mode != want {
		t.Fatalf("try %+v: %v %v, want %v %v", a, mode, ok, want, out)
	}
}

func (p *pair) convert(t *rapid.T) {
	h := p.holder(t)
	if p.waiting(h) || p.m.granted[h] == None {
		t.Skip("nothing to convert")
	}
	a := p.ask(t, h)
	a.convert = true
	p.blockersOf(t, a)
	wantOut, wantMode := p.m.ask(a)
	out, mode, grants := p.q.Convert(a.Request)
	if out != wantOut || mode != wantMode {
		t.Fatalf("convert %+v: %v %v, want %v %v", a, out, mode, wantOut, wantMode)
	}
	p.same(t, grants)
}

// blockersOf compares what is in the way of a request before it is made.
func (p *pair) blockersOf(t *rapid.T, a ask) {
	got := names(p.q.BlockersOf(a.Request, a.convert))
	if p.m.now(a) != None {
		if len(got) > 0 {
			t.Fatalf("%+v can be granted, but %v is in the way", a, got)
		}
		return
	}
	ahead := p.m.line()
	switch head := a.Flags&HeadQue != 0; {
	case p.m.converts(a) && head:
		ahead = nil
	case p.m.converts(a) || head:
		ahead = p.m.conv
	}
	if want := p.m.blockers(a, ahead); !maps.Equal(got, want) {
		t.Fatalf("in the way of %+v: %v, want %v", a, got, want)
	}
}

func (p *pair) release(t *rapid.T) {
	h := p.holder(t)
	delete(p.m.granted, h)
	p.m.remove(h)
	p.same(t, p.q.Release(h))
}

func (p *pair) lower(t *rapid.T) {
	h := p.holder(t)
	to := None
	if rapid.Bool().Draw(t, "some") {
		to = p.mode(t)
	}
	had, ok := p.m.granted[h]
	if ok && !naiveCovers(had, to) {
		t.Skip("not lower")
	}
	if ok && to == None {
		delete(p.m.granted, h)
	} else if ok {
		p.m.granted[h] = to
	}
	p.same(t, p.q.Lower(h, to))
}

func (p *pair) intent(t *rapid.T) {
	mode := rapid.SampledFrom([]Mode{CR, CW}).Draw(t, "mode")
	if p.m.intents[mode] == 0 {
		t.Skip("no intent")
	}
	if rapid.IntRange(0, 3).Draw(t, "reuse") == 0 {
		p.m.intents[mode]++
		p.q.AddShared(mode)
		return
	}
	p.m.intents[mode]--
	p.same(t, p.q.ReleaseShared(mode))
}

func (p *pair) cancel(t *rapid.T) {
	h := p.holder(t)
	want := p.m.remove(h)
	grants, was := p.q.Cancel(h)
	if was != want {
		t.Fatalf("cancel %d: %v, want %v", h, was, want)
	}
	p.same(t, grants)
}

func (p *pair) setOwn(t *rapid.T) {
	h := p.holder(t)
	if !p.owners {
		t.Skip("no owners")
	}
	own, shared := p.own(t, h)
	for _, list := range [][]ask{p.m.conv, p.m.wait} {
		for i := range list {
			if list[i].Holder == h {
				list[i].Own, list[i].OwnShared = own, shared
			}
		}
	}
	p.same(t, p.q.SetOwn(h, own, shared))
}

func (p *pair) amend(t *rapid.T) {
	h, mode := p.holder(t), p.mode(t)
	a, waits := p.m.waits(h)
	if a.Shared && mode != CR && mode != CW {
		t.Skip("no intent")
	}
	var want []Grant[int]
	if waits {
		want = p.m.amend(h, mode)
	}
	grants, was := p.q.Amend(h, mode)
	if was != waits {
		t.Fatalf("amend %d: %v, want %v", h, was, waits)
	}
	p.sameGrants(t, grants, append(want, p.m.settle()...))
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

func (p *pair) ceiling(t *rapid.T) {
	p.m.ceiling = rapid.SampledFrom([]Mode{None, NL, CR, CW, PR, PW, EX, EX, EX}).Draw(t, "ceiling")
	p.same(t, p.q.SetCeiling(p.m.ceiling))
}

// copy goes on with a clone, or a restored queue, after the old one was changed.
func (p *pair) copy(t *rapid.T) {
	c := p.q.Clone()
	if !p.owners && rapid.Bool().Draw(t, "restore") {
		var err error
		if c, err = restored(&p.q); err != nil {
			t.Fatal(err)
		}
	}
	p.q.SetCeiling(EX)
	for h := range p.holders + 1 {
		p.q.Release(h)
	}
	for _, mode := range []Mode{CR, CW} {
		for range p.q.Shared(mode) {
			p.q.ReleaseShared(mode)
		}
	}
	if !p.q.Empty() || p.q.InUse() != None || p.q.Check() != nil {
		t.Fatalf("not empty: %+v", p.q)
	}
	p.q = c
}

// same settles the model and compares what was granted.
func (p *pair) same(t *rapid.T, grants []Grant[int]) { p.sameGrants(t, grants, p.m.settle()) }

func (p *pair) sameGrants(t *rapid.T, grants, want []Grant[int]) {
	if !slices.Equal(grants, want) {
		t.Fatalf("granted %+v, want %+v", grants, want)
	}
}

func names(seq func(func(Blocker[int]) bool)) map[string]bool {
	set := map[string]bool{}
	for b := range seq {
		switch {
		case b.Ceiling:
			set["ceiling"] = true
		case b.Shared:
			set[fmt.Sprint("intents ", b.Mode, b.Count)] = true
		case b.Waiting:
			set[fmt.Sprint("ahead ", b.Holder, b.Mode)] = true
		default:
			set[fmt.Sprint("held ", b.Holder, b.Mode)] = true
		}
	}
	return set
}

// check compares everything that can be asked of the two.
func (p *pair) check(t *rapid.T) {
	q, m := &p.q, p.m
	if err := q.Check(); err != nil {
		t.Fatal(err)
	}
	if left := m.settle(); left != nil {
		t.Fatalf("left waiting: %+v", left)
	}
	if !p.owners {
		m.checkCompatible(t)
	}
	inUse := None
	for h := 0; h <= p.holders; h++ {
		a, _ := m.waits(h)
		if q.Granted(h) != m.granted[h] || q.Waiting(h) != a.Mode {
			t.Fatalf("%d has %v and waits for %v, want %v and %v", h, q.Granted(h), q.Waiting(h), m.granted[h], a.Mode)
		}
		inUse = naiveJoin(inUse, m.granted[h])
	}
	for _, mode := range []Mode{CR, CW} {
		if q.Shared(mode) != m.intents[mode] {
			t.Fatalf("%d intents %v, want %d", q.Shared(mode), mode, m.intents[mode])
		}
		if m.intents[mode] > 0 {
			inUse = naiveJoin(inUse, mode)
		}
	}
	if q.InUse() != inUse || q.Holders() != len(m.granted) || q.Empty() != (inUse == None && len(m.line()) == 0) {
		t.Fatalf("in use %v by %d, want %v by %d", q.InUse(), q.Holders(), inUse, len(m.granted))
	}
	p.checkLine(t)
	p.checkAll(t)
}

func (m *model) checkCompatible(t *rapid.T) {
	all := maps.Clone(m.granted)
	for mode, n := range m.intents {
		for i := range n {
			all[-10*i-int(mode)] = mode
		}
	}
	for h, a := range all {
		for g, b := range all {
			if g < h && !naiveCompatible(a, b) && g > 0 {
				t.Fatalf("%d has %v and %d has %v", h, a, g, b)
			}
		}
	}
}

func (p *pair) checkLine(t *rapid.T) {
	line := p.m.line()
	i := 0
	for e := range p.q.Line() {
		a := line[i]
		if e.Holder != a.Holder || e.Wanted != a.Mode || e.Flags != a.Flags || e.Place != i+1 ||
			e.Convert != (i < len(p.m.conv)) || e.Exact != a.convert || e.Shared != a.Shared || e.Mode != p.m.granted[a.Holder] {
			t.Fatalf("place %d: %+v, want %+v", i, e, a)
		}
		if got, want := names(p.q.Blockers(a.Holder)), p.m.blockers(a, line[:i]); !maps.Equal(got, want) {
			t.Fatalf("blockers of %+v: %v, want %v", a, got, want)
		}
		cycle := p.q.Cycle(a.Holder)
		if (cycle != nil) != p.m.onCycle(i) {
			t.Fatalf("cycle of %+v: %v", a, cycle)
		}
		p.checkCycle(t, cycle)
		i++
	}
	if i != len(line) || p.q.Waiters() != i {
		t.Fatalf("%d wait, want %d", i, len(line))
	}
	if e, ok := p.q.Head(); ok != (i > 0) || ok && e.Holder != line[0].Holder {
		t.Fatalf("head %+v", e)
	}
}

// checkCycle follows a cycle along the model's edges.
func (p *pair) checkCycle(t *rapid.T, cycle []int) {
	place := map[int]int{}
	for i, a := range p.m.line() {
		place[a.Holder] = i
	}
	for k, h := range cycle {
		next := cycle[(k+1)%len(cycle)]
		if !p.m.waitsFor(place[h], place[next]) {
			t.Fatalf("cycle %v: %d does not wait for %d", cycle, h, next)
		}
	}
}

func (p *pair) checkAll(t *rapid.T) {
	seen := map[int]bool{}
	for e := range p.q.All() {
		a, _ := p.m.waits(e.Holder)
		if seen[e.Holder] || e.Mode != p.m.granted[e.Holder] || e.Wanted != a.Mode {
			t.Fatalf("entry %+v", e)
		}
		seen[e.Holder] = true
		var blocked []int
		for _, a := range p.m.line() {
			if g, ok := p.m.granted[e.Holder]; ok && a.Holder != e.Holder &&
				!slices.Contains(a.Own, e.Holder) && !naiveCompatible(g, p.m.result(a, a.Mode)) {
				blocked = append(blocked, a.Holder)
			}
		}
		if got := p.q.Blocked(e.Holder); !slices.Equal(got, blocked) {
			t.Fatalf("blocked by %d: %v, want %v", e.Holder, got, blocked)
		}
	}
	for _, a := range p.m.line() {
		if !seen[a.Holder] {
			t.Fatalf("%d is missing", a.Holder)
		}
	}
	for h := range p.m.granted {
		if !seen[h] {
			t.Fatalf("%d is missing", h)
		}
	}
}
