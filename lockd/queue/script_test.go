package queue

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestScripts runs the golden scripts in testdata/rules, one file a rule. A block is
//
//	run [ceiling=MODE]     a new queue with that ceiling, EX if none is named
//	request HOLDER MODE [FLAG…] [shared] [own=H,H…] [intents=CR,CW]
//	try | convert | why    likewise (why: BlockersOf; whyconvert: of a conversion)
//	lower HOLDER MODE
//	release | cancel | blockers | blocked | cycle HOLDER
//	intent MODE | release-intent MODE | blocked-by-intent MODE
//	own HOLDER [own=…] [intents=…]
//	amend HOLDER MODE
//	ceiling MODE
//	inuse | head | restore
//	----
//	COMMAND = RESULT ; GRANTS  {granted +INTENTSxCOUNT} conversions | waiting
//
// A block `more` goes on with the queue of the block before. Check runs after
// every line.
func TestScripts(t *testing.T) {
	files := 0
	defer func() {
		if files == 0 {
			t.Error("no scripts")
		}
	}()
	datadriven.Walk(t, "testdata/rules", func(t *testing.T, path string) {
		var s script
		files++
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "run":
				ceiling := EX
				for _, a := range d.CmdArgs {
					ceiling = mustMode(a.Vals[0])
				}
				s.q = New[int](ceiling)
			case "more":
			default:
				d.Fatalf(t, "no such block: %s", d.Cmd)
			}
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				line = strings.TrimSpace(line)
				fmt.Fprintf(&out, "%-38s = %-26s %s\n", line, s.line(line), s.state())
				if err := s.q.Check(); err != nil {
					fmt.Fprintf(&out, "CHECK: %v\n", err)
				}
			}
			return out.String()
		})
	})
}

// script is the queue that a golden script works on.
type script struct{ q Queue[int] }

func mustMode(s string) Mode {
	if s == "None" {
		return None
	}
	m, ok := ParseMode(s)
	if !ok {
		panic("no such mode: " + s)
	}
	return m
}

// line does one line of a script and returns what came of it.
func (s *script) line(line string) (result string) {
	defer func() {
		if r := recover(); r != nil {
			result = fmt.Sprint("panic: ", r)
		}
	}()
	f := strings.Fields(line)
	q := &s.q
	switch f[0] {
	case "request":
		out, m := q.Request(request(f[1:]))
		return outcome(out, m, nil)
	case "try":
		if m, ok := q.TryGrant(request(f[1:])); ok {
			return "granted " + m.String()
		}
		return "no"
	case "convert":
		return outcome(q.Convert(request(f[1:])))
	case "why":
		return blockers(q.BlockersOf(request(f[1:]), false))
	case "whyconvert":
		return blockers(q.BlockersOf(request(f[1:]), true))
	case "lower":
		return grants(q.Lower(holder(f[1]), mustMode(f[2])))
	case "release":
		return grants(q.Release(holder(f[1])))
	case "cancel":
		g, was := q.Cancel(holder(f[1]))
		return fmt.Sprint(was, grants(g))
	case "amend":
		g, was := q.Amend(holder(f[1]), mustMode(f[2]))
		return fmt.Sprint(was, grants(g))
	case "own":
		r := request(append([]string{f[1], "NL"}, f[2:]...))
		return grants(q.SetOwn(r.Holder, r.Own, r.OwnShared))
	case "intent":
		q.AddShared(mustMode(f[1]))
		return ""
	case "release-intent":
		return grants(q.ReleaseShared(mustMode(f[1])))
	case "ceiling":
		return grants(q.SetCeiling(mustMode(f[1])))
	case "blockers":
		return blockers(q.Blockers(holder(f[1])))
	case "blocked":
		return fmt.Sprint(q.Blocked(holder(f[1])))
	case "blocked-by-intent":
		return fmt.Sprint(q.BlockedShared(mustMode(f[1])))
	case "cycle":
		return fmt.Sprint(q.Cycle(holder(f[1])))
	case "inuse":
		return q.InUse().String()
	case "head":
		e, ok := q.Head()
		return fmt.Sprintf("%v %d:%v→%v", ok, e.Holder, e.Mode, e.Wanted)
	case "restore":
		r, err := restored(&s.q)
		if err != nil {
			return err.Error()
		}
		*q = r
		return "ok"
	}
	panic("no such command: " + f[0])
}

