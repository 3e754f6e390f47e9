package fs

import (
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/state"
)

// lease is what is open when the lease ends.
type lease struct {
	*rig
	node, free    uint64 // a file that is locked, and one that this host has cached
	named, plain  uint64 // descriptors of view lock on it: one with EX, one without a lock on the other file
	flocked, read uint64 // of view posix, on further files: with a flock(2), and with a byte range
}

const rangeOwnerID = 77

// setRange is fcntl(2) F_SETLK.
func (r *rig) setRange(fh uint64, typ uint32, start, end, owner uint64, want fuse.Status) {
	r.tb.Helper()
	in := fuse.LkIn{InHeader: header(0, 0), Fh: fh, Owner: owner, Lk: fuse.FileLock{Typ: typ, Start: start, End: end, Pid: 1}}
	r.want("fcntl", r.posix.SetLk(nil, &in), want)
}

func newLease(t *testing.T) *lease {
	r := newRig(t)
	l := &lease{rig: r, node: r.make(r.lock, "a"), free: r.make(r.lock, "b")}
	l.named = r.open(r.lock, l.node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, l.named, 0, "uncommitted", writer, fuse.OK)
	l.plain = r.open(r.lock, l.free, syscall.O_RDONLY, 0, fuse.OK)
	l.flocked = r.open(r.posix, r.make(r.lock, "c"), syscall.O_RDWR, 0, fuse.OK)
	r.flock(r.posix, l.flocked, syscall.F_WRLCK, fuse.OK)
	l.read = r.open(r.posix, r.make(r.lock, "d"), syscall.O_RDWR, 0, fuse.OK)
	r.setRange(l.read, syscall.F_WRLCK, 0, 9, rangeOwnerID, fuse.OK)
	return l
}

// ioctl asks with an empty payload of the command's size but for what prepare puts there.
func (l *lease) ioctl(fh uint64, cmd uint32, prepare func(payload []byte)) fuse.Status {
	payload, reply := make([]byte, ioc.Size(cmd)), make([]byte, ioc.Size(cmd))
	prepare(payload)
	return l.lock.Ioctl(nil, &fuse.IoctlIn{InHeader: header(l.node, 0), Fh: fh, Cmd: cmd}, payload, new(fuse.IoctlOut), reply)
}

func readOf(f *FS, fh uint64) fuse.Status {
	_, st := f.Read(nil, &fuse.ReadIn{InHeader: header(0, 0), Fh: fh, Size: 10}, make([]byte, 10))
	return st
}

func writeOf(f *FS, fh uint64) fuse.Status {
	_, st := f.Write(nil, &fuse.WriteIn{InHeader: header(0, 0), Fh: fh, Size: 1}, []byte("x"))
	return st
}

func pollOf(f *FS, fh uint64) fuse.Status { return fuse.Status(f.Poll(fh, 1, 0, 0)) }

