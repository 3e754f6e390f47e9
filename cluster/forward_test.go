package cluster

import (
	"testing"

	"github.com/lockfs/lockfs/lockd/state"
)

// TestProposeAnywhere proposes on each of three nodes, and wants it on all.
func TestProposeAnywhere(t *testing.T) {
	c := newTestCluster(t, 3, testOptions{})
	for i, n := range c.nodes {
		must(t, propose(n.Node, openSession(n.name(), uint64(i+1))))
		var id uint64
		eventually(t, "its session", func() bool {
			for s := range n.view().Sessions() {
				if s.Nonce == uint64(i+1) {
					id = s.ID
				}
			}
			return id != 0
		})
		for k := range uint64(50) {
			must(t, propose(n.Node, makeFile(id, k+1, n.name()+string(rune('0'+k)))))
		}
	}
	c.agree()
	for _, n := range c.nodes {
		if v := n.view(); v.Lookup(state.Root, "a0") == nil || v.Lookup(state.Root, "b0") == nil || v.Lookup(state.Root, "c0") == nil {
			t.Errorf("%s lacks a file", n.name())
		}
	}
}
