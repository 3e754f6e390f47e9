package fs

import (
	"strings"
	"testing"

	"github.com/lockfs/lockfs/lockd/queue"
)

func TestSequencer(t *testing.T) {
	for _, s := range []sequencer{
		{queue.EX, 1 << 60, "/db/orders"},
		{queue.NL, 0, "/"},
		{queue.PR, 7, "/a b/c\\d/\n:\xff"},
	} {
		text := s.String()
		if strings.ContainsAny(text, " \n") {
			t.Errorf("%q is not one word", text)
		}
		if got, ok := parseSequencer(text + "\n"); !ok || got != s {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, ok, s)
		}
	}
}

func TestSequencerMalformed(t *testing.T) {
	for _, text := range []string{
		"", "lockfs1", "lockfs1:EX:1", "lockfs1:EX:1:", "lockfs1:EX:1:db", "lockfs2:EX:1:/db", "lockfs1:XX:1:/db",
		"lockfs1:EX:-1:/db", "lockfs1:EX:99999999999999999999:/db", `lockfs1:EX:1:/d\0`, `lockfs1:EX:1:/d\999`, `lockfs1:EX:1:/d\`,
	} {
		if s, ok := parseSequencer(text); ok {
			t.Errorf("%q was taken for %+v", text, s)
		}
	}
}

func FuzzSequencer(f *testing.F) {
	f.Add("lockfs1:EX:12:/db/orders")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseSequencer(text)
		if !ok {
			return
		}
		if again, ok := parseSequencer(s.String()); !ok || again != s {
			t.Errorf("%q: %+v became %+v, %v", text, s, again, ok)
		}
	})
}

func TestSpecialsAreForgotten(t *testing.T) {
	var table specials
	a := table.add(special{kind: specialStatus})
	if again := table.add(special{kind: specialStatus}); again != a {
		t.Fatalf("the same node has ids %#x and %#x", a, again)
	}
	table.forget(a, 1)
	if _, ok := table.get(a); !ok {
		t.Fatal("forgotten while the kernel still knows it")
	}
	table.forget(a, 1)
	if _, ok := table.get(a); ok || len(table.ids) != 0 {
		t.Fatal("not forgotten")
	}
	if b := table.add(special{kind: specialStatus}); b == a {
		t.Fatalf("id %#x was given out again", a)
	}
	table.forget(1<<61|99, 5) // unknown: nothing happens
}

func TestSearches(t *testing.T) {
	dir := owned{perm: 0o710, uid: 10, gid: 20}
	none := func() []uint32 { return nil }
	for _, c := range []struct {
		who  opener
		want bool
	}{
		{opener{uid: 0}, true},
		{opener{uid: 10, groups: none}, true},
		{opener{uid: 11, gid: 20, groups: none}, true},
		{opener{uid: 11, gid: 21, groups: func() []uint32 { return []uint32{5, 20} }}, true},
		{opener{uid: 11, gid: 21, groups: none}, false},
	} {
		if got := c.who.searches(dir); got != c.want {
			t.Errorf("uid %d gid %d: %v", c.who.uid, c.who.gid, got)
		}
	}
}
