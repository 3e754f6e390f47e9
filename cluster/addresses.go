package cluster

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/cluster/gossip"
	"github.com/lockfs/lockfs/cluster/wire"
	"github.com/lockfs/lockfs/lockd/state"
)

// addresses are where the other hosts are, as far as is known: what gossip heard last comes first, then the list in the state, then
// raft's configuration. So hosts find each other again when their addresses changed, even all at once. Whoever answers at an
// address has to be the host that was meant (wire.At).
type addresses struct {
	self string // id
	own  string // what the others use
	raft atomic.Pointer[raft.Raft]
	book atomic.Pointer[map[string]string] // by host id: of gossip and the list
}

var _ raft.ServerAddressProvider = (*addresses)(nil)

// learn takes over what gossip and the list say.
func (a *addresses) learn(heard []gossip.Member, view *state.View) {
	book := map[string]string{}
	for h := range view.Hosts() {
		book[h.ID] = h.Address
	}
	for _, m := range heard {
		if m.State == gossip.Alive && m.Address != "" {
			book[m.ID] = m.Address
		}
	}
	delete(book, a.self)
	a.book.Store(&book)
}

// of returns a host's address; empty: it is not known.
func (a *addresses) of(id string) string {
	if at := (*a.book.Load())[id]; at != "" {
		return at
	}
	for _, s := range a.configured() {
		if string(s.ID) == id && checkAddress(string(s.Address)) == nil { // else it is nowhere
			return string(s.Address)
		}
	}
	return ""
}

// others returns every address that is known of other hosts.
func (a *addresses) others() []string {
	all := slices.Collect(maps.Values(*a.book.Load()))
	for _, s := range a.configured() {
		if string(s.ID) != a.self && checkAddress(string(s.Address)) == nil {
			all = append(all, string(s.Address))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *addresses) configured() []raft.Server {
	r := a.raft.Load()
	if r == nil {
		return nil
	}
	f := r.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	return f.Configuration().Servers
}

// ServerAddr is asked by raft's transport for each message. This host's own address is what others are told: nothing is dialed
// with it.
func (a *addresses) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if string(id) == a.self {
		return raft.ServerAddress(a.own), nil
	}
	if at := a.of(string(id)); at != "" {
		return wire.At(string(id), at), nil
	}
	return "", fmt.Errorf("the address of host %s is not known", id)
}
