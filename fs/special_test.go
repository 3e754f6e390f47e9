package fs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd/state"
)

// seams is a mount whose .lockfs has all that a daemon can give.
func (r *rig) seams(o Options) *FS {
	o.Host, o.Shared = r.host, r.shared
	f := New(o)
	r.tb.Cleanup(f.OnUnmount)
	return f
}

// openSpecial opens a file of .lockfs.
func (r *rig) openSpecial(f *FS, path string, flags, uid uint32, want fuse.Status) uint64 {
	r.tb.Helper()
	node := r.lookup(f, rootIno, ".lockfs")
	for name := range strings.SplitSeq(path, "/") {
		node = r.lookup(f, node, name)
	}
	return r.open(f, node, flags, uid, want)
}

// readSome reads at most n bytes at an offset.
func (r *rig) readSome(f *FS, fh, off uint64, n int, want fuse.Status) string {
	r.tb.Helper()
	buf := make([]byte, n)
	in := fuse.ReadIn{InHeader: header(0, 0), Fh: fh, Offset: off, Size: uint32(n)}
	res, st := f.Read(nil, &in, buf)
	r.want("read", st, want)
	got, _ := res.Bytes(nil)
	return string(got)
}

func (r *rig) listSpecial(f *FS, path ...string) (names []string) {
	r.tb.Helper()
	node := r.lookup(f, rootIno, ".lockfs")
	for _, name := range path {
		node = r.lookup(f, node, name)
	}
	var out fuse.OpenOut
	r.want("opendir", f.OpenDir(nil, &fuse.OpenIn{InHeader: header(node, 0)}, &out), fuse.OK)
	defer f.ReleaseDir(&fuse.ReleaseIn{Fh: out.Fh})
	for _, e := range f.handles.get(out.Fh).(*textDir).entries {
		names = append(names, e.Name)
	}
	return names[2:]
}

func TestHostFiles(t *testing.T) {
	r := newRig(t)
	if names := r.listSpecial(r.lock); slices.Contains(names, "hosts") {
		t.Errorf("without hosts: %v", names)
	}
	h := header(r.lookup(r.lock, rootIno, ".lockfs"), 0)
	r.want("lookup without hosts", r.lock.Lookup(nil, &h, "hosts", new(fuse.EntryOut)), fuse.ENOENT)
	hosts := []HostFacts{
		{Name: "alpha", Facts: []Fact{{"role", "leader"}, {"address", "10.0.0.1:7420"}, {"left", ""}}},
		{Name: "a/b\n"}, {Name: "a/b\n"}, {Name: ""}, {Name: ".."},
	}
	f := r.seams(Options{Hosts: func() []HostFacts { return hosts }})
	if got, want := r.listSpecial(f, "hosts"), []string{"alpha", "a_b\n", "a_b\n#2", "__"}; !slices.Equal(got, want) {
		t.Errorf("hosts: %q, want %q", got, want)
	}
	r.read(f, r.openSpecial(f, "hosts/alpha", syscall.O_RDONLY, 1000, fuse.OK), "host=alpha\nrole=leader\naddress=10.0.0.1:7420\n")
	r.read(f, r.openSpecial(f, "hosts/a_b\n#2", syscall.O_RDONLY, 0, fuse.OK), "host=a/b\\012\n")
	r.openSpecial(f, "hosts/alpha", syscall.O_RDWR, 0, fuse.EPERM)
	node := r.lookup(f, r.lookup(f, r.lookup(f, rootIno, ".lockfs"), "hosts"), "alpha")
	hosts = hosts[1:]
	r.open(f, node, syscall.O_RDONLY, 0, fuse.ENOENT)
	in := fuse.GetAttrIn{InHeader: header(node, 0)}
	r.want("stat of a host that left", f.GetAttr(nil, &in, new(fuse.AttrOut)), fuse.Status(syscall.ESTALE))
}

func TestStatusDigest(t *testing.T) {
	r := newRig(t)
	r.make(r.lock, "a")
	status := func() (index, digest string) {
		fh := r.openSpecial(r.posix, "status", syscall.O_RDONLY, 1000, fuse.OK)
		defer r.release(r.posix, fh)
		for line := range strings.Lines(r.readSome(r.posix, fh, 0, 1<<16, fuse.OK)) {
			switch key, value, _ := strings.Cut(strings.TrimSpace(line), "="); key {
			case "index":
				index = value
			case "digest":
				digest = value
			}
		}
		return index, digest
	}
	i1, d1 := status()
	if i2, d2 := status(); i1 == i2 && d1 != d2 || len(d1) != 64 {
		t.Errorf("index %s digest %q, then index %s digest %q", i1, d1, i2, d2)
	}
	r.make(r.lock, "b")
	if i2, d2 := status(); i1 == i2 || d1 == d2 {
		t.Errorf("after a change: index %s digest %q, then index %s digest %q", i1, d1, i2, d2)
	}
}

