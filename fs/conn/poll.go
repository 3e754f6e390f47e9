package conn

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// Poller answers FUSE_POLL. Poll returns the events that are true now, of all the events the file could show (the
// kernel masks them with those asked for), as poll(2)'s bits; it runs on the reading goroutine and must not block.
//
// kh names the open file towards NotifyPoll and is the same in every POLL of an fh. Once a POLL came with
// PollScheduleNotify in flags, every later change of the events must be notified, not only the first one: an
// edge-triggered epoll asks once and then relies on it. The state must be looked at after kh has been remembered,
// or a change between the two is lost. Waiters does the remembering.
type Poller interface {
	Poll(fh, kh uint64, flags, events uint32) (revents uint32)
}

// Waiters is what an open file remembers of those who poll it. Its zero value remembers none. It may be used by
// several goroutines.
type Waiters struct {
	kh atomic.Uint64
}

// Polled takes note of a POLL request. To be called before the state that answers it is looked at.
func (w *Waiters) Polled(kh uint64, flags uint32) {
	if flags&PollScheduleNotify != 0 && w.kh.Load() != kh {
		w.kh.Store(kh)
	}
}

// Handle is the kh to notify, and whether anybody has ever waited.
func (w *Waiters) Handle() (kh uint64, waited bool) {
	kh = w.kh.Load()
	return kh, kh != 0
}

// Wake tells those who poll, if there are any, that the state has changed. To be called after the change. It is one
// write(2) that never blocks; under a lock use Notifier.Poll with Handle instead.
func (w *Waiters) Wake(l *Loop) {
	if kh := w.kh.Load(); kh != 0 {
		l.NotifyPoll(kh)
	}
}

// answerPoll makes the reply to a POLL request.
func (l *Loop) answerPoll(request, reply []byte) []byte {
	unique := header(request).Unique
	if len(request) < inHeaderSize+24 {
		return errorReply(reply, fuse.EIO, unique)
	}
	body := request[inHeaderSize:]
	fh, kh := native.Uint64(body[0:]), native.Uint64(body[8:])
	flags, events := native.Uint32(body[16:]), native.Uint32(body[20:])
	revents := l.poller.Poll(fh, kh, flags, events)
	const size = outHeaderSize + 8
	putOutHeader(reply, size, 0, unique)
	native.PutUint32(reply[outHeaderSize:], revents)
	native.PutUint32(reply[outHeaderSize+4:], 0)
	return reply[:size]
}
