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
