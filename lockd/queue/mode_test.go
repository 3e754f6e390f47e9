package queue

import (
	"errors"
	"testing"
)

// rights is what a mode means (OpenVMS Programming Concepts, "Lock Modes"):
// what its holder does with the resource and what it lets others do. The tables
// are derived from it here and written out in mode.go.
type rights struct{ do, allow uint8 }

const (
	read  = 1
	write = 2
)

var meaning = map[Mode]rights{
	NL: {0, read | write},
	CR: {read, read | write},
	CW: {read | write, read | write},
	PR: {read, read},
	PW: {read | write, read},
	EX: {read | write, 0},
}

func within(a, b uint8) bool { return a&^b == 0 }

func naiveCompatible(a, b Mode) bool {
	if a == None || b == None {
		return true
	}
	x, y := meaning[a], meaning[b]
	return within(x.do, y.allow) && within(y.do, x.allow)
}

func naiveCovers(a, b Mode) bool {
	if a == None || b == None {
		return b == None
	}
	return within(meaning[b].do, meaning[a].do) && within(meaning[a].allow, meaning[b].allow)
}

func naiveJoin(a, b Mode) Mode {
	best := EX
	for m := None; m <= EX; m++ {
		if naiveCovers(m, a) && naiveCovers(m, b) && naiveCovers(best, m) {
			best = m
		}
	}
	return best
}

func TestTablesFollowFromMeaning(t *testing.T) {
	for a := None; a <= EX; a++ {
		for b := None; b <= EX; b++ {
			if got, want := Compatible(a, b), naiveCompatible(a, b); got != want {
				t.Errorf("Compatible(%v, %v) = %v", a, b, got)
			}
			if got, want := a.Covers(b), naiveCovers(a, b); got != want {
				t.Errorf("%v.Covers(%v) = %v", a, b, got)
			}
			if got, want := Join(a, b), naiveJoin(a, b); got != want {
				t.Errorf("Join(%v, %v) = %v, want %v", a, b, got, want)
			}
			if got := conflicts[a]&b.bit() != 0; got == Compatible(a, b) {
				t.Errorf("conflicts[%v] has %v: %v", a, b, got)
			}
		}
	}
}

// TestJoinConflicts: what is compatible with two modes is compatible with their
// join, so that a queue may look at what a raise will be instead of at its parts.
func TestJoinConflicts(t *testing.T) {
	for a := None; a <= EX; a++ {
		for b := None; b <= EX; b++ {
			if got, want := conflicts[Join(a, b)], conflicts[a]|conflicts[b]; got != want {
				t.Errorf("conflicts of %v and %v: %b, of their join %b", a, b, want, got)
			}
		}
	}
}

func TestIntent(t *testing.T) {
	want := map[Mode]Mode{None: None, NL: None, CR: CR, CW: CW, PR: CR, PW: CW, EX: CW}
	for m := None; m <= EX; m++ {
		if m.Intent() != want[m] {
			t.Errorf("%v.Intent() = %v, want %v", m, m.Intent(), want[m])
		}
		if m.Intent() > CW || !m.Covers(m.Intent()) {
			t.Errorf("%v has an intent that is no intent", m)
		}
	}
	for _, m := range []Mode{CR, CW, PR, PW, EX} {
		if !m.Reads() {
			t.Errorf("%v does not read", m)
		}
		if got := m.Writes(); got != (m == PW || m == EX) {
			t.Errorf("%v.Writes() = %v", m, got)
		}
	}
	if None.Reads() || NL.Reads() {
		t.Error("NL reads")
	}
}

func TestParseMode(t *testing.T) {
	for m := NL; m <= EX; m++ {
		for _, name := range []string{m.String(), string([]byte{m.String()[0] | 0x20, m.String()[1] | 0x20})} {
			if got, ok := ParseMode(name); !ok || got != m {
				t.Errorf("ParseMode(%q) = %v, %v", name, got, ok)
			}
		}
	}
	for _, name := range []string{"", "e", "exx", "No", "None", "Ex", "eX", "xx", "EX ", "\x65\xf8"} {
		if m, ok := ParseMode(name); ok {
			t.Errorf("ParseMode(%q) = %v", name, m)
		}
	}
	if s := Mode(99).String(); s != "Mode(?)" {
		t.Error(s)
	}
}

// quecvt is the matrix of fs/dlm/lock.c (__quecvt_compat_matrix), without UN and
// PD: rows granted, columns asked for, NL to EX.
var quecvt = [6][6]int{
	{0, 1, 1, 1, 1, 1},
	{0, 0, 1, 1, 1, 1},
	{0, 0, 0, 1, 1, 1},
	{0, 0, 1, 0, 1, 1},
	{0, 0, 0, 0, 0, 1},
	{0, 0, 0, 0, 0, 0},
}

func TestFlagsCheck(t *testing.T) {
	for from := NL; from <= EX; from++ {
		for to := NL; to <= EX; to++ {
			err := QueCvt.Check(from, to)
			if got, want := err == nil, quecvt[from-NL][to-NL] == 1; got != want {
				t.Errorf("QueCvt.Check(%v, %v) = %v", from, to, err)
			}
		}
	}
	for _, c := range []struct {
		flags    Flags
		from, to Mode
		want     error
	}{
		{0, None, EX, nil},
		{0, PR, NL, nil},
		{0, None, None, ErrMode},
		{0, None, EX + 1, ErrMode},
		{0, EX + 1, EX, ErrMode},
		{QueCvt, None, EX, ErrQueCvt},
		{Expedite, None, NL, nil},
		{Expedite, None, CR, ErrExpedite},
		{Expedite, CR, NL, ErrExpedite},
		{Expedite | NoQueue, None, NL, ErrExpedite},
		{NoQueue | HeadQue | AltPR | AltCW | NoBAST | NoDlckWt | NoDlckBlk, None, EX, nil},
		{Try, None, EX, nil},
		{Try << 1, None, EX, ErrFlag},
	} {
		if err := c.flags.Check(c.from, c.to); !errors.Is(err, c.want) || err != nil && c.want == nil {
			t.Errorf("(%v).Check(%v, %v) = %v, want %v", c.flags, c.from, c.to, err, c.want)
		}
	}
}

func TestFlagNames(t *testing.T) {
	for f := NoQueue; f <= Try; f <<= 1 {
		if got, ok := ParseFlag(f.String()); !ok || got != f {
			t.Errorf("ParseFlag(%q) = %v, %v", f, got, ok)
		}
	}
	if _, ok := ParseFlag("nowait"); ok {
		t.Error("nowait is a flag")
	}
	if s := (NoQueue | Try | 1<<15).String(); s != "noqueue|try|0x8000" {
		t.Error(s)
	}
}