func holder(s string) int {
	h, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return h
}

func request(f []string) Request[int] {
	r := Request[int]{Holder: holder(f[0]), Mode: mustMode(f[1])}
	for _, opt := range f[2:] {
		name, list, _ := strings.Cut(opt, "=")
		flag, isFlag := ParseFlag(name)
		switch {
		case isFlag:
			r.Flags |= flag
		case name == "shared":
			r.Shared = true
		case name == "own":
			for h := range strings.SplitSeq(list, ",") {
				r.Own = append(r.Own, holder(h))
			}
		case name == "intents":
			cr, cw, _ := strings.Cut(list, ",")
			r.OwnShared = [2]uint32{uint32(holder(cr)), uint32(holder(cw))}
		default:
			panic("no such option: " + opt)
		}
	}
	return r
}

func outcome(o Outcome, m Mode, g []Grant[int]) string {
	if o == Granted {
		return "granted " + m.String() + grants(g)
	}
	return o.String() + grants(g)
}

func grants(list []Grant[int]) string {
	var b strings.Builder
	for _, g := range list {
		fmt.Fprintf(&b, "; %d:", g.Holder)
		if g.Shared {
			b.WriteByte('+')
		}
		b.WriteString(g.Mode.String())
		if g.Converted {
			b.WriteString(" converted")
		}
	}
	return b.String()
}

func blockers(seq func(func(Blocker[int]) bool)) string {
	var list []string
	for b := range seq {
		switch {
		case b.Ceiling:
			list = append(list, "ceiling:"+b.Mode.String())
		case b.Shared:
			list = append(list, fmt.Sprintf("+%vx%d", b.Mode, b.Count))
		case b.Waiting:
			list = append(list, fmt.Sprintf("%d:→%v", b.Holder, b.Mode))
		default:
			list = append(list, fmt.Sprintf("%d:%v", b.Holder, b.Mode))
		}
	}
	return "[" + strings.Join(list, " ") + "]"
}

// state shows the queue: {granted} conversions | waiting.
func (s *script) state() string {
	var held, conv, wait []string
	for e := range s.q.All() {
		if e.Mode != None {
			held = append(held, fmt.Sprintf("%d:%v", e.Holder, e.Mode))
		}
	}
	for _, m := range []Mode{CR, CW} {
		if n := s.q.Shared(m); n > 0 {
			held = append(held, fmt.Sprintf("+%vx%d", m, n))
		}
	}
	for e := range s.q.Line() {
		text := fmt.Sprintf("%d:%v", e.Holder, e.Wanted)
		if e.Shared {
			text = fmt.Sprintf("%d:+%v", e.Holder, e.Wanted)
		}
		if e.Mode != None {
			text = fmt.Sprintf("%d:%v→%v", e.Holder, e.Mode, e.Wanted)
		}
		if e.Convert {
			conv = append(conv, text)
		} else {
			wait = append(wait, text)
		}
	}
	text := "{" + strings.Join(held, " ") + "}"
	for _, list := range [][]string{conv, append([]string{"|"}, wait...)} {
		if len(list) > 0 {
			text += " " + strings.Join(list, " ")
		}
	}
	return text
}

// restored passes a queue through what a snapshot would keep of it.
func restored(q *Queue[int]) (Queue[int], error) {
	var entries []Entry[int]
	for e := range q.All() {
		entries = append(entries, e)
	}
	return Restore(q.Ceiling(), q.shared, entries)
}
