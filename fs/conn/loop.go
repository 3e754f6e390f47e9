package conn

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// OpenFailer is implemented by a RawFileSystem that wants to know of handles that nobody has: the reply to an OPEN,
// OPENDIR or CREATE could not be delivered, so no RELEASE will come for fh. It is called by the goroutine that
// handled the request, in most cases because the connection has ended.
type OpenFailer interface {
	OpenFailed(node, fh uint64)
}

// Loop serves the requests of one mount.
type Loop struct {
	conn     *Conn
	fs       fuse.RawFileSystem
	server   *fuse.ProtocolServer
	poller   Poller
	notifier *Notifier
	aside    *aside // from INIT on; nil: there is none
	logger   *slog.Logger

	// current is the unique of the request that the holder of the reading role is handling, 0 while it reads or
	// writes. Who changes it from a unique to 0 has the role: the reader when the handler has returned, Park before.
	current atomic.Uint64
	ticked  atomic.Uint64 // current at the last Alive

	frame   *frame  // of the current request; belongs to the role
	in, out *[]byte // buffers for any request and reply; belong to the role
	frames  sync.Pool
	buffers sync.Pool // *[]byte, as large as in and out

	goroutines sync.WaitGroup // readers, parked handlers, late replies
	role       chan struct{}  // hands the reading role to a spare reader
	spares     atomic.Int32   // how many wait for it
	over       chan struct{}  // closed when the reading has ended
	ready      chan struct{}  // closed when INIT has been answered
	done       chan struct{}  // closed when Serve is over
	settings   atomic.Pointer[Settings]
	serving    atomic.Bool
	closing    atomic.Bool   // the reader stops at the next request
	retried    atomic.Uint64 // INTERRUPTs answered EAGAIN
	err        error         // what ended the reading; belongs to the role

	waiting  atomic.Int64           // how many are parked
	requests [opcodes]atomic.Uint64 // by opcode; the last: all above

	mu     sync.Mutex
	parked map[uint64]*frame // by unique
	ending bool              // parked handlers are cancelled
}

// frame is what one request in flight needs. A request that parks keeps its frame, and of the role's large buffers
// only those that it uses; most use none, so that many may be parked.
type frame struct {
	unique, node uint64
	op           uint32
	in, out      [1][]byte
	cancel       chan struct{} // of a request that is answered directly
	interrupted  bool          // cancel is closed; under Loop.mu

	largeIn, largeOut bool     // in, out are the role's buffers
	keptIn, keptOut   *[]byte  // those buffers, once the request has parked
	attr              uint64   // the inode whose attributes to drop after the reply
	after             []func() // what else to do then

	_        [0]uint64 // aligns smallIn and smallOut
	smallIn  [768]byte
	smallOut [1024]byte
}

// Settings is what the kernel agreed to in INIT.
type Settings struct {
	Minor        uint32 // of the kernel's protocol version 7.x
	Capabilities uint64 // fuse.CAP_ bits that are on
}

// buffer is a large buffer from the pool.
func (l *Loop) buffer() *[]byte { return l.buffers.Get().(*[]byte) }

// NewLoop makes the loop of a mount. fs answers the requests; its Init is not called, OnUnmount is, at the end of
// Serve. poller may be nil: then poll(2) finds all files ready at all times.
func NewLoop(c *Conn, fs fuse.RawFileSystem, poller Poller) *Loop {
	l := &Loop{
		conn:   c,
		fs:     fs,
		server: fuse.NewProtocolServer(fs, protocolOptions(c.options)),
		poller: poller,
		logger: c.options.Logger,
		ready:  make(chan struct{}),
		done:   make(chan struct{}),
		parked: make(map[uint64]*frame),
		role:   make(chan struct{}),
		over:   make(chan struct{}),
	}
	size := max(c.options.MaxWrite, 64<<10) + 4096
	l.frames.New = func() any { return new(frame) }
	l.buffers.New = func() any { b := make([]byte, size); return &b }
	l.notifier = newNotifier(l.invalidate, l.NotifyPoll)
	return l
}

// Notifier is the queue of the mount's invalidations.
func (l *Loop) Notifier() *Notifier { return l.notifier }

