package queue

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestRestoreRefuses: each entry list is one that no queue tells.
func TestRestoreRefuses(t *testing.T) {
	held := func(h int, m Mode) Entry[int] { return Entry[int]{Holder: h, Mode: m} }
	waits := func(h int, m Mode, place int) Entry[int] { return Entry[int]{Holder: h, Wanted: m, Place: place} }
	conv := Entry[int]{Holder: 9, Mode: PR, Wanted: EX, Place: 2, Convert: true, Exact: true}
	for name, entries := range map[string][]Entry[int]{
		"nothing":            {{Holder: 1}},
		"no such mode":       {held(1, 77)},
		"wants no such mode": {held(1, EX), waits(2, 77, 1)},
		"incompatible":       {held(1, EX), held(2, CR)},
		"incompatible twins": {held(1, PW), held(2, PW)},
		"two locks":          {held(1, CR), held(1, CR)},
		"waits twice":        {held(1, EX), waits(2, CR, 1), waits(2, CR, 2)},
		"a place twice":      {held(1, EX), waits(2, CR, 1), waits(3, CR, 1)},
		"a place left out":   {held(1, EX), waits(2, CR, 2)},
		"a negative place":   {held(1, EX), waits(2, CR, -1)},
		"a place, no wait":   {{Holder: 1, Mode: PR, Place: 1}},
		"converts to None":   {{Holder: 1, Mode: PR, Convert: true}},
		"grantable":          {held(1, CR), waits(2, CR, 1)},
		"conversion behind":  {held(1, PR), waits(2, EX, 1), conv},
		"exact, not convert": {held(1, PR), {Holder: 2, Mode: PR, Wanted: EX, Place: 1, Exact: true}},
		"intent PR":          {held(1, EX), {Holder: 2, Wanted: PR, Place: 1, Shared: true}},
		"no such flag":       {{Holder: 1, Mode: PR, Flags: 1 << 15}},
		"waits with noqueue": {held(1, EX), {Holder: 2, Wanted: PR, Place: 1, Flags: NoQueue}},
		"own twice":          {held(1, EX), {Holder: 2, Wanted: PR, Place: 1, Own: []int{7, 7}}},
		"own itself":         {held(1, EX), {Holder: 2, Wanted: PR, Place: 1, Own: []int{2}}},
	} {
		if _, err := Restore(EX, [2]uint32{}, entries); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Restore[int](99, [2]uint32{}, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("ceiling: %v", err)
	}
	if _, err := Restore(EX, [2]uint32{0, 1}, []Entry[int]{held(1, PR)}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("intent against a lock: %v", err)
	}
}

// TestRestoreAnything: whatever comes in, an error or a queue that is sound.
func TestRestoreAnything(t *testing.T) {
	entry := rapid.Custom(func(t *rapid.T) Entry[int] {
		mode := func(name string) Mode { return Mode(rapid.IntRange(0, 7).Draw(t, name)) }
		return Entry[int]{
			Holder: rapid.IntRange(1, 4).Draw(t, "holder"), Mode: mode("mode"), Wanted: mode("wanted"),
			Flags: Flags(rapid.Uint16Range(0, 1<<11).Draw(t, "flags")) &^ NoQueue, Place: rapid.IntRange(0, 3).Draw(t, "place"),
			Convert: rapid.Bool().Draw(t, "convert"), Exact: rapid.Bool().Draw(t, "exact"), Shared: rapid.Bool().Draw(t, "shared"),
			Own: rapid.SliceOfN(rapid.IntRange(1, 4), 0, 2).Draw(t, "own"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		entries := rapid.SliceOfN(entry, 0, 3).Draw(t, "entries")
		shared := [2]uint32{rapid.Uint32Range(0, 1).Draw(t, "cr"), rapid.Uint32Range(0, 1).Draw(t, "cw")}
		q, err := Restore(Mode(rapid.IntRange(0, 7).Draw(t, "ceiling")), shared, entries)
		if err != nil {
			return
		}
		again, err := restored(&q)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := slices.Collect(q.All()), slices.Collect(again.All()); len(a) != len(b) {
			t.Fatalf("%+v, then %+v", a, b)
		}
	})
}

// TestRequestCopiesOwn: the caller may use its list again once Request or SetOwn
// has returned.
func TestRequestCopiesOwn(t *testing.T) {
	q := New[int](EX)
	for h := 1; h <= 3; h++ {
		q.Request(Request[int]{Holder: h, Mode: PR})
	}
	own := []int{1, 2}
	q.Request(Request[int]{Holder: 4, Mode: EX, Own: own})
	own[0] = 3
	if e, _ := q.Head(); !slices.Equal(e.Own, []int{1, 2}) {
		t.Fatal(e.Own)
	}
	own[0] = 1
	q.SetOwn(4, own, [2]uint32{})
	own[0] = 3
	if grants := q.Release(3); len(grants) != 1 {
		t.Fatal(grants)
	}
}
