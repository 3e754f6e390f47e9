package cluster

import (
	"testing"

	"github.com/lockfs/lockfs/cluster/gossip"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestNewestAddress: of what gossip and the list say of a host's address that counts which changed last.
func TestNewestAddress(t *testing.T) {
	listed := func(address string) *state.View {
		s := state.New()
		if address != "" {
			_, err := s.Apply(1, state.Encode([]*statepb.Command{{Op: &statepb.Command_SetHost{
				SetHost: &statepb.SetHost{Id: "b", Name: "b", Address: address},
			}}}))
			must(t, err)
		}
		return s.View()
	}
	heard := func(address string) []gossip.Member {
		if address == "" {
			return nil
		}
		m := gossip.Member{State: gossip.Alive}
		m.ID, m.Address = "b", address
		return []gossip.Member{m}
	}
	a := &addresses{self: "a"}
	for i, step := range []struct{ heard, listed, want string }{
		{"", "", ""},
		{"", "h:1", "h:1"},
		{"h:1", "h:1", "h:1"},
		{"h:1", "h:2", "h:2"}, // it moved, and gossip does not know yet
		{"h:1", "h:2", "h:2"},
		{"", "h:2", "h:2"},
		{"h:2", "h:2", "h:2"},
		{"h:3", "h:2", "h:3"}, // it moved, and there is no leader to list it
		{"h:3", "h:2", "h:3"},
		{"h:3", "", "h:3"}, // removed, or not listed yet
		{"h:3", "", "h:3"},
		{"h:3", "h:3", "h:3"},
		{"h:5", "h:4", "h:5"},
	} {
		a.learn(heard(step.heard), listed(step.listed))
		if got := (*a.book.Load())["b"]; got != step.want {
			t.Errorf("step %d, %+v: %q", i, step, got)
		}
	}
}