// Ready is closed when INIT has been answered: from then on the mount may be used. It stays open if the connection
// ends before.
func (l *Loop) Ready() <-chan struct{} { return l.ready }

// Done is closed when Serve has returned.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Settings is what the kernel agreed to, nil before Ready.
func (l *Loop) Settings() *Settings { return l.settings.Load() }

// Alive reports whether the loop has answered since the call before: it waits for the kernel, or it has gone on to
// another request. False says that one handler has held the reading role all the time, so that nobody is served. A
// loop that has ended is alive. One caller only, at its own pace.
func (l *Loop) Alive() bool {
	current := l.current.Load()
	return l.ticked.Swap(current) != current || current == 0
}

// Serve reads and answers requests until the mount is gone or the loop is closed; then it cancels the handlers that
// wait, waits for them, stops the Notifier, closes the device and calls OnUnmount. The error is nil for these; any
// other is of the device. It may be called once.
func (l *Loop) Serve() error {
	if l.serving.Swap(true) {
		panic("conn: Serve called twice")
	}
	defer close(l.done)
	l.in, l.out = l.buffer(), l.buffer()
	l.goroutines.Add(1)
	l.reader()
	l.goroutines.Wait()
	l.notifier.end()
	if l.aside != nil {
		l.aside.close()
	}
	l.conn.closeDevice()
	l.fs.OnUnmount()
	return l.err
}

// maxSpares is how many goroutines that lost the reading role are kept for the next time that it is to be had: a new one
// would have to grow its stack first, which is a twelfth of what a request that waits costs.
const maxSpares = 8

// reader is the life of a goroutine that begins with the reading role. It is counted in l.goroutines.
func (l *Loop) reader() {
	defer l.goroutines.Done()
	for l.read() && l.spare() {
	}
}

// spare waits for the reading role, unless there are enough who do.
func (l *Loop) spare() bool {
	defer l.spares.Add(-1)
	if l.spares.Add(1) > maxSpares {
		return false
	}
	select {
	case <-l.role:
		return true
	case <-l.over:
		return false
	}
}

// handOver gives the reading role to another goroutine.
func (l *Loop) handOver() {
	select {
	case l.role <- struct{}{}:
	default:
		l.goroutines.Add(1)
		go l.reader()
	}
}

// read holds the reading role until the handler of a request has parked, or the reading ends: then it returns false.
func (l *Loop) read() (parked bool) {
	for {
		n, err := unix.Read(l.conn.fd, *l.in)
		switch err {
		case nil:
			if l.closing.Load() {
				close(l.over)
				return false
			}
			if n < inHeaderSize {
				l.logger.Error("short request read", "bytes", n)
				continue
			}
			if !l.serve((*l.in)[:n]) {
				return true
			}
		case unix.EINTR, unix.EAGAIN, unix.ENOENT: // ENOENT: withdrawn while it was being read
		case unix.ENODEV:
			close(l.over)
			l.cancelParked()
			return false
		default:
			close(l.over)
			l.err = fmt.Errorf("reading the requests of %s: %w", l.conn.mountPoint, err)
			l.cancelParked()
			return false
		}
	}
}

// serve answers one request and reports whether its goroutine still has the reading role.
func (l *Loop) serve(request []byte) bool {
	f := l.enter(request)
	reply := l.handle(f)
	inline := l.current.CompareAndSwap(f.unique, 0)
	if !inline {
		l.unpark(f)
	}
	op := f.op
	l.reply(f, reply)
	l.leave(f)
	if inline && wakes[op%opcodes] && l.waiting.Load() > 0 {
		runtime.Gosched()
	}
	return inline
}

// wakes are the requests that may let go of what a parked handler waits for. After such a one the reader lets other
// goroutines run before it goes to sleep in read(2): the handler that was woken then goes on at once, on this thread.
// Otherwise it would lie in the queue of a thread that is in a system call, until another one has been woken to steal
// it. Worth 60 µs of 105 from one process's unlock to the other's lock, for 0.2 to 0.4 µs where nobody was woken.
var wakes = [opcodes]bool{
	opWrite: true, opRelease: true, opFsync: true, opFlush: true, opSetlk: true, opSetlkw: true, opInterrupt: true,
	opIoctl: true,
}

