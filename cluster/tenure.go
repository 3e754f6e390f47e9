package cluster

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// tenures follows raft's word on whether this host leads. A tenure begins at a barrier: by then all entries of former
// leaders are applied here. Only then do the sessions' times start and entries go to raft.
func (n *Node) tenures() {
	care := time.NewTicker(housekeeping)
	defer care.Stop()
	var barrier chan error // of the tenure that is beginning
	for {
		select {
		case leads := <-n.leads:
			barrier = nil
			if !leads {
				n.proposer.gate(false)
				n.duty.lead(false, n.machine.view.Load())
				continue
			}
			b := make(chan error, 1)
			barrier = b
			n.barriers.Go(func() { b <- n.raft.Barrier(0).Error() })
		case err := <-barrier:
			barrier = nil
			if err == nil {
				n.begin()
			}
		case <-care.C:
			n.refill()
		case <-n.stop:
			return
		}
	}
}

// begin is the start of a tenure, at the leader's barrier.
func (n *Node) begin() {
	view := n.machine.view.Load()
	n.readdress()
	if !n.settled {
		n.settled = true
		n.settle(view)
	}
	n.duty.lead(true, view)
	n.proposer.gate(true)
	select {
	case <-n.ready:
	default:
		close(n.ready)
	}
}

// readdress tells the cluster this host's address if it has changed.
func (n *Node) readdress() {
	f := n.raft.GetConfiguration()
	if f.Error() != nil {
		return
	}
	self, now := raft.ServerID(n.identity.Host), n.trans.LocalAddr()
	for _, s := range f.Configuration().Servers {
		if s.ID == self && s.Address != now {
			n.log.Info("this host has a new address", "was", s.Address, "address", now)
			n.raft.AddVoter(self, now, 0, 0)
		}
	}
}

// settle deals with the sessions of this host's former runs (restartRule). Those that it does not end run out.
func (n *Node) settle(view *state.View) {
	var old []state.Session
	for s := range view.Sessions() {
		if s.Host == n.identity.Name || s.Host == n.oldName {
			old = append(old, s)
		}
	}
	atOnce, why, stay := restartRule(n.record, n.config.bootID, n.config.openIn)
	n.mu.Lock()
	n.record = Record{BootID: n.config.bootID, Mounts: stay}
	n.mu.Unlock()
	if len(old) == 0 {
		return
	}
	if !atOnce {
		n.log.Info("the session of this host's former run goes on until it expires", "why", why, "ttl", n.config.SessionTTL)
		return
	}
	n.log.Info("the session of this host's former run ends now", "why", why)
	var cmds []*statepb.Command
	for _, s := range old {
		cmds = append(cmds, endSession(s.ID, s.Renewed, statepb.EndReason_RESTART))
	}
	n.proposer.propose(state.Encode(cmds), nil)
}

// Remember records the mounts of this run, which replace those given before. It returns when they are on disk. A mount must
// be recorded before a process can open anything in it; the next start decides by it, see restartRule. Mounts of former
// runs that were still in use are kept with them.
func (n *Node) Remember(mounts []Mount) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := Record{BootID: n.config.bootID, Mounts: append(append([]Mount(nil), n.record.Mounts...), mounts...)}
	return n.store.putJSON(bucketDaemon, keyMounts, r)
}
