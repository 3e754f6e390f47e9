package queue

import "testing"

func TestSmoke(t *testing.T) {
	q := New[int](EX)
	if o, m := q.Request(Request[int]{Holder: 1, Mode: EX}); o != Granted || m != EX {
		t.Fatal(o, m)
	}
	if o, _ := q.Request(Request[int]{Holder: 2, Mode: PR}); o != Waiting {
		t.Fatal(o)
	}
	if g := q.Release(1); len(g) != 1 || g[0].Holder != 2 {
		t.Fatal(g)
	}
}
