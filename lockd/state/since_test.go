package state

import (
	"bytes"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// tree is what changes of the tree can be checked by: every entry, and the rest of every node that has a name.
type tree struct {
	names map[dirent]bool
	nodes map[uint64]string
}

func treeOf(v *View) tree {
	t := tree{map[dirent]bool{}, map[uint64]string{}}
	v.names.Scan(func(e dirent) bool { t.names[e] = true; return true })
	v.nodes.Scan(func(ino uint64, n *Node) bool {
		if n.Orphan == 0 {
			t.nodes[ino] = shown(n)
		}
		return true
	})
	return t
}

func shown(n *Node) string {
	return fmt.Sprint(n.Perm, n.UID, n.GID, n.Atime, n.Mtime, n.Ctime, n.Generation, n.Invalid, string(n.Value), n.Xattrs)
}

// apply does what the changes tell. What they only point at is read from the view, as hosts do.
func (t tree) apply(changes []Change, v *View) {
	var set []dirent
	for _, c := range changes {
		from := dirent{parent: c.Parent, name: c.Name, ino: c.Ino}
		switch c.Kind {
		case Removed:
			delete(t.names, from)
			delete(t.nodes, c.Ino)
		case Moved:
			delete(t.names, from)
			set = append(set, dirent{parent: c.NewParent, name: c.NewName, ino: c.Ino})
		case Made:
			set = append(set, from)
			t.nodes[c.Ino] = shown(v.Node(c.Ino))
		default:
			if v.Node(c.Ino).Orphan == 0 {
				t.nodes[c.Ino] = shown(v.Node(c.Ino))
			}
		}
	}
	for _, e := range set {
		t.names[e] = true
	}
}

// TestSince: the changes between two views make the tree of the one that of the other, also after a snapshot.
func TestSince(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		h := &history{t: t, s: s}
		old := s.View()
		for index := uint64(1); index <= 40; index++ {
			h.seqs = map[uint64]uint64{}
			var cmds []*statepb.Command
			if index <= 3 {
				cmds = append(cmds, operationOf(&statepb.OpenSession{Host: string(rune('a' + index)), Nonce: 9}))
			}
			for range 1 + h.n("commands", 3) {
				cmds = append(cmds, h.command())
			}
			if _, err := s.Apply(index, Encode(cmds)); err != nil {
				t.Fatal(err)
			}
			if !h.yes("look") {
				continue
			}
			var snap bytes.Buffer
			if _, err := s.View().WriteTo(&snap); err != nil {
				t.Fatal(err)
			}
			restored, err := Read(&snap)
			if err != nil {
				t.Fatal(err)
			}
			now := restored.View()
			changes := now.Since(old)
			got, want := treeOf(old), treeOf(now)
			if got.apply(changes, now); !maps.Equal(got.names, want.names) || !maps.Equal(got.nodes, want.nodes) {
				t.Fatalf("by %v\nnames %v\nwant  %v\nnodes %v\nwant  %v", changes, got.names, want.names, got.nodes, want.nodes)
			}
			if again := now.Since(s.View()); len(again) != 0 {
				t.Fatalf("nothing has changed, but %v", again)
			}
			old = s.View()
		}
	})
}