// afterLease is every way to what a host knows or has, and what it answers once the lease is over.
var afterLease = []struct {
	name string
	do   func(l *lease) fuse.Status
	want fuse.Status
}{
	{"read under a lock", func(l *lease) fuse.Status { return readOf(l.lock, l.named) }, fuse.EIO},
	{"read without a lock", func(l *lease) fuse.Status { return readOf(l.lock, l.plain) }, fuse.EIO},
	{"read under flock", func(l *lease) fuse.Status { return readOf(l.posix, l.flocked) }, fuse.EIO},
	{"read under a range", func(l *lease) fuse.Status { return readOf(l.posix, l.read) }, fuse.EIO},
	{"write under a lock", func(l *lease) fuse.Status { return writeOf(l.lock, l.named) }, fuse.EIO},
	{"write under flock", func(l *lease) fuse.Status { return writeOf(l.posix, l.flocked) }, fuse.EIO},
	{"write under a range", func(l *lease) fuse.Status { return writeOf(l.posix, l.read) }, fuse.EIO},
	{"fsync", func(l *lease) fuse.Status { return l.lock.Fsync(nil, &fuse.FsyncIn{Fh: l.named}) }, fuse.EIO},
	{"fsync of nothing", func(l *lease) fuse.Status { return l.posix.Fsync(nil, &fuse.FsyncIn{Fh: l.flocked}) }, fuse.EIO},
	{"fsync of a plain file", func(l *lease) fuse.Status { return l.lock.Fsync(nil, &fuse.FsyncIn{Fh: l.plain}) }, fuse.OK},
	{"flush", func(l *lease) fuse.Status {
		return l.lock.Flush(nil, &fuse.FlushIn{InHeader: header(0, 0), Fh: l.named, LockOwner: writer})
	}, fuse.EIO},
	{"ftruncate", func(l *lease) fuse.Status {
		in := fuse.SetAttrIn{}
		in.NodeId, in.Fh, in.Valid = l.node, l.named, fuse.FATTR_SIZE|fuse.FATTR_FH
		return l.lock.SetAttr(nil, &in, new(fuse.AttrOut))
	}, fuse.EIO},
	{"ftruncate under flock", func(l *lease) fuse.Status {
		in := fuse.SetAttrIn{}
		in.NodeId, in.Fh, in.Valid = l.lookup(l.posix, rootIno, "c"), l.flocked, fuse.FATTR_SIZE|fuse.FATTR_FH
		return l.posix.SetAttr(nil, &in, new(fuse.AttrOut))
	}, fuse.EIO},
	{"poll of a lock", func(l *lease) fuse.Status { return pollOf(l.lock, l.named) }, pollLost},
	{"poll of a flock", func(l *lease) fuse.Status { return pollOf(l.posix, l.flocked) }, pollLost},
	{"poll of a range", func(l *lease) fuse.Status { return pollOf(l.posix, l.read) }, pollLost},
	{"poll of a plain file", func(l *lease) fuse.Status { return pollOf(l.lock, l.plain) }, pollReadable | pollWritable},
	{"try", func(l *lease) fuse.Status {
		in := fuse.OpenIn{InHeader: header(l.free, 0), Flags: syscall.O_RDWR | syscall.O_NONBLOCK}
		return l.lock.Open(nil, &in, new(fuse.OpenOut))
	}, fuse.EAGAIN},
	{"flock try", func(l *lease) fuse.Status { return l.flockOf(l.lock, l.plain, syscall.F_RDLCK) }, fuse.EAGAIN},
	{"flock again", func(l *lease) fuse.Status { return l.flockOf(l.posix, l.flocked, syscall.F_WRLCK) }, fuse.Status(syscall.ENOLCK)},
	{"flock converts", func(l *lease) fuse.Status { return l.flockOf(l.lock, l.named, syscall.F_RDLCK) }, fuse.Status(syscall.ENOLCK)},
	{"unlock of a flock", func(l *lease) fuse.Status { return l.flockOf(l.posix, l.flocked, syscall.F_UNLCK) }, fuse.OK},
	{"range", func(l *lease) fuse.Status {
		in := fuse.LkIn{InHeader: header(0, 0), Fh: l.read, Owner: rangeOwnerID, Lk: fuse.FileLock{Typ: syscall.F_WRLCK, Start: 20, End: 30}}
		return l.posix.SetLk(nil, &in)
	}, fuse.Status(syscall.ENOLCK)},
	{"test of a range", func(l *lease) fuse.Status {
		in := fuse.LkIn{InHeader: header(0, 0), Fh: l.read, Owner: 1, Lk: fuse.FileLock{Typ: syscall.F_WRLCK}}
		return l.posix.GetLk(nil, &in, new(fuse.LkOut))
	}, fuse.Status(syscall.ENOLCK)},
	{"token", func(l *lease) fuse.Status {
		return l.ioctl(l.named, ioc.CmdToken, func(p []byte) { ioc.Token{}.Encode(p) })
	}, fuse.EIO},
	{"sequencer", func(l *lease) fuse.Status {
		return l.ioctl(l.named, ioc.CmdSequencer, func(p []byte) { ioc.Check{}.Encode(p) })
	}, fuse.EIO},
	{"check of a sequencer", func(l *lease) fuse.Status {
		return l.ioctl(l.plain, ioc.CmdCheck, func(p []byte) { ioc.Check{Text: "lockfs1:EX:1:/a"}.Encode(p) })
	}, fuse.EIO},
	{"value", func(l *lease) fuse.Status {
		return l.ioctl(l.named, ioc.CmdValueGet, func(p []byte) { ioc.Value{}.Encode(p) })
	}, fuse.EIO},
	{"value without a lock", func(l *lease) fuse.Status {
		return l.ioctl(l.plain, ioc.CmdValueGet, func(p []byte) { ioc.Value{}.Encode(p) })
	}, fuse.EIO},
	{"set of a value", func(l *lease) fuse.Status {
		return l.ioctl(l.named, ioc.CmdValueSet, func(p []byte) { ioc.Value{Size: 1, Data: []byte("x")}.Encode(p) })
	}, fuse.EIO},
	{"conversion", func(l *lease) fuse.Status {
		return l.ioctl(l.named, ioc.CmdConvert, func(p []byte) { ioc.Request{Mode: 1}.Encode(p) })
	}, fuse.EIO},
	{"xattr token", func(l *lease) fuse.Status { return l.xattr("user.lockfs.token") }, fuse.EIO},
	{"xattr mode", func(l *lease) fuse.Status { return l.xattr("user.lockfs.mode") }, fuse.EIO},
	{"name@token", func(l *lease) fuse.Status {
		in := fuse.OpenIn{InHeader: header(l.lookup(l.lock, rootIno, "a@token"), 0)}
		return l.lock.Open(nil, &in, new(fuse.OpenOut))
	}, fuse.EIO},
}

