package cluster

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// smallLog makes segments and snapshots come often.
var smallLog = logLimits{entries: 1 << 20, bytes: 1 << 40, trailing: 60, trailingBytes: 1 << 30, segment: 64 << 10}

// filled makes a data directory with several segments and a snapshot, stopped cleanly or as by a crash, and returns it
// with the session whose files f0…f299 are in it.
func filled(t testing.TB, clean bool) (dir string, c Config) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	c = testConfig(t, dir)
	c.limits = smallLog
	n, h := start(t, c)
	s := session(t, n, h, 1)
	for i := range 300 {
		err := propose(n, makeFile(s, uint64(2*i+1), fmt.Sprintf("f%d", i)), &statepb.Command{
			Session: s, Seq: uint64(2*i + 2), TimeUnixNs: 1, Op: &statepb.Command_SetXattr{SetXattr: &statepb.SetXattr{
				Ino: state.Root, Name: []byte("user.x"), Value: bytes.Repeat([]byte("x"), 900),
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if i == 200 {
			if err := n.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !clean {
		crashed := filepath.Join(t.TempDir(), "data")
		copyDir(t, dir, crashed) // while it runs, but nothing is under way
		dir = crashed
	}
	stop(t, n)
	c.Dir = dir
	return dir, c
}

func copyDir(t fataler, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// fingerprint is everything in a directory: names, modes, owners, times and bytes.
func fingerprint(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, fi.Mode(), fi.ModTime().UnixNano(), fi.Size())
		if fi.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b.Write(data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// refused opens a directory and wants an error with these words and nothing changed.
func refused(t *testing.T, c Config, words ...string) {
	t.Helper()
	before := fingerprint(t, c.Dir)
	n, err := Open(c)
	if err == nil {
		n.Close()
		t.Fatal("it was opened")
	}
	for _, w := range append(words, "lockfs: open the data directory "+c.Dir+": ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	if fingerprint(t, c.Dir) != before {
		t.Error("the directory was changed")
	}
	t.Log(err)
}

func glob(t testing.TB, parts ...string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(parts...))
	if err != nil || len(list) == 0 {
		t.Fatalf("%v: none (%v)", parts, err)
	}
	slices.Sort(list)
	return list
}

func edit(t testing.TB, path string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 0x40; return b }
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }

// lastByte is where the data of a segment ends.
func lastByte(b []byte) int { return len(bytes.TrimRight(b, "\x00")) - 1 }

// fataler is a testing.TB or a *rapid.T.
type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestDamageIsRefused damages a data directory in each way and wants it refused and left alone.
func TestDamageIsRefused(t *testing.T) {
	crashed, c := filled(t, false)
	clean, _ := filled(t, true)
	db := func(t *testing.T, dir string, change func(s *store) error) {
		t.Helper()
		s, err := openStore(filepath.Join(dir, storeName))
		must(t, err)
		must(t, change(s))
		must(t, s.Close())
	}
	first := func(t *testing.T, d string) string { return glob(t, d, logName, "*.wal")[0] }
	last := func(t *testing.T, d string) string { return slices.Max(glob(t, d, logName, "*.wal")) }
	snap := func(t *testing.T, d, name string) string { return glob(t, d, snapsName, "*", name)[0] }
	for _, x := range []struct {
		name   string
		clean  bool
		words  string
		damage func(t *testing.T, dir string)
	}{
		{"a bit of a full segment", false, "damaged", func(t *testing.T, d string) { edit(t, first(t, d), flip(20000)) }},
		{"a bit in the last segment", false, "damaged", func(t *testing.T, d string) { edit(t, last(t, d), flip(1000)) }},
		{"a bit in the last entry", false, "damaged", func(t *testing.T, d string) {
			edit(t, last(t, d), func(b []byte) []byte { return flip(lastByte(b) - 100)(b) })
		}},
		{"the last segment's header", false, "header", func(t *testing.T, d string) { edit(t, last(t, d), flip(9)) }},
		{"the last segment truncated", false, "truncated", func(t *testing.T, d string) { edit(t, last(t, d), cut(5000)) }},
		{"a full segment truncated", false, "truncated", func(t *testing.T, d string) { edit(t, first(t, d), cut(9000)) }},
		{"the last segment empty", false, "truncated", func(t *testing.T, d string) { must(t, os.Truncate(last(t, d), 0)) }},
		{"the first segment missing", false, "no such file", func(t *testing.T, d string) { must(t, os.Remove(first(t, d))) }},
		{"the last segment missing", false, "no such file", func(t *testing.T, d string) { must(t, os.Remove(last(t, d))) }},
		{"the log missing", false, "no such file", func(t *testing.T, d string) { must(t, os.RemoveAll(filepath.Join(d, logName))) }},
		{"two segments exchanged", false, "another segment's", func(t *testing.T, d string) {
			a, b := first(t, d), last(t, d)
			must(t, os.Rename(a, a+"x"))
			must(t, os.Rename(b, a))
			must(t, os.Rename(a+"x", b))
		}},
		{"something else in the log", false, "does not belong", func(t *testing.T, d string) {
			must(t, os.WriteFile(filepath.Join(d, logName, "notes"), nil, 0o600))
		}},
		{"a newer segment than is known", false, "older copy", func(t *testing.T, d string) {
			must(t, os.WriteFile(filepath.Join(d, logName, "00000000000000009000-00000000000000ff.wal"), []byte{1}, 0o600))
		}},
		{"the last entries as if never written, after a clean stop", true, "when lockfs was stopped", func(t *testing.T, d string) {
			edit(t, last(t, d), func(b []byte) []byte { clear(b[(lastByte(b)-3000)&^(sector-1):]); return b })
		}},
		{"the snapshot's bytes", false, "checksum", func(t *testing.T, d string) { edit(t, snap(t, d, snapState), flip(700)) }},
		{"the snapshot truncated", false, "bytes", func(t *testing.T, d string) { edit(t, snap(t, d, snapState), cut(10)) }},
		{"the snapshot's state missing", false, "no such file", func(t *testing.T, d string) { must(t, os.Remove(snap(t, d, snapState))) }},
		{"the snapshot's description missing", false, "no such file", func(t *testing.T, d string) { must(t, os.Remove(snap(t, d, snapMeta))) }},
		{"the snapshot's description garbled", false, "meta.json", func(t *testing.T, d string) { edit(t, snap(t, d, snapMeta), flip(3)) }},
		{"the snapshot gone", false, "snapshot is missing", func(t *testing.T, d string) { must(t, os.RemoveAll(filepath.Dir(snap(t, d, snapMeta)))) }},
		{"all snapshots gone", false, "no such file", func(t *testing.T, d string) { must(t, os.RemoveAll(filepath.Join(d, snapsName))) }},
		{"a newer snapshot that is damaged beside a good one", false, "damaged", func(t *testing.T, d string) {
			newer := filepath.Join(d, snapsName, "9-99999-1")
			copyDir(t, filepath.Dir(snap(t, d, snapMeta)), newer)
		}},
		{"lockfs.db missing", false, "lockfs.db is missing", func(t *testing.T, d string) { must(t, os.Remove(filepath.Join(d, storeName))) }},
		{"lockfs.db empty", false, "too short", func(t *testing.T, d string) { must(t, os.Truncate(filepath.Join(d, storeName), 0)) }},
		{"lockfs.db truncated", false, "truncated", func(t *testing.T, d string) { must(t, os.Truncate(filepath.Join(d, storeName), 4*4096)) }},
		{"lockfs.db garbled", false, "damaged", func(t *testing.T, d string) {
			edit(t, filepath.Join(d, storeName), func(b []byte) []byte { copy(b[100:], "garbage"); return flip(30)(b) })
		}},
		{"lockfs.db of a newer format", false, "format 2", func(t *testing.T, d string) {
			db(t, d, func(s *store) error {
				return s.putJSON(bucketIdentity, keyIdentity, Identity{Format: 2, Cluster: "x", Host: "y", Founded: true})
			})
		}},
		{"lockfs.db with an older term", false, "older than the log", func(t *testing.T, d string) {
			db(t, d, func(s *store) error { return s.SetUint64([]byte(keyCurrentTerm), 1) })
		}},
		{"a segment of another layout", false, "does not know", func(t *testing.T, d string) {
			db(t, d, func(s *store) error {
				list, err := s.segments()
				if err != nil {
					return err
				}
				list.Segments[0].Codec++
				return s.putJSON(bucketLog, keySegments, list)
			})
		}},
		{"others may write the directory", false, "chmod go-w", func(t *testing.T, d string) { must(t, os.Chmod(d, 0o777)) }},
		{"others may write lockfs.db", false, "chmod go-w", func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, storeName), 0o660)) }},
		{"others may read the log", false, "chmod go-rwx", func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, logName), 0o755)) }},
		{"a read-only log", false, "chmod u+rwX", func(t *testing.T, d string) { must(t, os.Chmod(last(t, d), 0o400)) }},
		{"another's file", false, "chown", func(t *testing.T, d string) {
			if os.Getuid() != 0 {
				t.Skip("needs root")
			}
			must(t, os.Chown(filepath.Join(d, storeName), 1234, 0))
		}},
		{"a link in place of a file", false, "neither a file", func(t *testing.T, d string) {
			must(t, os.Rename(last(t, d), filepath.Join(t.TempDir(), "x")))
			must(t, os.Symlink("/etc/passwd", filepath.Join(d, logName, "00000000000000000001-0000000000000000.wal.x")))
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := c
			c.Logger = quietly(t)
			c.Dir = filepath.Join(t.TempDir(), "data")
			from := crashed
			if x.clean {
				from = clean
			}
			copyDir(t, from, c.Dir)
			x.damage(t, c.Dir)
			refused(t, c, x.words)
		})
	}
}

