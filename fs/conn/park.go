package conn

// Park is called by a handler that is about to wait, with its request's unique, before it waits and without a lock
// that another handler may want. The handler may block from then on and must mind its cancel channel, which is closed
// by an INTERRUPT and when the connection ends. A second Park of a request does nothing, so does one of a request
// that is not being handled. A handler of RELEASE that parks panics: what the kernel sent after the close would overtake
// it.
func (l *Loop) Park(unique uint64) {
	if unique == 0 || l.current.Load() != unique {
		return
	}
	f := l.frame
	if f.op == opRelease {
		panic("conn: a handler of RELEASE parks: requests sent after the close would overtake it")
	}
	if !l.current.CompareAndSwap(unique, 0) {
		return
	}
	if f.largeIn {
		f.keptIn, l.in = l.in, l.buffer()
	}
	if f.largeOut {
		f.keptOut, l.out = l.out, l.buffer()
	}
	l.waiting.Add(1)
	l.mu.Lock()
	l.parked[unique] = f
	cancel := l.ending
	l.mu.Unlock()
	l.handOver()
	if cancel {
		l.cancel(unique)
	}
}

// Parked is how many handlers wait.
func (l *Loop) Parked() int { return int(l.waiting.Load()) }

// AfterReply has something done when the reply to the request of a handler has been written (or could not be), by the
// handler's goroutine; on the reading role if it did not park, so do must not block. To be called by the handler.
func (l *Loop) AfterReply(unique uint64, do func()) {
	if f := l.inFlight(unique); f != nil {
		f.after = append(f.after, do)
	}
}

// DropAttrAfterReply drops the kernel's cached attributes of an inode when the reply to a handler's request has been
// written: after a WRITE the kernel moves its own idea of the size, which is not ours. It costs one write(2) that does
// not block. To be called by the handler, for one inode a request.
func (l *Loop) DropAttrAfterReply(unique, ino uint64) {
	if f := l.inFlight(unique); f != nil {
		f.attr = ino
	}
}

// inFlight is the frame of a request whose handler is the caller.
func (l *Loop) inFlight(unique uint64) *frame {
	if l.current.Load() == unique {
		return l.frame
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parked[unique]
}

func (l *Loop) unpark(f *frame) {
	l.waiting.Add(-1)
	l.mu.Lock()
	delete(l.parked, f.unique)
	l.mu.Unlock()
}
