package fs

import "testing"

func TestHandles(t *testing.T) {
	var table handles
	a, b := table.add("a"), table.add("b")
	if a == 0 || b == 0 || a == b {
		t.Fatalf("ids %d, %d", a, b)
	}
	if table.get(a) != "a" || table.get(b) != "b" || len(table.all()) != 2 {
		t.Fatal("files are not found by their ids")
	}
	if table.remove(a) != "a" || table.remove(a) != nil || table.get(a) != nil {
		t.Fatal("an id lives on after its removal")
	}
	c := table.add("c")
	if c == a || table.get(a) != nil || table.get(c) != "c" {
		t.Fatalf("id %d was given out again", a)
	}
	for _, id := range []uint64{0, 1, 1 << 63, ^uint64(0)} {
		if table.get(id) != nil || table.remove(id) != nil {
			t.Errorf("id %d leads to a file", id)
		}
	}
	if len(table.all()) != 2 {
		t.Errorf("%d files left", len(table.all()))
	}
}