func TestSnapshotFile(t *testing.T) {
	r := newRig(t)
	node := r.make(r.lock, "a")
	fh := r.open(r.posix, node, syscall.O_WRONLY, 0, fuse.OK)
	r.write(r.posix, fh, 0, strings.Repeat("value", 40_000), 1, fuse.OK)
	f := r.seams(Options{Snapshot: func(w io.Writer) error {
		_, err := r.host.View().WriteTo(w)
		return err
	}})
	r.openSpecial(f, "snapshot", syscall.O_RDONLY, daemonUID+1000, fuse.EACCES)
	r.openSpecial(f, "snapshot", syscall.O_WRONLY, 0, fuse.EPERM)
	s := r.openSpecial(f, "snapshot", syscall.O_RDONLY, 0, fuse.OK)
	second := r.openSpecial(f, "snapshot", syscall.O_RDONLY, 0, fuse.OK)
	r.openSpecial(f, "snapshot", syscall.O_RDONLY, 0, fuse.Status(syscall.EBUSY))
	var all bytes.Buffer
	for n := 1; ; n = 2*n%100_000 + 1 {
		piece := r.readSome(f, s, uint64(all.Len()), n, fuse.OK)
		if piece == "" {
			break
		}
		all.WriteString(piece)
		if all.Len() == 1 {
			r.readSome(f, s, 0, 10, fuse.Status(syscall.ESPIPE))
			r.readSome(f, s, 1000, 10, fuse.Status(syscall.ESPIPE))
		}
	}
	if got, err := state.Read(&all); err != nil || len(got.View().Node(node).Value) != 200_000 {
		t.Errorf("the snapshot: %v", err)
	}
	r.release(f, s)
	r.release(f, second) // never read: its writer ends all the same
	f.closing.Wait()
	if n := f.snapshots.Load(); n != 0 {
		t.Errorf("%d snapshots are open", n)
	}
}

func TestSnapshotFails(t *testing.T) {
	r := newRig(t)
	f := r.seams(Options{Snapshot: func(w io.Writer) error {
		io.WriteString(w, "the beginning")
		return errors.New("no more")
	}})
	s := r.openSpecial(f, "snapshot", syscall.O_RDONLY, 0, fuse.OK)
	r.readSome(f, s, 0, 100, fuse.EIO)
	r.readSome(f, s, 0, 100, fuse.EIO)
	r.release(f, s)
}

// TestControl: a line in pieces, an answer in pieces, and what is no command.
func TestControl(t *testing.T) {
	r := newRig(t)
	goOn := make(chan struct{})
	f := r.seams(Options{Control: func(ctx context.Context, line string) (string, error) {
		switch line {
		case "wait":
			select {
			case <-goOn:
			case <-ctx.Done():
			}
			return "", ctx.Err()
		case "fail":
			return "", errors.New("it does not go")
		}
		return "did " + line, nil
	}})
	r.openSpecial(f, "control", syscall.O_RDWR, daemonUID+1000, fuse.EACCES)
	fh := r.openSpecial(f, "control", syscall.O_RDWR, 0, fuse.OK)
	if got := r.readSome(f, fh, 0, 100, fuse.OK); got != "" {
		t.Errorf("without a command: %q", got)
	}
	say := func(fh uint64, text string, want fuse.Status) { r.tb.Helper(); r.write(f, fh, 17, text, 1, want) }
	for _, test := range []struct {
		text string
		want fuse.Status
	}{
		{"\n", fuse.EINVAL}, {"a\nb\n", fuse.EINVAL}, {"a\nb", fuse.EINVAL}, {"a\x00\n", fuse.EINVAL}, {"\xff\n", fuse.EINVAL},
		{strings.Repeat("x", maxControlLine) + "\n", fuse.Status(syscall.E2BIG)},
	} {
		say(fh, test.text, test.want)
	}
	say(fh, "lea", fuse.OK)
	if got := r.readSome(f, fh, 0, 100, fuse.OK); got != "" {
		t.Errorf("before the line's end: %q", got)
	}
	say(fh, "ve\n", fuse.OK)
	var answer string
	for off := uint64(40); ; off++ {
		piece := r.readSome(f, fh, off, 3, fuse.OK)
		if piece == "" {
			break
		}
		answer += piece
	}
	if answer != "ok\ndid leave\n" {
		t.Errorf("answer %q", answer)
	}
	say(fh, "fail\n", fuse.OK)
	if got := r.readSome(f, fh, 0, 100, fuse.OK); got != "error it does not go\n" {
		t.Errorf("an error: %q", got)
	}

	say(fh, "wait\n", fuse.OK)
	say(fh, "more\n", fuse.Status(syscall.EBUSY))
	cancel := make(chan struct{})
	close(cancel)
	_, st := f.Read(cancel, &fuse.ReadIn{Fh: fh, Size: 10}, make([]byte, 10))
	r.want("an interrupted read", st, fuse.EINTR)
	var others []uint64
	for range maxControls - 1 {
		other := r.openSpecial(f, "control", syscall.O_RDWR|syscall.O_NONBLOCK, 0, fuse.OK)
		say(other, "wait\n", fuse.OK)
		r.readSome(f, other, 0, 10, fuse.EAGAIN)
		others = append(others, other)
	}
	last := r.openSpecial(f, "control", syscall.O_RDWR, 0, fuse.OK)
	say(last, "x\n", fuse.EAGAIN)
	r.release(f, others[0]) // its command goes on
	close(goOn)
	if got := r.readSome(f, fh, 0, 100, fuse.OK); got != "ok\n" {
		t.Errorf("after a wait: %q", got)
	}
}

// TestControlEnds: the end of the mount ends what is under way.
func TestControlEnds(t *testing.T) {
	r := newRig(t)
	f := New(Options{Host: r.host, Shared: r.shared, Control: func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}})
	fh := r.openSpecial(f, "control", syscall.O_WRONLY, 0, fuse.OK)
	r.write(f, fh, 0, "leave\n", 1, fuse.OK)
	f.OnUnmount()
}
