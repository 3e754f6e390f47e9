package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// fill writes a file until the file system is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	b := make([]byte, 64<<10)
	for len(b) > 0 {
		if _, err := f.Write(b); errors.Is(err, unix.ENOSPC) {
			b = b[:len(b)/2]
		} else {
			must(t, err)
		}
	}
}

// TestFullDisk fills the disk under a node: growth is refused, what is small goes on as long as the reserve lasts, then
// nothing can be appended and the node waits; when there is room again all goes on, and nothing that was
// acknowledged is gone.
func TestFullDisk(t *testing.T) {
	disk := mountTmpfs(t, "size=12m")
	c := testConfig(t, filepath.Join(disk, "data"))
	c.limits = logLimits{entries: 1 << 20, bytes: 1 << 40, trailing: 10, trailingBytes: 1 << 30, segment: 256 << 10}
	c.OpTimeout = time.Second
	n, h := start(t, c)
	s := session(t, n, h, 1)
	seq := uint64(0)
	touch := func() error { // a small command, as releases and renewals are
		seq++
		mtime := int64(seq)
		err := propose(n, &statepb.Command{Session: s, Seq: seq, TimeUnixNs: 1, Op: &statepb.Command_SetAttr{
			SetAttr: &statepb.SetAttr{Ino: state.Root, Mtime: &mtime},
		}})
		if err != nil {
			seq--
		}
		return err
	}
	for i := range 100 {
		must(t, touch())
		if i == 50 {
			must(t, n.Room())
		}
	}
	filler := filepath.Join(disk, "filler")
	fill(t, filler)
	n.room.until.Store(0) // ask now
	if err := n.Room(); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("room on a full disk: %v", err)
	}
	if err := n.Snapshot(); err == nil {
		t.Fatal("a snapshot on a full disk")
	}
	if left, _ := filepath.Glob(filepath.Join(c.Dir, snapsName, "*")); len(left) > 0 {
		t.Errorf("an unfinished snapshot was left: %v", left)
	}
	full := seq
	var err error
	for err == nil && seq < 1<<20 {
		err = touch()
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatalf("after %d entries: %v", seq-full, err)
	}
	t.Logf("%d entries of %d bytes went on with the disk full: %v", seq-full, 2*c.limits.segment, err)
	if seq-full < 2*256<<10/200 {
		t.Error("the reserve was not used")
	}
	for range 3 {
		if err := touch(); !errors.Is(err, ErrNoSpace) && !errors.Is(err, ErrNoLeader) {
			t.Fatal(err)
		}
	}
	if n.Err() != nil || h.now().Node(state.Root).Mtime != int64(seq) {
		t.Fatalf("%v; the last change applied is %d of %d", n.Err(), h.now().Node(state.Root).Mtime, seq)
	}
	if got := n.Status(); got.DiskError == "" {
		t.Errorf("%+v", got)
	}

	must(t, os.Remove(filler))
	freed := time.Now()
	for err = touch(); err != nil; err = touch() {
		if time.Since(freed) > time.Minute {
			t.Fatalf("there is room again, and still: %v", err)
		}
		// A failed one may have been applied after all: then its repeat is none.
		if m := uint64(h.now().Node(state.Root).Mtime); m > seq {
			seq = m
		}
	}
	t.Logf("went on %v after there was room", time.Since(freed).Round(time.Millisecond))
	n.room.until.Store(0)
	must(t, n.Room())
	n.refill()
	if n.reserve.missing() != 0 {
		t.Error("the reserve was not filled again")
	}
	must(t, n.Snapshot())
	for range 100 {
		must(t, touch())
	}
	stop(t, n)
	_, h = start(t, c)
	h.await(t, "all that was acknowledged", func(v *state.View) bool { return v.Node(state.Root).Mtime >= int64(seq) })
}

// TestStartOnFullDisk starts where there is no room at all: it waits for some.
func TestStartOnFullDisk(t *testing.T) {
	disk := mountTmpfs(t, "size=4m")
	c := testConfig(t, filepath.Join(disk, "data"))
	c.limits = logLimits{entries: 1 << 20, bytes: 1 << 40, trailing: 10, trailingBytes: 1 << 30, segment: 64 << 10}
	n, h := start(t, c)
	s := session(t, n, h, 1)
	for i := range uint64(50) {
		must(t, propose(n, makeFile(s, i+1, fmt.Sprintf("f%d", i))))
	}
	stop(t, n)
	fill(t, filepath.Join(disk, "filler"))
	n, h = start(t, c)
	h.await(t, "the files", func(v *state.View) bool { return v.Lookup(state.Root, "f49") != nil })
	if err := n.Room(); !errors.Is(err, ErrNoSpace) {
		t.Errorf("room: %v", err)
	}
	stop(t, n)
}
