package conn

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// interruptPause is how long an INTERRUPT whose target is not known waits for its EAGAIN. The kernel sends it again at
// once, as often as it is answered so: without a pause, 190 times in 4 ms.
const interruptPause = 200 * time.Microsecond

// answerInterrupt closes the cancel channel of the request that an INTERRUPT names, and makes the reply. The target of
// most is parked: a handler that does not park is over before an INTERRUPT of its request can be read. Where it is not
// known, its handler has just returned and the reply is about to be written; the kernel is told to ask again, in a
// moment.
func (l *Loop) answerInterrupt(request, out []byte) []byte {
	unique := header(request).Unique
	if len(request) < interruptSize {
		return errorReply(out, fuse.EIO, unique)
	}
	if l.cancel(native.Uint64(request[inHeaderSize:])) {
		return errorReply(out, fuse.OK, unique)
	}
	l.retried.Add(1)
	l.goroutines.Add(1)
	time.AfterFunc(interruptPause, func() {
		defer l.goroutines.Done()
		var b [outHeaderSize]byte
		l.conn.reply(errorReply(b[:], fuse.EAGAIN, unique)) // ENOENT: the target has been answered meanwhile
	})
	return nil
}

// cancel closes the cancel channel of a parked request, and reports whether it is one. The second time does nothing.
func (l *Loop) cancel(unique uint64) bool {
	l.mu.Lock()
	f := l.parked[unique]
	if f == nil {
		l.mu.Unlock()
		return false
	}
	first, elsewhere := !f.interrupted, f.cancel == nil
	f.interrupted = true
	if first && !elsewhere {
		close(f.cancel)
	}
	l.mu.Unlock()
	return !first || !elsewhere || l.cancelElsewhere(unique)
}

// cancelElsewhere closes the cancel channel of a request that go-fuse handles. It keeps these channels to itself, so it
// is told by a request that the kernel did not send.
func (l *Loop) cancelElsewhere(unique uint64) bool {
	var request [interruptSize]byte
	var reply [outHeaderSize]byte
	*header(request[:]) = fuse.InHeader{Length: uint32(len(request)), Opcode: opInterrupt, Unique: unique | 1}
	native.PutUint64(request[inHeaderSize:], unique)
	n, _ := l.server.HandleRequest([][]byte{request[:]}, [][]byte{reply[:]})
	return n == 0
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
		l.cancel(unique)
	}
}
