package fs

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
)

func TestMakeRefuses(t *testing.T) {
	r := newRig(t)
	r.make(r.lock, "a")
	for _, test := range []struct {
		name string
		mode uint32
		want fuse.Status
	}{
		{"a", syscall.S_IFREG, fuse.Status(syscall.ESTALE)}, // the kernel looks it up again
		{"b@ex", syscall.S_IFREG, fuse.EINVAL},
		{"b@ex,wait=soon", syscall.S_IFREG, fuse.EINVAL},
		{"b@events", syscall.S_IFREG, fuse.EINVAL},
		{".lock", syscall.S_IFREG, fuse.EPERM},
		{".lockfs", syscall.S_IFREG, fuse.EPERM},
		{"fifo", syscall.S_IFIFO, fuse.EPERM},
		{"socket", syscall.S_IFSOCK, fuse.EPERM},
		{string(slices.Repeat([]byte("n"), 256)), syscall.S_IFREG, fuse.Status(syscall.ENAMETOOLONG)},
	} {
		in := fuse.MknodIn{InHeader: header(rootIno, 0), Mode: test.mode | 0o644}
		if st := r.lock.Mknod(nil, &in, test.name, new(fuse.EntryOut)); st != test.want {
			t.Errorf("mknod %q: %v, want %v", test.name, st, test.want)
		}
	}
	h := header(rootIno, 0)
	for _, name := range []string{".lock", ".lockfs"} {
		r.want("unlink "+name, r.lock.Unlink(nil, &h, name), fuse.EPERM)
	}
	r.want("unlink of an alias", r.lock.Unlink(nil, &h, "a@ex"), fuse.EINVAL)
	rename := fuse.RenameIn{InHeader: header(rootIno, 0), Newdir: rootIno}
	r.want("rename to an alias", r.lock.Rename(nil, &rename, "a", "a@pr"), fuse.EINVAL)
	rename.Flags = 2 // RENAME_EXCHANGE
	r.want("exchange", r.lock.Rename(nil, &rename, "a", "b"), fuse.EINVAL)
	rename.Flags = 0
	r.want("rename in dlmfs", r.dlmfs.Rename(nil, &rename, "a", "b"), fuse.EPERM)
}

func TestGroupOfDirectory(t *testing.T) {
	r := newRig(t)
	var dir, sub, file fuse.EntryOut
	r.want("mkdir", r.lock.Mkdir(nil, &fuse.MkdirIn{InHeader: header(rootIno, 5), Mode: 0o2775}, "d", &dir), fuse.OK)
	r.want("mkdir", r.lock.Mkdir(nil, &fuse.MkdirIn{InHeader: header(dir.NodeId, 6), Mode: 0o755}, "sub", &sub), fuse.OK)
	r.want("mknod", r.lock.Mknod(nil, &fuse.MknodIn{InHeader: header(dir.NodeId, 6), Mode: syscall.S_IFREG | 0o644}, "f", &file), fuse.OK)
	if sub.Gid != 5 || sub.Mode&syscall.S_ISGID == 0 || file.Gid != 5 || file.Mode&syscall.S_ISGID != 0 || file.Uid != 6 {
		t.Errorf("below a set-group-id directory: %+v, %+v", sub.Attr, file.Attr)
	}
}

func TestLookups(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	h := header(rootIno, 0)
	for _, test := range []struct {
		name  string
		want  fuse.Status
		node  uint64 // 0: absent, or an alias
		kept  bool   // the kernel may keep it
		alias bool
	}{
		{"a", fuse.OK, node, true, false},
		{"none", fuse.OK, 0, true, false}, // absence is kept too
		{"none@ex", fuse.ENOENT, 0, false, false},
		{"a@ex", fuse.OK, 0, false, true},
		{".lock", fuse.OK, rootIno | lockBit, true, false},
		{".lock@pr", fuse.OK, 0, false, true},
		{"a@pr,wait=no", fuse.EINVAL, 0, false, false},
		{"a@zz", fuse.OK, 0, true, false},
	} {
		var out fuse.EntryOut
		if st := r.lock.Lookup(nil, &h, test.name, &out); st != test.want {
			t.Errorf("lookup %s: %v, want %v", test.name, st, test.want)
			continue
		}
		if got := out.EntryTimeout() > 0; got != test.kept {
			t.Errorf("lookup %s: kept for %v", test.name, out.EntryTimeout())
		}
		if isAlias(out.NodeId) != test.alias || !test.alias && out.NodeId != test.node {
			t.Errorf("lookup %s: node id %#x", test.name, out.NodeId)
		}
		if test.alias {
			if out.AttrTimeout() != 0 {
				t.Errorf("lookup %s: attributes kept for %v", test.name, out.AttrTimeout())
			}
			r.lock.Forget(out.NodeId, 1)
			r.open(r.lock, out.NodeId, syscall.O_RDONLY, 0, fuse.Status(syscall.ESTALE))
		}
	}
	if left := len(r.lock.aliases.nodes); left != 0 {
		t.Errorf("%d aliases left", left)
	}
}

