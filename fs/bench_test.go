package fs

import (
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// What a request costs in this package and below, without the kernel and the loop.

func BenchmarkOpenClose(b *testing.B) {
	r := newRig(b)
	node := r.make(r.lock, "a")
	for _, bench := range []struct {
		name  string
		flags uint32
	}{{"ReadWrite", syscall.O_RDWR}, {"ReadOnly", syscall.O_RDONLY}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				in, out := fuse.OpenIn{InHeader: header(node, 0), Flags: bench.flags}, fuse.OpenOut{}
				if st := r.lock.Open(nil, &in, &out); st != fuse.OK {
					b.Fatal(st)
				}
				flush := fuse.FlushIn{InHeader: header(node, 0), Fh: out.Fh, LockOwner: 1}
				r.lock.Flush(nil, &flush)
				release := fuse.ReleaseIn{InHeader: header(node, 0), Fh: out.Fh}
				r.lock.Release(nil, &release)
			}
		})
	}
}

func BenchmarkFlock(b *testing.B) {
	r := newRig(b)
	fh := r.open(r.lock, r.make(r.lock, "a"), syscall.O_RDONLY, 0, fuse.OK)
	b.ReportAllocs()
	for b.Loop() {
		in := fuse.LkIn{InHeader: header(0, 0), Fh: fh, Lk: fuse.FileLock{Typ: syscall.F_WRLCK}, LkFlags: fuse.LK_FLOCK}
		if st := r.lock.SetLkw(nil, &in); st != fuse.OK {
			b.Fatal(st)
		}
		in.Lk.Typ = syscall.F_UNLCK
		if st := r.lock.SetLkw(nil, &in); st != fuse.OK {
			b.Fatal(st)
		}
	}
}

func BenchmarkReadValue(b *testing.B) {
	r := newRig(b)
	fh := r.open(r.lock, r.make(r.lock, "a"), syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, fh, 0, "a value of some 64 bytes, which is what a value block often has.", 1, fuse.OK)
	r.flush(r.lock, fh, 1, fuse.OK)
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		in := fuse.ReadIn{InHeader: header(0, 0), Fh: fh, Size: uint32(len(buf))}
		if _, st := r.lock.Read(nil, &in, buf); st != fuse.OK {
			b.Fatal(st)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	r := newRig(b)
	r.make(r.lock, "a")
	b.ReportAllocs()
	for b.Loop() {
		var out fuse.EntryOut
		h := header(rootIno, 0)
		if st := r.lock.Lookup(nil, &h, "a", &out); st != fuse.OK {
			b.Fatal(st)
		}
	}
}

func BenchmarkLookupAlias(b *testing.B) {
	r := newRig(b)
	r.make(r.lock, "a")
	b.ReportAllocs()
	for b.Loop() {
		var out fuse.EntryOut
		h := header(rootIno, 0)
		if st := r.lock.Lookup(nil, &h, "a@ex", &out); st != fuse.OK {
			b.Fatal(st)
		}
		r.lock.Forget(out.NodeId, 1)
	}
}

func BenchmarkCommit(b *testing.B) {
	r := newRig(b)
	fh := r.open(r.lock, r.make(r.lock, "a"), syscall.O_RDWR, 0, fuse.OK)
	b.ReportAllocs()
	for b.Loop() {
		r.write(r.lock, fh, 0, "value", 1, fuse.OK)
		r.flush(r.lock, fh, 1, fuse.OK)
	}
}
