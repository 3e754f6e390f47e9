package conn

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Park is called by a handler that is about to wait, with its request's unique, before it waits and without a lock
// that another handler may want. The handler may block from then on and must mind its cancel channel, which is closed
// by an INTERRUPT and when the connection ends. A second Park of a request does nothing, so does one of a request
// that is not being handled. Handlers of RELEASE, RELEASEDIR and FORGET must not park: what the kernel sent after them
// would overtake them.
func (l *Loop) Park(unique uint64) {
	if unique == 0 || l.current.Load() != unique {
		return
	}
	f := l.frame
	if !l.current.CompareAndSwap(unique, 0) {
		return
	}
	if f.largeIn {
		f.keptIn, l.in = l.in, l.buffer()
	}
	if f.largeOut {
		f.keptOut, l.out = l.out, l.buffer()
	}
	l.mu.Lock()
	l.parked[unique] = f
	cancel := l.ending
	l.mu.Unlock()
	l.goroutines.Add(1)
	go l.read()
	if cancel {
		l.interrupt(unique)
	}
}

// Parked is how many handlers wait.
func (l *Loop) Parked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.parked)
}

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
	l.mu.Lock()
	delete(l.parked, f.unique)
	l.mu.Unlock()
}

// interrupt closes the cancel channel of a request in flight. go-fuse keeps these channels to itself, so it is told
// by a request that the kernel did not send.
func (l *Loop) interrupt(unique uint64) {
	var request [48]byte
	var reply [outHeaderSize]byte
	l.server.HandleRequest([][]byte{interruptOf(&request, unique)}, [][]byte{reply[:]})
}

// cancelParked closes the cancel channels of all parked handlers, and of those that park from now on.
func (l *Loop) cancelParked() {
	l.mu.Lock()
	l.ending = true
	uniques := make([]uint64, 0, len(l.parked))
	for unique := range l.parked {
		uniques = append(uniques, unique)
	}
	l.mu.Unlock()
	for _, unique := range uniques {
		l.interrupt(unique)
	}
}

// interruptPause is how long an INTERRUPT whose target is not known waits for its EAGAIN. The kernel sends it again at
// once, as often as it is answered so: without a pause, 190 times in 4 ms.
const interruptPause = 200 * time.Microsecond

// retryInterrupt answers EAGAIN, in a moment, to an INTERRUPT whose target has no cancel channel, or no longer: most
// often its handler has just returned and the reply is about to be written.
func (l *Loop) retryInterrupt(unique uint64) {
	l.retried.Add(1)
	l.goroutines.Add(1)
	time.AfterFunc(interruptPause, func() {
		defer l.goroutines.Done()
		var b [outHeaderSize]byte
		l.conn.write(errorReply(b[:], fuse.EAGAIN, unique)) // ENOENT: the target has been answered meanwhile
	})
}