func TestListing(t *testing.T) {
	r := newRig(t)
	const n = 100
	var want []string
	for i := range n {
		want = append(want, fmt.Sprintf("name%03d", i))
		r.make(r.lock, want[i])
	}
	out := fuse.OpenOut{}
	r.want("opendir", r.lock.OpenDir(nil, &fuse.OpenIn{InHeader: header(rootIno, 0)}, &out), fuse.OK)
	list := func(from uint64, during func(i int)) (names []string) {
		buf := make([]byte, 300)
		for i := 0; ; i++ {
			l := fuse.NewDirEntryList(buf, from)
			in := fuse.ReadIn{InHeader: header(rootIno, 0), Fh: out.Fh, Offset: from}
			r.want("readdir", r.lock.ReadDir(nil, &in, l), fuse.OK)
			entries, err := fuse.ParseDirEntries(l.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) == 0 {
				return names
			}
			for _, e := range entries {
				names = append(names, e.Name)
				from = e.Off
			}
			if during != nil {
				during(i)
			}
		}
	}
	all := append([]string{".", ".."}, want...)
	if got := list(0, nil); !slices.Equal(got, all) {
		t.Errorf("listing: %q", got)
	}
	if got := list(50, nil); !slices.Equal(got, all[50:]) {
		t.Errorf("listing from 50: %q", got)
	}
	h := header(rootIno, 0)
	removed := func(i int) { r.want("unlink", r.lock.Unlink(nil, &h, want[i]), fuse.OK) }
	if got := list(0, removed); !slices.Equal(got, all) {
		t.Errorf("listing while names go: %q", got)
	}
	if got := list(0, nil); len(got) >= len(all) {
		t.Errorf("a listing from the beginning shows what is gone: %q", got)
	}
}

func TestLockFileAttributes(t *testing.T) {
	r := newRig(t)
	node := rootIno | lockBit
	set := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: header(node, 0), Valid: fuse.FATTR_MODE, Mode: 0o600}}
	r.want("chmod .lock", r.lock.SetAttr(nil, &set, new(fuse.AttrOut)), fuse.EPERM)
	set.Valid, set.NodeId = fuse.FATTR_MODE, rootIno
	r.want("chmod", r.lock.SetAttr(nil, &set, new(fuse.AttrOut)), fuse.OK)
	var out fuse.AttrOut
	r.want("stat .lock", r.lock.GetAttr(nil, &fuse.GetAttrIn{InHeader: header(node, 0)}, &out), fuse.OK)
	if out.Mode != syscall.S_IFREG|0o600 {
		t.Errorf("mode of .lock: %o", out.Mode)
	}
	fh := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	r.write(r.lock, fh, 0, "of the directory", writer, fuse.OK)
	r.flush(r.lock, fh, writer, fuse.OK)
	r.committed(node, "of the directory")
}

func TestErrorsLeaveNothingOpen(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	held := r.open(r.lock, node, syscall.O_RDWR, 0, fuse.OK)
	r.open(r.lock, node, syscall.O_RDWR|syscall.O_NONBLOCK, 0, fuse.EAGAIN)
	reader := r.open(r.lock, node, syscall.O_RDONLY, 1, fuse.OK)
	r.flock(r.lock, reader, syscall.F_WRLCK, fuse.EACCES)
	r.release(r.lock, reader)
	r.open(r.posix, 12345, syscall.O_RDWR, 0, fuse.Status(syscall.ESTALE))
	cancel := make(chan struct{})
	close(cancel)
	in := fuse.OpenIn{InHeader: header(node, 0), Flags: syscall.O_WRONLY}
	in.Pid = 0 // a stranger: else it would be its own deadlock
	r.want("interrupted open", r.lock.Open(cancel, &in, new(fuse.OpenOut)), fuse.EINTR)
	if n := len(r.lock.handles.all()); n != 1 {
		t.Errorf("%d handles", n)
	}
	if r.posix.opens.any(12345) {
		t.Error("a failed open counts")
	}
	r.release(r.lock, held)
	if s := r.host.Status(); s.Locks != 0 {
		t.Errorf("%d locks left", s.Locks)
	}
}