// TestStoreBits flips bits all over lockfs.db: each is refused, or lies where nothing is.
func TestStoreBits(t *testing.T) {
	dir, c := filled(t, false)
	good, err := verify(dir)
	must(t, err)
	path := filepath.Join(dir, storeName)
	b, err := os.ReadFile(path)
	must(t, err)
	used := lastByte(b) + 1
	rnd := rand.New(rand.NewPCG(5, 6))
	flips := 800
	if testing.Short() {
		flips = 100
	}
	for range flips {
		at, bit := rnd.IntN(used), byte(1)<<rnd.IntN(8)
		b[at] ^= bit
		must(t, os.WriteFile(path, b, 0o600))
		if got, err := verify(dir); err == nil && (got.identity != good.identity || got.last != good.last || len(got.values) != len(good.values)) {
			t.Fatalf("byte %d bit %#x: %+v, was %+v", at, bit, got, good)
		}
		b[at] ^= bit
	}
	must(t, os.WriteFile(path, b, 0o600))
	n, _ := start(t, c)
	stop(t, n)
}

// FuzzPages gives the reader of lockfs.db anything at all.
func FuzzPages(f *testing.F) {
	dir := f.TempDir()
	must(f, createStore(dir, Identity{Format: 1, Cluster: "c", Host: "h"}, nil))
	b, err := os.ReadFile(filepath.Join(dir, storeName))
	must(f, err)
	f.Add(b[:lastByte(b)+4096])
	f.Fuzz(func(t *testing.T, b []byte) {
		checkPages(b, func(string, []byte, []byte) error { return nil })
	})
}

