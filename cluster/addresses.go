package cluster

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/cluster/gossip"
	"github.com/lockfs/lockfs/cluster/wire"
	"github.com/lockfs/lockfs/lockd/state"
)

// addresses are where the other hosts are, as far as is known: what gossip heard or the list in the state has, whichever changed
// last, else raft's configuration, which has the address at which the host was admitted. (A host that moved is on the list at
// once, and gossip may take the old address for alive for seconds; where all have moved there is gossip alone.) So hosts find each
// other again when their addresses changed, even all at once. Whoever answers at an address has to be the host that was meant
// (wire.At).
type addresses struct {
	self string // id
	own  string // what the others use
	raft atomic.Pointer[raft.Raft]
	book atomic.Pointer[map[string]string] // by host id: of gossip and the list

	mu    sync.Mutex
	known map[string]whereabouts // by host id: what book was made of
}

// whereabouts is what is said of one host's address.
type whereabouts struct {
	heard, listed string // by gossip, alive, and in the state; empty: nothing
	last          string // of the two that which changed last, gossip if both did
}

var _ raft.ServerAddressProvider = (*addresses)(nil)

// learn takes over what gossip and the list say.
func (a *addresses) learn(heard []gossip.Member, view *state.View) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := map[string]whereabouts{}
	for h := range view.Hosts() {
		w := a.known[h.ID]
		known[h.ID] = whereabouts{listed: h.Address, heard: w.heard, last: w.last}
	}
	for _, m := range heard {
		if m.State == gossip.Alive && m.Address != "" {
			w, listed := known[m.ID]
			if !listed {
				w.last = a.known[m.ID].last
			}
			w.heard = m.Address
			known[m.ID] = w
		}
	}
	delete(known, a.self)
	book := map[string]string{}
	for id, w := range known {
		if w.listed != "" && w.listed != a.known[id].listed {
			w.last = w.listed
		}
		if w.heard != "" && w.heard != a.known[id].heard {
			w.last = w.heard
		}
		known[id] = w
		book[id] = w.last
	}
	a.known = known
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
