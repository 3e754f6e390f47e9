package conn

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// testFS is a directory of files named PREFIX-ANYTHING whose prefix says how they behave:
//
//	file  64 bytes; flock(2) works, exclusive only
//	gate  an OPEN for writing parks until the gate is opened (open) or it is interrupted
//	poll  ready to be polled when armed (arm)
//
// A name that is new is made by MKNOD, which parks until mknodGate is closed if that is set.
type testFS struct {
	fuse.RawFileSystem
	loop  *Loop
	valid time.Duration // of attributes and entries

	mu         sync.Mutex
	names      map[string]uint64
	files      map[uint64]*testFile
	handles    map[uint64]*testHandle
	lastFh     uint64
	mknodGate  chan struct{}
	read       atomic.Int64 // replies to reads of file-drop
	late       bool         // an open at a gate cannot be interrupted
	quiet      bool         // no log, for benchmarks
	stallFlush int          // every so many, it takes 5 ms

	failed    []uint64 // fh of OpenFailed
	unmounted bool
	log       []string      // of opcodes worth a test's look
	changed   chan struct{} // closed and renewed with every entry of log
	counts    map[string]int
}

type testFile struct {
	ino     uint64
	name    string
	mtime   uint64
	data    []byte
	gate    chan struct{} // opens wait for it to be closed
	owner   uint64        // of the flock
	waiting []chan struct{}
}

type testHandle struct {
	fh      uint64
	file    *testFile
	waiters Waiters
	ready   bool
}

const testData = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n"

func newTestFS() *testFS {
	return &testFS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		names:         make(map[string]uint64),
		files:         make(map[uint64]*testFile),
		handles:       make(map[uint64]*testHandle),
		changed:       make(chan struct{}),
		counts:        make(map[string]int),
	}
}

// note writes into the log. Under mu.
func (t *testFS) note(format string, args ...any) {
	if t.quiet {
		return
	}
	t.log = append(t.log, fmt.Sprintf(format, args...))
	close(t.changed)
	t.changed = make(chan struct{})
}

// await waits until the log has a line that begins with prefix.
func (t *testFS) await(prefix string, timeout time.Duration) bool {
	deadline := time.After(timeout)
	for {
		t.mu.Lock()
		for _, line := range t.log {
			if strings.HasPrefix(line, prefix) {
				t.mu.Unlock()
				return true
			}
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			return false
		}
	}
}

func (t *testFS) count(what string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.counts[what]
}

// file is the file of a name, made if need be. Under mu.
func (t *testFS) file(name string) *testFile {
	if ino := t.names[name]; ino != 0 {
		return t.files[ino]
	}
	f := &testFile{ino: uint64(len(t.files) + 2), name: name, data: []byte(testData), gate: make(chan struct{}), mtime: 1}
	t.names[name], t.files[f.ino] = f.ino, f
	return f
}

func (t *testFS) attr(ino uint64, out *fuse.Attr) fuse.Status {
	out.Ino, out.Nlink, out.Mtime = ino, 1, 1
	if ino == 1 {
		out.Mode = unix.S_IFDIR | 0o777
		return fuse.OK
	}
	f := t.files[ino]
	if f == nil {
		return fuse.ENOENT
	}
	out.Mode, out.Size, out.Mtime = unix.S_IFREG|0o666, uint64(len(f.data)), f.mtime
	return fuse.OK
}

func (t *testFS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts["lookup"]++
	kind, _, _ := strings.Cut(name, "-")
	if kind != "file" && kind != "gate" && kind != "poll" && t.names[name] == 0 {
		return fuse.ENOENT
	}
	return t.entry(t.file(name), out)
}

func (t *testFS) entry(f *testFile, out *fuse.EntryOut) fuse.Status {
	out.NodeId, out.Generation = f.ino, 1
	out.SetAttrTimeout(t.valid)
	out.SetEntryTimeout(t.valid)
	return t.attr(f.ino, &out.Attr)
}