// enter makes the frame of a request and makes it the current one.
func (l *Loop) enter(request []byte) *frame {
	h := header(request)
	f := l.frames.Get().(*frame)
	f.unique, f.node, f.op = h.Unique, h.NodeId, h.Opcode
	if len(request) <= len(f.smallIn) {
		f.in[0] = f.smallIn[:copy(f.smallIn[:], request)]
	} else {
		f.in[0], f.largeIn = request, true
	}
	if outHeaderSize+maxOutStruct+payloadSize(f.op, request) <= len(f.smallOut) {
		f.out[0] = f.smallOut[:]
	} else {
		f.out[0], f.largeOut = *l.out, true
	}
	l.frame = f
	l.requests[min(f.op, opcodes-1)].Add(1)
	l.current.Store(f.unique)
	return f
}

// leave gives a frame back, and the large buffers that it kept when it parked.
func (l *Loop) leave(f *frame) {
	if f.keptIn != nil {
		l.buffers.Put(f.keptIn)
	}
	if f.keptOut != nil {
		l.buffers.Put(f.keptOut)
	}
	f.in[0], f.out[0], f.keptIn, f.keptOut = nil, nil, nil, nil
	f.largeIn, f.largeOut, f.attr, f.after = false, false, 0, nil
	f.cancel, f.interrupted = nil, false
	l.frames.Put(f)
}

// handle has a request answered and returns the reply, nil for none.
func (l *Loop) handle(f *frame) []byte {
	request, out := f.in[0], f.out[0]
	switch {
	case f.op == opPoll && l.poller != nil:
		return l.answerPoll(request, out)
	case f.op == opInterrupt:
		return l.answerInterrupt(request, out)
	case f.op == opLookup && f.node == 1 && string(request[inHeaderSize:]) == pollHack:
		return errorReply(out, fuse.ENOENT, f.unique)
	}
	if d := directOf(f); d != nil {
		return d.answer(l.fs, f)
	}
	n, status := l.server.HandleRequest(f.in[:], f.out[:])
	switch {
	case n > 0:
		return out[:n]
	case status != fuse.OK:
		return errorReply(out, status, f.unique)
	}
	return nil
}

// pollHack is a name that go-fuse keeps for itself in the root.
const pollHack = ".go-fuse-epoll-hack\x00"

// reply writes the reply of a request, and does what was to be done after it.
func (l *Loop) reply(f *frame, reply []byte) {
	if reply == nil {
		return
	}
	switch f.op {
	case opOpen, opOpendir:
		// The kernel would never send another one.
		if int32(native.Uint32(reply[4:])) == -int32(unix.ENOSYS) {
			reply = errorReply(reply, fuse.EIO, f.unique)
		}
	case opInit:
		l.initialise(reply)
	}
	if err := l.conn.reply(reply); err != nil {
		l.undelivered(f, reply, err)
	} else if f.op == opInit {
		l.begin()
	}
	if f.attr != 0 {
		l.InvalInode(f.attr, -1, 0)
	}
	for _, do := range f.after {
		do()
	}
}

// undelivered handles a reply that the kernel did not take. ENOENT: nobody waits for it any more.
func (l *Loop) undelivered(f *frame, reply []byte, err error) {
	ok := native.Uint32(reply[4:]) == 0
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		l.logger.Error("reply refused by the kernel", "opcode", f.op, "node", f.node, "error", err)
		var eio [outHeaderSize]byte
		l.conn.reply(errorReply(eio[:], fuse.EIO, f.unique)) // so that the caller does not wait for ever
	}
	failer, wanted := l.fs.(OpenFailer)
	if !ok || !wanted {
		return
	}
	switch f.op {
	case opOpen, opOpendir:
		failer.OpenFailed(f.node, native.Uint64(reply[outHeaderSize:]))
	case opCreate, opTmpfile:
		const entry = int(unsafe.Sizeof(fuse.EntryOut{}))
		failer.OpenFailed(native.Uint64(reply[outHeaderSize:]), native.Uint64(reply[outHeaderSize+entry:]))
	}
}
