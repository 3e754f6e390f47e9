package lockd_test

import (
	"testing"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

func TestFirst(t *testing.T) {
	h, _, stop, err := lockdtest.Start(lockd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	res, err := h.Do(nil, &statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{Parent: 1, Name: []byte("a"), Perm: 0o644, Lock: true}}})
	if err != nil {
		t.Fatal(err)
	}
	var l lockd.Lock
	if err := h.Lock(nil, &l, lockd.Request{Ino: res.Ino, Mode: queue.EX}); err != nil {
		t.Fatal(err)
	}
	t.Log(h.Locks(res.Ino), l.Token())
	gen, err := h.Commit(nil, &l, &statepb.Commit{Ino: res.Ino, Change: &statepb.Commit_Whole{Whole: []byte("v")}})
	t.Log(gen, err)
	h.Release(&l)
	t.Log(h.Status())
}
