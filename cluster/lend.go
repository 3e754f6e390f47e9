package cluster

// While another host leads, a link takes the proposer's entries: lend gives them to it, takeFor hands them over, reclaim
// ends that.

// lend makes a link the one who takes entries. It says no if this host leads itself.
func (p *proposer) lend(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open || p.closed {
		return false
	}
	p.link = l
	l.kick()
	return true
}

// reclaim takes that back: entries wait again. If something is under way over the link, which is about to fail, what waits
// behind it is returned, to fail with it: it makes sense in order only. Called with the link's mu held.
func (p *proposer) reclaim(l *link, underWay bool) (behind []proposal) {
	p.mu.Lock()
	if p.link == l {
		p.link = nil
		if underWay {
			behind, p.queue, p.bytes = p.queue, nil, 0
		}
	}
	p.mu.Unlock()
	p.kick()
	return behind
}

// takeFor hands the next entries to a link: at least one if there is any, and at most so many entries or bytes.
func (p *proposer) takeFor(l *link, entries, bytes int) []proposal {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != l || p.closed {
		return nil
	}
	n, size := 0, 0
	for n < len(p.queue) && n < entries {
		if p.queue[n].here { // from when this host led: the feeding goroutine is about to end it
			p.kick()
			break
		}
		if size += len(p.queue[n].entry); n > 0 && size > bytes {
			break
		}
		p.bytes -= len(p.queue[n].entry)
		n++
	}
	p.forwarded += uint64(n)
	batch := p.queue[:n:n]
	if p.queue = p.queue[n:]; len(p.queue) == 0 {
		p.queue = nil
	}
	return batch
}

// kickLink has the link, if there is one, look for something to send.
func (p *proposer) kickLink() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link != nil {
		p.link.kick()
	}
}
