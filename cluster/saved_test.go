package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// saved makes a node with some files and a lock, and returns an operator's snapshot of it and what was in it.
func saved(t testing.TB) ([]byte, *state.View, Identity) {
	t.Helper()
	n, h := start(t, testConfig(t, filepath.Join(t.TempDir(), "data")))
	s := session(t, n, h, 1)
	must(t, propose(n, makeFile(s, 1, "a"), makeFile(s, 2, "b")))
	a := h.now().Lookup(state.Root, "a").Ino
	must(t, propose(n, setValue(s, 3, a, bytes.Repeat([]byte("v"), 100_000))))
	must(t, propose(n, &statepb.Command{Session: s, Seq: 4, TimeUnixNs: 1, Op: &statepb.Command_Acquire{
		Acquire: &statepb.Acquire{Steps: []*statepb.Step{{Ino: a, Want: uint32(queue.EX)}}},
	}}))
	var b bytes.Buffer
	must(t, n.SaveSnapshot(&b))
	view, id := h.now(), n.Identity()
	stop(t, n)
	return b.Bytes(), view, id
}

func TestSaveAndRestore(t *testing.T) {
	b, was, id := saved(t)
	info, err := VerifySnapshot(bytes.NewReader(b))
	must(t, err)
	nodes, _ := was.Counts()
	if info.Cluster != id.Cluster || info.Host != "alpha" || info.Index != was.Index() || info.Created.IsZero() || info.Nodes != nodes {
		t.Errorf("%+v", info)
	}
	dir := filepath.Join(t.TempDir(), "new", "data")
	must(t, Restore(dir, "beta", bytes.NewReader(b)))
	c := testConfig(t, dir)
	c.Name = ""
	n, h := start(t, c)
	if got := n.Identity(); got.Cluster == id.Cluster || got.Host == id.Host || got.Name != "beta" || !got.Founded {
		t.Errorf("%+v, was %+v", got, id)
	}
	v := h.now()
	a := v.Lookup(state.Root, "a")
	if a == nil || v.Lookup(state.Root, "b") == nil || len(a.Value) != 100_000 {
		t.Fatal("the files are not there")
	}
	if !a.Invalid {
		t.Error("a value whose lock ended with the old cluster is valid")
	}
	for s := range v.Sessions() {
		t.Errorf("a session of before: %+v", s)
	}
	s := session(t, n, h, 2)
	must(t, propose(n, makeFile(s, 1, "c")))
	stop(t, n)
	n, h = start(t, c) // and what comes after is its own
	h.await(t, "the new file", func(v *state.View) bool { return v.Lookup(state.Root, "c") != nil })
	eventually(t, "a snapshot, once its new address is applied", func() bool { return n.Snapshot() == nil })
	var again bytes.Buffer
	must(t, n.SaveSnapshot(&again))
	stop(t, n)
	start(t, c)
	if _, err := VerifySnapshot(&again); err != nil {
		t.Error(err)
	}
}

// TestDamagedSave damages each byte and cuts off each end: nothing is made of any of it.
func TestDamagedSave(t *testing.T) {
	b, _, _ := saved(t)
	dir := filepath.Join(t.TempDir(), "data")
	step := 37
	if testing.Short() {
		step = 1009
	}
	try := func(what string, at int, b []byte) {
		err := Restore(dir, "", bytes.NewReader(b))
		if err == nil {
			t.Fatalf("%s at byte %d: restored", what, at)
		}
		newer := errors.Is(err, state.ErrUnknown) || at >= len(savedMagic) && at < len(savedMagic)+4 // as its version says
		if !errors.Is(err, ErrSnapshot) && !newer {
			t.Fatalf("%s at byte %d: %v", what, at, err)
		}
		if _, err := os.Lstat(dir); err == nil {
			t.Fatalf("%s at byte %d: a directory was made", what, at)
		}
	}
	for at := 0; at < len(b); at += step {
		try("cut off", at, b[:at])
		b[at] ^= 0x10
		try("a bit", at, b)
		b[at] ^= 0x10
	}
	try("more", len(b), append(bytes.Clone(b), 0))
	b[len(savedMagic)] = 99
	if err := Restore(dir, "", bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "format 99") {
		t.Fatal(err)
	}
}

func TestRestoreIsRefused(t *testing.T) {
	b, _, _ := saved(t)
	used, _ := filled(t, true)
	foreign := t.TempDir()
	must(t, os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600))
	broken := t.TempDir()
	must(t, os.Mkdir(filepath.Join(broken, logName), 0o700))
	for dir, word := range map[string]string{used: "data directory already", foreign: "thesis.tex", broken: logName} {
		before := fingerprint(t, dir)
		err := Restore(dir, "", bytes.NewReader(b))
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", word, err)
		}
		if fingerprint(t, dir) != before {
			t.Errorf("%s: the directory was changed", word)
		}
	}
}

// TestRestoreCutOff leaves a restore at each step, as a crash does: such a directory is not used, but can be restored to
// again.
func TestRestoreCutOff(t *testing.T) {
	b, _, _ := saved(t)
	whole := filepath.Join(t.TempDir(), "data")
	must(t, Restore(whole, "", bytes.NewReader(b)))
	for name, undo := range map[string]func(dir string) error{
		"marked": func(dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, logName)), os.RemoveAll(filepath.Join(dir, snapsName)),
				os.Remove(filepath.Join(dir, storeName)))
		},
		"half a snapshot": func(dir string) error {
			name := glob(t, dir, snapsName, "*")[0]
			return errors.Join(os.Rename(name, name+tmpSuffix), os.Remove(filepath.Join(dir, storeName)))
		},
		"half a store": func(dir string) error {
			return os.Rename(filepath.Join(dir, storeName), filepath.Join(dir, storeName+tmpSuffix))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			copyDir(t, whole, dir)
			must(t, os.WriteFile(filepath.Join(dir, restoreName), nil, 0o600))
			must(t, undo(dir))
			refused(t, testConfig(t, dir), "cut off", "restore it again")
			must(t, Restore(dir, "", bytes.NewReader(b)))
			start(t, testConfig(t, dir))
		})
	}
	t.Run("only the mark is left", func(t *testing.T) {
		must(t, os.WriteFile(filepath.Join(whole, restoreName), nil, 0o600))
		n, _ := start(t, testConfig(t, whole))
		stop(t, n)
		if _, err := os.Lstat(filepath.Join(whole, restoreName)); err == nil {
			t.Error("the mark is still there")
		}
	})
}

// FuzzSaved gives the reader of operators' snapshots anything at all.
func FuzzSaved(f *testing.F) {
	b, _, _ := saved(f)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		VerifySnapshot(bytes.NewReader(b))
	})
}
