package ioc

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// codec is one struct: how it decodes and encodes again.
type codec struct {
	name   string
	size   int
	decode func([]byte) (encoder, error)
}

type encoder interface{ Encode([]byte) }

func of[T encoder](f func([]byte) (T, error)) func([]byte) (encoder, error) {
	return func(b []byte) (encoder, error) { return f(b) }
}

var codecs = []codec{
	{"request", RequestSize, of(DecodeRequest)},
	{"token", TokenSize, of(DecodeToken)},
	{"value", ValueSize, of(DecodeValue)},
	{"notice", TextSize, of(DecodeNotice)},
	{"info", TextSize, of(DecodeInfo)},
	{"check", TextSize, of(DecodeCheck)},
}

func TestRoundTrip(t *testing.T) {
	for i, want := range []encoder{
		Request{Mode: 6, Flags: NoQueue | Async, Wait: time.Second, TTL: time.Hour, Token: 7, Generation: 8, Valid: true},
		Token{Token: 1 << 60, Mode: 5},
		Value{Offset: 3, Generation: 4, Size: 8, Valid: true, Data: []byte("hallo")},
		Notice{Kind: Blocking, Mode: 6, Wanted: 4, PID: 99, Token: 5, Time: -1, Lost: 2, Left: 3, Line: "blocking mode=EX"},
		Info{Ino: 1, Generation: 2, Token: 3, Since: 4, Mode: 6, Wanted: 4, View: ViewDlmfs, State: Converting, Flags: Async, Valid: true, Notices: 9, Path: "/a/b"},
		Check{Verdict: Stands, Token: 6, Text: "lockfs1:…"},
	} {
		b := bytes.Repeat([]byte{0xff}, codecs[i].size)
		want.Encode(b)
		got, err := codecs[i].decode(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", codecs[i].name, got, err, want)
		}
	}
}

func TestMalformed(t *testing.T) {
	edit := func(e encoder, size int, at int, b byte) []byte {
		p := make([]byte, size)
		e.Encode(p)
		p[at] = b
		return p
	}
	for _, c := range []struct {
		name  string
		codec int
		in    []byte
	}{
		{"short", 0, make([]byte, RequestSize-1)},
		{"long", 0, make([]byte, RequestSize+1)},
		{"mode 7", 0, edit(Request{}, RequestSize, 0, 7)},
		{"unknown flag", 0, edit(Request{}, RequestSize, 5, 0x80)},
		{"negative wait", 0, edit(Request{Wait: -1}, RequestSize, 0, 1)},
		{"padding", 0, edit(Request{}, RequestSize, 44, 1)},
		{"piece past size", 2, edit(Value{Size: 4, Data: []byte("four")}, ValueSize, 16, 3)},
		{"piece too long", 2, edit(Value{}, ValueSize, 21, 0xff)},
		{"line too long", 3, edit(Notice{}, TextSize, 41, 0xff)},
		{"path too long", 4, edit(Info{}, TextSize, 45, 0xff)},
		{"verdict", 5, edit(Check{}, TextSize, 0, 9)},
	} {
		if got, err := codecs[c.codec].decode(c.in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %+v, %v; want ErrMalformed", c.name, got, err)
		}
	}
}

func TestNumbers(t *testing.T) {
	seen := map[uint32]bool{}
	for nr, cmd := range []uint32{CmdRequest, CmdConvert, CmdToken, CmdSequencer, CmdNotice, CmdValueGet, CmdValueSet, CmdInfo, CmdCheck} {
		if seen[cmd] || cmd&0xff != uint32(nr+1) || cmd>>8&0xff != 'L' || Size(cmd) == 0 {
			t.Errorf("command %d is %#x, size %d", nr+1, cmd, Size(cmd))
		}
		seen[cmd] = true
	}
	if Size(CmdCheck+1) != 0 {
		t.Error("an unknown command has a size")
	}
}

func TestFlags(t *testing.T) {
	if got := (NoQueue | AltPR | Async).String(); got != "noqueue,altpr,async" {
		t.Errorf("got %q", got)
	}
	for i, name := range flagNames {
		if f, ok := ParseFlag(name); !ok || f != 1<<i {
			t.Errorf("%s: %v, %v", name, f, ok)
		}
	}
	if _, ok := ParseFlag("NoQueue"); ok || Flags(allFlags).String() != strings.Join(flagNames[:], ",") {
		t.Error("names and bits differ")
	}
}

// FuzzDecode: no payload of the right or a wrong size panics, and what is accepted survives encoding.
func FuzzDecode(f *testing.F) {
	f.Add(uint8(0), []byte{6, 0, 0, 0, 1}, 0)
	f.Add(uint8(2), []byte{1, 2, 3}, 0)
	f.Add(uint8(3), bytes.Repeat([]byte{1}, noticeHead), 0)
	f.Add(uint8(5), []byte{2, 0, 0, 0, 4}, -1)
	f.Fuzz(func(t *testing.T, which uint8, in []byte, grow int) {
		c := codecs[int(which)%len(codecs)]
		b := make([]byte, max(0, c.size+grow%2))
		copy(b, in)
		got, err := c.decode(b)
		if len(b) != c.size && err == nil {
			t.Fatalf("%s of %d bytes is accepted", c.name, len(b))
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("%s: %v", c.name, err)
			}
			return
		}
		again := make([]byte, c.size)
		got.Encode(again)
		back, err := c.decode(again)
		if err != nil || !reflect.DeepEqual(got, back) {
			t.Fatalf("%s: %+v came back as %+v, %v", c.name, got, back, err)
		}
	})
}
