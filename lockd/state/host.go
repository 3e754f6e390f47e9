package state

import (
	"cmp"
	"iter"
	"slices"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Host is an entry of the list of the cluster's hosts: what the leader last said of it. Who of them has a vote is raft's
// configuration and no part of the state; a host that is in neither was removed.
type Host struct {
	ID      string // as raft knows it; 1 to 255 bytes, as Name
	Name    string // unique in the cluster
	Address string // TCP, host:port; at most 255 bytes, as Gossip and Version
	Gossip  string // serf, host:port; empty: none
	Version string // of the program
	Durable bool   // its log is on disk: it may be a voter
}

// maxHosts bounds the list.
const maxHosts = 1 << 10

// Hosts returns the list of the cluster's hosts, by id.
func (v *View) Hosts() iter.Seq[Host] { return slices.Values(v.hosts) }

// Host returns the host of that id, if it is on the list.
func (v *View) Host(id string) (Host, bool) {
	i, ok := v.findHost(id)
	if !ok {
		return Host{}, false
	}
	return v.hosts[i], true
}

// HostNamed returns the host of that name, if it is on the list.
func (v *View) HostNamed(name string) (Host, bool) {
	i := slices.IndexFunc(v.hosts, func(h Host) bool { return h.Name == name })
	if i < 0 {
		return Host{}, false
	}
	return v.hosts[i], true
}

func (v *View) findHost(id string) (int, bool) {
	return slices.BinarySearchFunc(v.hosts, id, func(h Host, id string) int { return cmp.Compare(h.ID, id) })
}

// check returns Invalid for a host without id or name, NameTooLong for one whose words are too long.
func (h *Host) check() Code {
	switch {
	case h.ID == "" || h.Name == "":
		return Invalid
	case max(len(h.ID), len(h.Name), len(h.Address), len(h.Gossip), len(h.Version)) > maxNameLen:
		return NameTooLong
	}
	return OK
}

func loadedHost(h *statepb.SetHost) Host {
	return Host{ID: h.Id, Name: h.Name, Address: h.Address, Gossip: h.Gossip, Version: h.Version, Durable: h.Durable}
}

func (h *Host) saved() *statepb.SetHost {
	return &statepb.SetHost{
		Id: h.ID, Name: h.Name, Address: h.Address, Gossip: h.Gossip, Version: h.Version, Durable: h.Durable,
	}
}

// setHost puts a host on the list or changes its entry. The list is a new one each time: views have the old.
func (s *State) setHost(op *statepb.SetHost) Code {
	h := loadedHost(op)
	i, there := s.cur.findHost(h.ID)
	code := h.check()
	if other, taken := s.cur.HostNamed(h.Name); code == OK && taken && other.ID != h.ID {
		code = Exists
	}
	if code == OK && !there && len(s.cur.hosts) >= maxHosts {
		code = TooMany
	}
	if code == OK {
		if s.cur.hosts = slices.Clone(s.cur.hosts); !there {
			s.cur.hosts = slices.Insert(s.cur.hosts, i, h)
		}
		s.cur.hosts[i] = h
		s.dirty |= partRest
	}
	s.emit(Change{Kind: HostSet, Host: h.ID, Name: h.Name, Code: code})
	return code
}

// removeHost takes a host off the list, if it is on it.
func (s *State) removeHost(op *statepb.RemoveHost) {
	i, there := s.cur.findHost(op.Id)
	if !there {
		return
	}
	name := s.cur.hosts[i].Name
	s.cur.hosts = slices.Delete(slices.Clone(s.cur.hosts), i, i+1)
	s.dirty |= partRest
	s.emit(Change{Kind: HostRemoved, Host: op.Id, Name: name})
}