func (r *rig) flockOf(f *FS, fh uint64, typ uint32) fuse.Status {
	in := fuse.LkIn{InHeader: header(0, 0), Fh: fh, Lk: fuse.FileLock{Typ: typ}, LkFlags: fuse.LK_FLOCK}
	return f.SetLk(nil, &in)
}

func (l *lease) xattr(name string) fuse.Status {
	h := header(l.node, 0)
	_, st := l.lock.GetXAttr(nil, &h, name, make([]byte, 100))
	return st
}

// TestStopped: the daemon was stopped for longer than its lease and goes on. Whatever is asked first gives the same
// answer as if the end had been noticed in time, and the second time too.
func TestStopped(t *testing.T) {
	for _, test := range afterLease {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := newLease(t)
			l.member.SetCut(true)
			l.ahead.Store(int64(time.Hour))
			for range 2 {
				if st := test.do(l); st != test.want {
					t.Fatalf("%v, want %v", st, test.want)
				}
				if test.name == "flush" {
					return // it discards what failed
				}
			}
		})
	}
}

// TestNothingKeptAfterLease: what the kernel is told after the end of the lease it may not keep.
func TestNothingKeptAfterLease(t *testing.T) {
	l := newLease(t)
	var entry fuse.EntryOut
	var attr fuse.AttrOut
	h := header(rootIno, 0)
	look := func(name string) (entryTime, attrTime time.Duration) {
		l.want("lookup", l.lock.Lookup(nil, &h, name, &entry), fuse.OK)
		l.want("getattr", l.lock.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(l.node, 0)}, &attr), fuse.OK)
		return entry.EntryTimeout(), attr.Timeout()
	}
	for _, name := range []string{"a", "absent"} {
		if e, a := look(name); e <= 0 || a <= 0 || max(e, a) > 10*time.Second {
			t.Errorf("%s is kept for %v, attributes for %v, of a lease of less than 10 s", name, e, a)
		}
	}
	l.member.SetCut(true)
	l.ahead.Store(int64(9 * time.Second))
	for _, name := range []string{"a", "absent"} {
		if e, a := look(name); max(e, a) > time.Second {
			t.Errorf("%s is kept for %v, attributes for %v, near the end", name, e, a)
		}
	}
	l.ahead.Store(int64(time.Hour))
	for _, name := range []string{"a", "absent"} {
		if e, a := look(name); e != 0 || a != 0 {
			t.Errorf("%s is kept for %v, attributes for %v, after the end", name, e, a)
		}
	}
}

// TestRangesLost: whoever had byte ranges in a session that is lost writes nothing under them in the next, until it has
// let go of all.
func TestRangesLost(t *testing.T) {
	l := newLease(t)
	node := l.lookup(l.posix, rootIno, "d")
	second := l.open(l.posix, node, syscall.O_RDWR, 0, fuse.OK) // of the same process
	heir := l.open(l.posix, node, syscall.O_RDWR, 0, fuse.OK)
	l.write(l.posix, l.read, 0, "under", rangeOwnerID, fuse.OK)
	old := l.host.Session()
	l.log.EndSession(old)
	for l.host.Session() == old || l.host.Fresh() != nil {
		time.Sleep(time.Millisecond)
	}
	l.write(l.posix, l.read, 0, "x", rangeOwnerID, fuse.EIO)
	l.write(l.posix, l.read, 0, "x", 5, fuse.EIO) // whoever writes through that descriptor
	l.write(l.posix, second, 0, "x", rangeOwnerID, fuse.EIO)
	l.setRange(l.read, syscall.F_WRLCK, 0, 9, rangeOwnerID, fuse.Status(syscall.ENOLCK))
	l.setRange(l.read, syscall.F_UNLCK, 0, 9, rangeOwnerID, fuse.OK)
	l.write(l.posix, l.read, 0, "x", rangeOwnerID, fuse.EIO) // it may have had others
	l.committed(node, "under")
	l.write(l.posix, heir, 0, "U", 5, fuse.OK) // somebody else
	l.setRange(l.read, syscall.F_UNLCK, 0, state.MaxRange, rangeOwnerID, fuse.OK)
	l.setRange(l.read, syscall.F_WRLCK, 0, 9, rangeOwnerID, fuse.OK)
	l.write(l.posix, l.read, 1, "N", rangeOwnerID, fuse.OK)
	l.committed(node, "UNder")
}