func (t *testFS) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	t.mu.Lock()
	gate := t.mknodGate
	t.note("mknod %s", name)
	t.mu.Unlock()
	if gate != nil {
		t.loop.Park(in.Unique)
		select {
		case <-gate:
		case <-cancel:
			return fuse.EINTR
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entry(t.file(name), out)
}

func (t *testFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts["getattr"]++
	out.SetTimeout(t.valid)
	return t.attr(in.NodeId, &out.Attr)
}

func (t *testFS) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	t.mu.Lock()
	f := t.files[in.NodeId]
	t.counts["open"]++
	if strings.HasPrefix(f.name, "gate") && in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.note("open %s", f.name)
		t.mu.Unlock()
		t.loop.Park(in.Unique)
		select {
		case <-f.gate:
			t.mu.Lock()
		case <-cancel:
			t.mu.Lock()
			if t.late {
				t.mu.Unlock()
				<-f.gate
				t.mu.Lock()
				break
			}
			defer t.mu.Unlock()
			t.note("interrupted %s", f.name)
			return fuse.EINTR
		}
	}
	defer t.mu.Unlock()
	t.lastFh++
	t.handles[t.lastFh] = &testHandle{fh: t.lastFh, file: f}
	out.Fh = t.lastFh
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	if strings.HasPrefix(f.name, "file-cached") {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

func (t *testFS) Create(<-chan struct{}, *fuse.CreateIn, string, *fuse.CreateOut) fuse.Status {
	return fuse.ENOSYS
}

func (t *testFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts["read"]++
	if strings.HasPrefix(t.files[in.NodeId].name, "file-drop") {
		t.loop.DropAttrAfterReply(in.Unique, in.NodeId)
		t.loop.AfterReply(in.Unique, func() { t.read.Add(1) })
	}
	data := t.files[in.NodeId].data
	from := min(in.Offset, uint64(len(data)))
	return fuse.ReadResultData(buf[:copy(buf, data[from:])]), fuse.OK
}

func (t *testFS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[in.NodeId]
	f.data = append(f.data[:min(in.Offset, uint64(len(f.data)))], data...)
	f.mtime++
	t.counts["write"]++
	return uint32(len(data)), fuse.OK
}

func (t *testFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts["flush"]++; t.stallFlush != 0 && t.counts["flush"]%t.stallFlush == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	return fuse.OK
}

func (t *testFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.handles[in.Fh]
	delete(t.handles, in.Fh)
	if in.ReleaseFlags&2 != 0 && h.file.owner == in.LockOwner {
		h.file.unlock()
	}
	t.counts["release"]++
	t.note("release %s", h.file.name)
}

func (f *testFile) unlock() {
	f.owner = 0
	for _, w := range f.waiting {
		close(w)
	}
	f.waiting = nil
}

func (t *testFS) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[in.NodeId]
	switch {
	case in.Lk.Typ == unix.F_UNLCK:
		if f.owner == in.Owner {
			f.unlock()
		}
	case f.owner != 0 && f.owner != in.Owner:
		t.counts["busy"]++
		return fuse.EAGAIN
	default:
		f.owner = in.Owner
	}
	return fuse.OK
}

func (t *testFS) SetLkw(cancel <-chan struct{}, in *fuse.LkIn) fuse.Status {
	for {
		status := t.SetLk(cancel, in)
		if status != fuse.EAGAIN {
			return status
		}
		t.mu.Lock()
		f := t.files[in.NodeId]
		if f.owner == 0 {
			t.mu.Unlock()
			continue
		}
		free := make(chan struct{})
		f.waiting = append(f.waiting, free)
		t.note("waits %s", f.name)
		t.mu.Unlock()
		if t.loop != nil { // else go-fuse's Server runs it
			t.loop.Park(in.Unique)
		}
		select {
		case <-free:
		case <-cancel:
			return fuse.EINTR
		}
	}
}

func (t *testFS) Poll(fh, kh uint64, flags, events uint32) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.handles[fh]
	h.waiters.Polled(kh, flags)
	t.note("poll %s flags=%d", h.file.name, flags)
	if h.ready {
		return unix.POLLIN | 0x40 /* POLLRDNORM */
	}
	return 0
}

// arm makes every handle of a file ready, or not, and tells those who poll.
func (t *testFS) arm(name string, ready bool) {
	t.mu.Lock()
	var wake []*testHandle
	for _, h := range t.handles {
		if h.file.name == name {
			h.ready = ready
			wake = append(wake, h)
		}
	}
	t.mu.Unlock()
	for _, h := range wake {
		h.waiters.Wake(t.loop)
	}
}

// open lets the opens of a gate through, these and all later ones.
func (t *testFS) open(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.file(name).gate)
}

func (t *testFS) OpenFailed(node, fh uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = append(t.failed, fh)
	delete(t.handles, fh)
	t.note("failed %s", t.files[node].name)
}

func (t *testFS) OnUnmount() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unmounted = true
}
