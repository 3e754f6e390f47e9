package state

import (
	"testing"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

func TestSmoke(t *testing.T) {
	s := New()
	idx := uint64(0)
	do := func(c ...*statepb.Command) []Change {
		idx++
		ch, err := s.Apply(idx, Encode(c))
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range ch {
			t.Logf("%d %v %+v", idx, x.Kind, x)
		}
		return ch
	}
	do(&statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: "a", Nonce: 1, Uid: 5}}})
	do(&statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: "b", Nonce: 1, Uid: 5}}})
	do(&statepb.Command{Session: 1, Seq: 1, TimeUnixNs: 7, Op: &statepb.Command_Make{Make: &statepb.Make{Parent: 1, Name: []byte("x"), Perm: 0o644, Lock: true}}})
	v := s.View()
	n := v.Lookup(1, "x")
	do(&statepb.Command{Session: 1, Seq: 2, TimeUnixNs: 8, Op: &statepb.Command_Commit{Commit: &statepb.Commit{Ino: n.Ino, Change: &statepb.Commit_Whole{Whole: []byte("v1")}}}})
	do(&statepb.Command{Session: 2, Seq: 1, TimeUnixNs: 8, Op: &statepb.Command_Acquire{Acquire: &statepb.Acquire{Steps: []*statepb.Step{
		{Ino: 1, Want: uint32(queue.CW)}, {Ino: n.Ino, Want: uint32(queue.EX)}}}}})
	do(&statepb.Command{Session: 1, Seq: 3, TimeUnixNs: 8, Op: &statepb.Command_Release{Release: &statepb.Release{Ino: n.Ino}}})
	if s.View().HostLock(n.Ino, 2) != queue.EX || v.HostLock(n.Ino, 1) != queue.EX || string(s.View().Node(n.Ino).Value) != "v1" {
		t.Fatal("wrong")
	}
}
