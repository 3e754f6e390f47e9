package cluster

import "time"

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
				token(n.led)
				n.end()
				continue
			}
			if err := n.pace(false); err != nil {
				n.log.Warn("raft does not take its timeouts", "err", err)
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
	n.hints.lead(!n.config.noHints)
	n.duty.lead(true, n.machine.view.Load)
	n.proposer.gate(true)
	n.ledBy(n.Name())
	n.tenureState.set(&tenure{term: n.raft.CurrentTerm(), over: make(chan struct{})})
	n.isCaughtUp()
	token(n.doubted) // that is, announced to itself
	token(n.lookAround)
}

// end is the end of a tenure, or of one that was to begin.
func (n *Node) end() {
	if t, _ := n.tenureState.get(); t != nil {
		n.ledBy("")
	}
	n.proposer.gate(false)
	n.tenureState.set(nil)
	n.hints.lead(false)
	n.duty.lead(false, nil)
}
