package fs

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
)

const (
	writer = 7 // lock owners, as the kernel numbers them
	heir   = 8
)

func TestCommitAtTheWritersFlush(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	fh := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, fh, 0, "one", writer, fuse.OK)
	r.flush(r.lock, fh, heir, fuse.OK)
	r.committed(node, "")
	r.read(r.lock, fh, "one")
	plain := r.open(r.lock, node, syscall.O_RDONLY, 0, fuse.OK)
	r.read(r.lock, plain, "")
	r.flush(r.lock, fh, writer, fuse.OK)
	r.committed(node, "one")
	r.write(r.lock, fh, 3, "two", heir, fuse.OK)
	r.flush(r.lock, fh, writer, fuse.OK)
	r.committed(node, "one")
	r.release(r.lock, fh)
	r.read(r.lock, plain, "onetwo") // waits for the last close's commit
}

func TestReadersOfOneValueSeeOneValue(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	put := func(value string) {
		fh := r.open(r.lock, node, syscall.O_WRONLY|syscall.O_TRUNC, 0, fuse.OK)
		r.write(r.lock, fh, 0, value, writer, fuse.OK)
		r.flush(r.lock, fh, writer, fuse.OK)
		r.release(r.lock, fh)
	}
	old, next := strings.Repeat("o", 200_000), strings.Repeat("n", 200_000)
	put(old)
	fh := r.open(r.lock, node, syscall.O_RDONLY, 0, fuse.OK)
	var got []byte
	for off := 0; ; {
		buf := make([]byte, 65536)
		in := fuse.ReadIn{InHeader: header(0, 0), Fh: fh, Offset: uint64(off), Size: uint32(len(buf))}
		res, st := r.lock.Read(nil, &in, buf)
		r.want("read", st, fuse.OK)
		p, _ := res.Bytes(nil)
		if len(p) == 0 {
			break
		}
		got = append(got, p...)
		off += len(p)
		put(next)
	}
	if string(got) != old {
		t.Errorf("%d bytes, of which %d are the old value's", len(got), strings.Count(string(got), "o"))
	}
	r.read(r.lock, fh, next)
}

func TestSpoiledBatch(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	fh := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	efbig := fuse.Status(syscall.EFBIG)
	r.write(r.lock, fh, 0, "good", writer, fuse.OK)
	r.write(r.lock, fh, 256<<10, "x", writer, efbig)
	r.write(r.lock, fh, 0, "good", writer, efbig)
	fsync := fuse.FsyncIn{InHeader: header(0, 0), Fh: fh}
	r.want("fsync", r.lock.Fsync(nil, &fsync), efbig)
	r.flush(r.lock, fh, heir, fuse.OK)
	r.flush(r.lock, fh, writer, efbig)
	r.flush(r.lock, fh, writer, fuse.OK)
	r.committed(node, "")
	r.write(r.lock, fh, 0, "again", writer, fuse.OK)
	r.flush(r.lock, fh, writer, fuse.OK)
	r.committed(node, "again")
}

func TestFailedCommit(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	fh := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, fh, 0, "lost", writer, fuse.OK)
	r.member.SetFate(func([]byte) lockdtest.Fate { return lockdtest.Drop })
	r.flush(r.lock, fh, writer, fuse.EIO)
	r.member.SetFate(nil)
	r.committed(node, "")
	r.flush(r.lock, fh, writer, fuse.OK)
	r.committed(node, "")
}

func TestStaleCommit(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	fh := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, fh, 0, "mine", writer, fuse.OK)
	through := r.open(r.posix, node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.posix, through, 0, "moved", writer, fuse.OK)
	r.flush(r.lock, fh, writer, fuse.Status(syscall.ESTALE))
	r.committed(node, "moved")
}

func TestConversionCommits(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	fh := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, fh, 0, "one", writer, fuse.OK)
	r.flock(r.lock, fh, syscall.F_RDLCK, fuse.OK) // EX to PR
	r.committed(node, "one")
	r.write(r.lock, fh, 0, "two", writer, fuse.EACCES)
	r.flock(r.lock, fh, syscall.F_UNLCK, fuse.OK) // to NL
	in := fuse.ReadIn{InHeader: header(0, 0), Fh: fh, Size: 10}
	_, st := r.lock.Read(nil, &in, make([]byte, 10))
	r.want("read under NL", st, fuse.EACCES)
	r.flock(r.lock, fh, syscall.F_WRLCK, fuse.OK)
	r.write(r.lock, fh, 0, "two", writer, fuse.OK)
	r.flush(r.lock, fh, writer, fuse.OK)
	r.committed(node, "two")
}