// TestCrashLeftovers opens what a crash leaves: unfinished and half-removed snapshots, segments being made or removed, a
// torn batch.
func TestCrashLeftovers(t *testing.T) {
	dir, c := filled(t, false)
	name := filepath.Base(filepath.Dir(glob(t, dir, snapsName, "*", snapMeta)[0]))
	var term, index, ms uint64
	fmt.Sscanf(name, "%d-%d-%d", &term, &index, &ms)
	must(t, os.Mkdir(filepath.Join(dir, snapsName, fmt.Sprintf("%d-%d-%d", term, index-50, ms)), 0o700))
	must(t, os.Mkdir(filepath.Join(dir, snapsName, "9-999999-5.tmp"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, snapsName, "9-999999-5.tmp", snapState), []byte("half"), 0o600))
	s, err := openStore(filepath.Join(dir, storeName))
	must(t, err)
	list, err := s.segments()
	must(t, err)
	must(t, s.Close())
	next := filepath.Join(dir, logName, fmt.Sprintf("%020d-%016x.wal", 700, list.NextSegmentID))
	must(t, os.WriteFile(next, make([]byte, 64<<10), 0o600))
	old := filepath.Join(dir, logName, "00000000000000000001-0000000000000000.wal")
	must(t, os.WriteFile(old, []byte("dropped"), 0o600))
	tail := slices.Max(glob(t, dir, logName, fmt.Sprintf("*-%016x.wal", list.NextSegmentID-1)))
	edit(t, tail, func(b []byte) []byte {
		at := (lastByte(b) + 8) &^ 7
		end := (at + sector) &^ (sector - 1)
		for i := at; i < end; i++ {
			b[i] = 'x'
		}
		frame := []byte{frameEntry, 0, 0, 0, 0, 16, 0, 0, 'c', 'r', 'c', '!', 0, 16, 0, 0} // an entry of 4096 bytes
		copy(b[at:end], frame)                                                             // of which the first sector came to disk
		return b
	})

	n, h := start(t, c)
	if h.now().Lookup(state.Root, "f299") == nil {
		t.Fatal("the last file is gone")
	}
	for _, gone := range []string{next, old} {
		if b, err := os.ReadFile(gone); err == nil && !zeros(b) && !bytes.HasPrefix(b, []byte{0x0d, 0x6b}) {
			t.Errorf("%s is still there", gone)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(dir, snapsName)); len(left) != 1 || left[0].Name() != name {
		t.Errorf("snapshots left: %v", left)
	}
	stop(t, n)
	n, _ = start(t, c)
	stop(t, n)
}

func TestForeignDirectoryIsRefused(t *testing.T) {
	c := testConfig(t, t.TempDir())
	must(t, os.Chmod(c.Dir, 0o700))
	must(t, os.WriteFile(filepath.Join(c.Dir, "thesis.tex"), []byte("…"), 0o600))
	refused(t, c, "no data directory of lockfs", "thesis.tex", "--data-dir")
}

func TestSecondDaemonIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n, _ := start(t, testConfig(t, dir))
	_, err := Open(testConfig(t, dir))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) || !strings.Contains(err.Error(), "--data-dir") {
		t.Fatal(err)
	}
	t.Log(err)
	stop(t, n)
	n, _ = start(t, testConfig(t, dir))
	stop(t, n)
}

func TestTakenPortIsRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	dir, c := filled(t, true)
	c.Dir, c.Bind = dir, l.Addr().String()
	refused(t, c, "--bind", c.Bind)
	c.Bind = "192.0.2.1:1"
	refused(t, c, "no such address")
	c.Bind = "0.0.0.0:0"
	refused(t, c, "--advertise")
	c.Bind = "nonsense"
	refused(t, c, "--bind")
	// A directory that would have been new is not there afterwards.
	c.Dir, c.Bind = filepath.Join(t.TempDir(), "fresh"), l.Addr().String()
	if _, err := Open(c); err == nil {
		t.Fatal("opened")
	}
	if _, err := os.Stat(c.Dir); err == nil {
		t.Error("a directory was left")
	}
}

// TestUnfounded starts over where a crash cut the making of a data directory short.
func TestUnfounded(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, dir string){
		"nothing": func(t *testing.T, dir string) {},
		"lock": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, lockName), []byte("1\n"), 0o600))
		},
		"half a db": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, storeName+tmpSuffix), []byte("x"), 0o600))
		},
		"db": func(t *testing.T, dir string) {
			must(t, makeDirs(dir))
			must(t, createStore(dir, Identity{Format: 1, Cluster: "c", Host: "h", Name: "n", Created: time.Now()}, nil))
		},
		"term": func(t *testing.T, dir string) {
			must(t, makeDirs(dir))
			must(t, createStore(dir, Identity{Format: 1, Cluster: "c", Host: "h", Name: "n", Created: time.Now()}, nil))
			s, err := openStore(filepath.Join(dir, storeName))
			must(t, err)
			must(t, s.SetUint64([]byte(keyCurrentTerm), 1))
			must(t, s.Close())
		},
		"entry": func(t *testing.T, dir string) {
			n, err := Open(testConfig(t, dir))
			must(t, err)
			_, trans := raft.NewInmemTransport("127.0.0.1:1")
			rc := raft.DefaultConfig()
			rc.LocalID = raft.ServerID(n.id())
			must(t, n.foundCluster(trans, rc))
			id := n.Identity()
			must(t, n.Close())
			s, err := openStore(filepath.Join(dir, storeName))
			must(t, err)
			id.Founded = false
			must(t, s.putJSON(bucketIdentity, keyIdentity, id))
			must(t, s.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			must(t, os.Mkdir(dir, 0o700))
			prepare(t, dir)
			n, h := start(t, testConfig(t, dir))
			session(t, n, h, 1)
			if !n.Identity().Founded {
				t.Error("not founded")
			}
			stop(t, n)
		})
	}
}
