package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestMemoryModel does anything in any order to a journal in memory and to a list, takes it to disk with failures at any
// step, and stops and opens it at any moment as prepare would find it. What is in memory is gone then, what is on disk not.
func TestMemoryModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		must(r, err)
		defer os.RemoveAll(dir)
		j := newTestJournal(r, dir)
		bounds := func() *memory { return &memory{maxEntries: 1 << 20, maxBytes: func() int64 { return 1 << 40 }} }
		must(r, j.store.putJSON(bucketLog, keyKept, kept{Memory: true}))
		j.keepIn(bounds())
		var model []*raft.Log
		first := rapid.Uint64Range(1, 1000).Draw(r, "first")
		inMemory := true
		r.Repeat(map[string]func(*rapid.T){
			"append": func(r *rapid.T) {
				n, size := rapid.IntRange(1, 300).Draw(r, "n"), rapid.SampledFrom([]int{1, 100, 3000}).Draw(r, "size")
				logs := entries(first+uint64(len(model)), n, size, rapid.Byte().Draw(r, "tag"))
				must(r, j.StoreLogs(logs))
				model = append(model, logs...)
			},
			"gap": func(r *rapid.T) {
				if len(model) == 0 {
					r.Skip()
				}
				if j.StoreLogs(entries(first+uint64(len(model))+1, 1, 1, 'x')) == nil {
					r.Fatal("an entry that does not follow the last was taken")
				}
			},
			"compact": func(r *rapid.T) {
				if len(model) == 0 {
					r.Skip()
				}
				n := rapid.IntRange(1, len(model)).Draw(r, "n")
				must(r, j.DeleteRange(first, first+uint64(n)-1))
				model, first = model[n:], first+uint64(n)
			},
			"cut": func(r *rapid.T) {
				if len(model) < 2 {
					r.Skip()
				}
				n := rapid.IntRange(1, len(model)-1).Draw(r, "n")
				last := first + uint64(len(model)) - 1
				must(r, j.DeleteRange(last-uint64(n)+1, last))
				model = model[:len(model)-n]
			},
			"to disk": func(r *rapid.T) {
				op := rapid.SampledFrom([]string{"", "write", "sync", "allocate", "commit"}).Draw(r, "fails")
				if op != "" {
					j.fails.Store(op, error(unix.EIO))
				}
				err := j.toDisk(func() error {
					if op == "commit" {
						return unix.EIO
					}
					return j.store.putJSON(bucketLog, keyKept, kept{})
				})
				j.fails.Clear()
				if err != nil && op == "" || err == nil && op == "commit" && inMemory {
					r.Fatal(err)
				}
				inMemory = inMemory && err != nil
			},
			"reopen": func(r *rapid.T) {
				j.close(r)
				c := &contents{values: map[string][]byte{}}
				must(r, c.readStore(filepath.Join(dir, storeName)))
				must(r, c.readSegments(filepath.Join(dir, logName)))
				if c.inMemory() != inMemory {
					r.Fatalf("in memory %v, want %v", c.inMemory(), inMemory)
				}
				j.open(r)
				if inMemory {
					j.keepIn(bounds())
					first += uint64(len(model)) // as if there were a snapshot
					model = nil
				}
			},
			"": func(r *rapid.T) {
				if j.inMemory() != inMemory {
					r.Fatalf("in memory %v, want %v", j.inMemory(), inMemory)
				}
				lo, err := j.FirstIndex()
				must(r, err)
				hi, err := j.LastIndex()
				must(r, err)
				if len(model) == 0 && lo != 0 || len(model) > 0 && (lo != first || hi != first+uint64(len(model))-1) {
					r.Fatalf("entries %d to %d, want %d from %d on", lo, hi, len(model), first)
				}
				for i, want := range model {
					var got raft.Log
					must(r, j.GetLog(first+uint64(i), &got))
					if got.Index != want.Index || !bytes.Equal(got.Data, want.Data) {
						r.Fatalf("entry %d: %d bytes of %x", got.Index, len(got.Data), got.Data[0])
					}
				}
				for _, none := range []uint64{first - 1, first + uint64(len(model))} {
					if inMemory && j.GetLog(none, new(raft.Log)) == nil {
						r.Fatalf("there is an entry %d", none)
					}
				}
			},
		})
		j.close(r)
	})
}

// TestMemoryIsBounded: what would go past the bounds is refused, and taken once there is room.
func TestMemoryIsBounded(t *testing.T) {
	m := &memory{maxEntries: 10, maxBytes: func() int64 { return 10_000 }}
	must(t, m.append(entries(1, 10, 1, 'a')))
	if err := m.append(entries(11, 1, 1, 'a')); !errors.Is(err, errMemoryFull) {
		t.Fatal(err)
	}
	must(t, m.drop(1, 5))
	must(t, m.append(entries(11, 1, 9900, 'a')))
	if err := m.append(entries(12, 1, 1, 'a')); !errors.Is(err, errMemoryFull) {
		t.Fatal(err)
	}
	must(t, m.drop(1, 11))
	if m.bytes != 0 || m.first() != 0 {
		t.Fatalf("%d bytes, entries from %d", m.bytes, m.first())
	}
	must(t, m.append(entries(100, 1, 1, 'a')))
}
