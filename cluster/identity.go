package cluster

import (
	"sync"
	"sync/atomic"
)

// known is who this host is, on disk and for all that ask. It changes when the host becomes a member of a cluster, and when it
// is none any more.
type known struct {
	now atomic.Pointer[Identity]
	mu  sync.Mutex // held by who changes it
}

// change changes it, on disk first.
func (k *known) change(s *store, change func(*Identity)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	id := *k.now.Load()
	was := id
	if change(&id); id == was {
		return nil
	}
	if err := s.putJSON(bucketIdentity, keyIdentity, id); err != nil {
		return err
	}
	k.now.Store(&id)
	return nil
}

// stage is how far a host has come with its cluster.
type stage uint8

const (
	waiting  stage = iota // to be admitted, or for RequestInit
	founding              // the cluster has an id, its first entry may not be there yet
	member
	gone // no member any more
)

func (id *Identity) stage() stage {
	switch {
	case id.Left:
		return gone
	case id.Cluster == "":
		return waiting
	case !id.Founded && !id.Joined:
		return founding
	}
	return member
}

// Identity says whose data directory it is.
func (n *Node) Identity() Identity { return *n.identity.now.Load() }

// Name returns the host's name, for its sessions.
func (n *Node) Name() string { return n.Identity().Name }

// id is the host's id.
func (n *Node) id() string { return n.Identity().Host }

// become changes who this host is.
func (n *Node) become(change func(*Identity)) error { return n.identity.change(n.store, change) }