func TestTruncationRules(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	fh := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, fh, 0, "value", writer, fuse.OK)
	r.flush(r.lock, fh, writer, fuse.OK)
	r.release(r.lock, fh)

	fh = r.open(r.lock, node, syscall.O_WRONLY|syscall.O_TRUNC, 0, fuse.OK)
	r.flush(r.lock, fh, writer, fuse.OK) // the shell closes a duplicate
	r.committed(node, "value")
	size := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(node, 0), Valid: fuse.FATTR_SIZE}}
	r.want("truncate by path", r.lock.SetAttr(nil, &size, new(fuse.AttrOut)), fuse.EACCES)
	r.release(r.lock, fh)
	r.read(r.lock, r.open(r.lock, node, syscall.O_RDONLY, 0, fuse.OK), "")
	r.committed(node, "")

	r.open(r.lock, node, syscall.O_RDONLY|syscall.O_TRUNC, 0, fuse.EACCES)
	r.open(r.lock, r.lookup(r.lock, rootIno, "a@cw"), syscall.O_RDWR|syscall.O_TRUNC, 0, fuse.EACCES)

	fh = r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	size.Valid, size.Fh, size.Size, size.LockOwner = fuse.FATTR_SIZE|fuse.FATTR_FH|fuse.FATTR_LOCKOWNER, fh, 3, writer
	r.want("ftruncate", r.lock.SetAttr(nil, &size, new(fuse.AttrOut)), fuse.OK)
	r.flush(r.lock, fh, writer, fuse.OK)
	r.committed(node, "\x00\x00\x00")
}

func TestDlmfsWrites(t *testing.T) {
	r := newRig(t)
	var dir fuse.EntryOut
	r.want("mkdir", r.dlmfs.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootIno, 0), Mode: 0o755}, "dom", &dir), fuse.OK)
	var file fuse.EntryOut
	r.want("mknod", r.dlmfs.Mknod(nil, &fuse.MknodIn{InHeader: header(dir.NodeId, 0), Mode: syscall.S_IFREG | 0o644}, "a", &file), fuse.OK)
	if file.Size != 64 {
		t.Errorf("size %d", file.Size)
	}
	fh := r.open(r.dlmfs, file.NodeId, syscall.O_RDWR, 0, fuse.OK)
	in := fuse.WriteIn{InHeader: header(0, 0), Fh: fh, Offset: 60, WriteFlags: fuse.WRITE_LOCKOWNER, LockOwner: writer}
	if n, st := r.dlmfs.Write(nil, &in, []byte("12345678")); n != 4 || st != fuse.OK {
		t.Errorf("write over the end: %d, %v", n, st)
	}
	in.Offset = 64
	if _, st := r.dlmfs.Write(nil, &in, []byte("x")); st != fuse.Status(syscall.ENOSPC) {
		t.Errorf("write at the end: %v", st)
	}
	r.flush(r.dlmfs, fh, writer, fuse.OK)
	r.committed(file.NodeId, strings.Repeat("\x00", 60)+"1234")
	r.open(r.dlmfs, file.NodeId, syscall.O_RDONLY|syscall.O_NONBLOCK, 0, fuse.Status(syscall.ETXTBSY))
}

// tellLost is closed when a lock is lost.
type tellLost chan struct{}

func (c tellLost) Notice(n lockd.Notice) {
	if n.Kind == lockd.NoticeLost {
		close(c)
	}
}

func TestLostLock(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	fh := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, fh, 0, "one", writer, fuse.OK)
	h := r.lock.handles.get(fh).(*handle)
	lost := make(tellLost)
	r.host.Release(&h.lock)
	h.lock.Listener = lost
	err := r.host.Lock(nil, &h.lock, lockd.Request{Ino: h.ino, Mode: 6, TTL: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	<-lost
	r.write(r.lock, fh, 3, "two", writer, fuse.EIO)
	r.flush(r.lock, fh, writer, fuse.EIO)
	r.flock(r.lock, fh, syscall.F_RDLCK, fuse.Status(syscall.ENOLCK))
	if got := r.lock.Poll(fh, 0, 0, 0); got != pollLost {
		t.Errorf("poll: %#x", got)
	}
	r.committed(node, "")
}
