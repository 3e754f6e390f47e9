package fs

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
)

// rig is a host over a log in memory, with a file system for each view. There is no kernel: tests call the methods as
// the loop would.
type rig struct {
	tb     testing.TB
	ahead  atomic.Int64 // of the host's clock
	log    *lockdtest.Log
	host   *lockd.Host
	member *lockdtest.Member
	shared *Shared
	lock,
	posix,
	dlmfs *FS
}

// newRig starts a host. Everything ends with the test.
func newRig(tb testing.TB) *rig {
	tb.Helper()
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	log := lockdtest.New()
	tb.Cleanup(log.Close)
	r := &rig{tb: tb, log: log, member: log.Member()}
	start := time.Now()
	r.host = lockd.New(lockd.Config{
		Name: "test", Log: r.member, Logger: logger, OpTimeout: time.Second,
		Now: func() int64 { return int64(time.Hour) + int64(time.Since(start)) + r.ahead.Load() },
	})
	r.member.Attach(r.host)
	r.shared = NewShared(r.host)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.host.Start(ctx); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		r.member.SetCut(false)
		r.member.SetDeaf(false)
		r.host.Close()
	})
	view := func(v View) *FS {
		f := New(Options{Host: r.host, View: v, Shared: r.shared, Logger: logger})
		tb.Cleanup(f.OnUnmount)
		return f
	}
	r.lock, r.posix, r.dlmfs = view(ViewLock), view(ViewPosix), view(ViewDlmfs)
	return r
}

// header is a request's, by a caller.
func header(node uint64, uid uint32) fuse.InHeader {
	return fuse.InHeader{NodeId: node, Caller: fuse.Caller{Owner: fuse.Owner{Uid: uid, Gid: uid}, Pid: uint32(syscall.Getpid())}}
}

// want fails the test if a request was not answered so.
func (r *rig) want(what string, got, want fuse.Status) {
	r.tb.Helper()
	if got != want {
		r.tb.Fatalf("%s: %v, want %v", what, got, want)
	}
}

// make makes a file in the root and returns its node id.
func (r *rig) make(f *FS, name string) uint64 {
	r.tb.Helper()
	var out fuse.EntryOut
	in := fuse.MknodIn{InHeader: header(rootIno, 0), Mode: syscall.S_IFREG | 0o644}
	r.want("mknod "+name, f.Mknod(nil, &in, name, &out), fuse.OK)
	return out.NodeId
}

// lookup returns the node id of a name.
func (r *rig) lookup(f *FS, parent uint64, name string) uint64 {
	r.tb.Helper()
	var out fuse.EntryOut
	h := header(parent, 0)
	r.want("lookup "+name, f.Lookup(nil, &h, name, &out), fuse.OK)
	return out.NodeId
}

// open opens as a user and wants that answer.
func (r *rig) open(f *FS, node uint64, flags uint32, uid uint32, want fuse.Status) uint64 {
	r.tb.Helper()
	in, out := fuse.OpenIn{InHeader: header(node, uid), Flags: flags}, fuse.OpenOut{}
	r.want("open", f.Open(nil, &in, &out), want)
	return out.Fh
}

func (r *rig) write(f *FS, fh uint64, off uint64, data string, owner uint64, want fuse.Status) {
	r.tb.Helper()
	in := fuse.WriteIn{InHeader: header(0, 0), Fh: fh, Offset: off, Size: uint32(len(data)), WriteFlags: fuse.WRITE_LOCKOWNER, LockOwner: owner}
	_, st := f.Write(nil, &in, []byte(data))
	r.want("write", st, want)
}

func (r *rig) read(f *FS, fh uint64, want string) {
	r.tb.Helper()
	buf := make([]byte, 1<<20)
	in := fuse.ReadIn{InHeader: header(0, 0), Fh: fh, Size: uint32(len(buf))}
	res, st := f.Read(nil, &in, buf)
	r.want("read", st, fuse.OK)
	if got, _ := res.Bytes(nil); string(got) != want {
		r.tb.Fatalf("read %q, want %q", got, want)
	}
}

func (r *rig) flush(f *FS, fh, owner uint64, want fuse.Status) {
	r.tb.Helper()
	in := fuse.FlushIn{InHeader: header(0, 0), Fh: fh, LockOwner: owner}
	r.want("flush", f.Flush(nil, &in), want)
}

func (r *rig) release(f *FS, fh uint64) {
	in := fuse.ReleaseIn{InHeader: header(0, 0), Fh: fh}
	f.Release(nil, &in)
}

func (r *rig) flock(f *FS, fh uint64, typ uint32, want fuse.Status) {
	r.tb.Helper()
	in := fuse.LkIn{InHeader: header(0, 0), Fh: fh, Lk: fuse.FileLock{Typ: typ}, LkFlags: fuse.LK_FLOCK}
	r.want("flock", f.SetLk(nil, &in), want)
}

// committed is the value as the log has it.
func (r *rig) committed(node uint64, want string) {
	r.tb.Helper()
	if n := r.host.View().Node(resource(node)); n == nil || string(n.Value) != want {
		r.tb.Fatalf("committed value %+v, want %q", n, want)
	}
}
