package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// testJournal is a journal in a directory of its own, whose disk can be made to fail.
type testJournal struct {
	*journal
	dir   string
	store *store
	fails sync.Map // operation (allocate, write, sync) to error
}

func newTestJournal(t fataler, dir string) *testJournal {
	j := &testJournal{dir: dir}
	must(t, os.MkdirAll(filepath.Join(dir, logName), 0o700))
	must(t, createStore(dir, Identity{Format: 1, Cluster: "c", Host: "h", Founded: true}, nil))
	j.open(t)
	return j
}

func (j *testJournal) open(t fataler) {
	var err error
	j.store, err = openStore(filepath.Join(j.dir, storeName))
	must(t, err)
	log := filepath.Join(j.dir, logName)
	f := &files{dir: log, reserve: newReserve(log, 16<<10), fault: j.fault}
	j.journal, err = openJournal(&logMeta{store: j.store, files: f}, 16<<10, &raftLog{to: slog.New(slog.DiscardHandler)})
	must(t, err)
}

func (j *testJournal) close(t fataler) {
	must(t, j.journal.Close())
	must(t, j.store.Close())
}

func (j *testJournal) fault(op, _ string) error {
	err, _ := j.fails.Load(op)
	if err == nil {
		return nil
	}
	return err.(error)
}

// entries makes n entries from an index on, told apart by their tag.
func entries(from uint64, n, size int, tag byte) []*raft.Log {
	var logs []*raft.Log
	for i := range uint64(n) {
		logs = append(logs, &raft.Log{Index: from + i, Term: 1, Data: bytes.Repeat([]byte{tag}, size)})
	}
	return logs
}

func (j *testJournal) tag(t fataler, index uint64) byte {
	t.Helper()
	var l raft.Log
	must(t, j.GetLog(index, &l))
	return l.Data[0]
}

// TestJournalAfterFailures is what raft-wal v0.4.0 does not survive alone: an append that failed, a segment that was
// full when there was no room for the next, and a stop in that moment.
func TestJournalAfterFailures(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		t.Run(op, func(t *testing.T) {
			j := newTestJournal(t, t.TempDir())
			must(t, j.StoreLogs(entries(1, 3, 100, 'a')))
			j.fails.Store(op, error(unix.EIO))
			for range 2 {
				if err := j.StoreLogs(entries(4, 2, 100, 'b')); !errors.Is(err, unix.EIO) {
					t.Fatal(err)
				}
			}
			if last, _ := j.LastIndex(); last != 3 {
				t.Fatalf("last %d", last)
			}
			j.fails.Clear()
			must(t, j.StoreLogs(entries(4, 1, 100, 'c')))
			must(t, j.StoreLogs(entries(5, 1, 100, 'c')))
			for range 2 {
				if a, c := j.tag(t, 3), j.tag(t, 4); a != 'a' || c != 'c' {
					t.Fatalf("entries 3, 4: %c %c", a, c)
				}
				if last, _ := j.LastIndex(); last != 5 {
					t.Fatalf("last %d", last)
				}
				j.close(t)
				_, err := verify(j.dir)
				if err != nil && !bytes.Contains([]byte(err.Error()), []byte(snapsName)) {
					t.Fatal(err)
				}
				j.open(t)
			}
			j.close(t)
		})
	}
	t.Run("no room for the next segment", func(t *testing.T) {
		j := newTestJournal(t, t.TempDir())
		j.fails.Store("allocate", error(unix.ENOSPC))
		next, failed := uint64(1), false
		for range 40 {
			if err := j.StoreLogs(entries(next, 1, 1000, 'a')); err != nil {
				if !errors.Is(err, unix.ENOSPC) {
					t.Fatal(err)
				}
				failed = true
				break
			}
			next++
		}
		if !failed || next < 10 {
			t.Fatalf("failed %v at entry %d", failed, next)
		}
		j.close(t) // with a full segment and no next one
		j.fails.Clear()
		j.open(t)
		if last, _ := j.LastIndex(); last != next-1 {
			t.Fatalf("last %d of %d", last, next-1)
		}
		must(t, j.StoreLogs(entries(next, 3, 1000, 'b')))
		for i := uint64(1); i < next; i++ {
			if j.tag(t, i) != 'a' {
				t.Fatalf("entry %d", i)
			}
		}
		j.close(t)
	})
}

// TestJournalModel does anything in any order to a journal and to a list, with a disk that fails and restarts at any
// moment (a kill leaves the files as Close does), and wants them to be the same.
func TestJournalModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		must(r, err)
		defer os.RemoveAll(dir)
		j := newTestJournal(r, dir)
		var model []*raft.Log // by index from first
		first := uint64(1)
		var maybe [][]*raft.Log // their append failed: a restart may find those of one of them, or the first of them
		restarted := func(r *rapid.T) {
			j.open(r)
			last, err := j.LastIndex()
			must(r, err)
			next := first + uint64(len(model))
			if last >= next {
				var got raft.Log
				must(r, j.GetLog(next, &got))
				i := slices.IndexFunc(maybe, func(logs []*raft.Log) bool {
					return uint64(len(logs)) > last-next && bytes.Equal(logs[0].Data, got.Data)
				})
				if i < 0 {
					r.Fatalf("entry %d came from nowhere", next)
				}
				model = append(model, maybe[i][:last-next+1]...)
			}
			maybe = nil
		}
		r.Repeat(map[string]func(*rapid.T){
			"append": func(r *rapid.T) {
				n, size := rapid.IntRange(1, 6).Draw(r, "n"), rapid.SampledFrom([]int{1, 100, 3000, 20000}).Draw(r, "size")
				logs := entries(first+uint64(len(model)), n, size, rapid.Byte().Draw(r, "tag"))
				op := rapid.SampledFrom([]string{"", "", "", "write", "sync", "allocate"}).Draw(r, "fails")
				if op != "" {
					j.fails.Store(op, error(unix.ENOSPC))
				}
				err := j.StoreLogs(logs)
				if err == nil {
					model, maybe = append(model, logs...), nil
				} else if op == "" {
					r.Fatal(err)
				} else {
					maybe = append(maybe, logs)
				}
				j.fails.Clear()
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
				model, maybe = model[:len(model)-n], nil
			},
			"reopen": func(r *rapid.T) {
				j.close(r)
				restarted(r)
			},
			"": func(r *rapid.T) {
				last, err := j.LastIndex()
				must(r, err)
				if want := first + uint64(len(model)) - 1; len(model) > 0 && last != want {
					r.Fatalf("last entry %d, want %d", last, want)
				}
				for i, want := range model {
					var got raft.Log
					if err := j.GetLog(first+uint64(i), &got); err != nil {
						r.Fatalf("entry %d: %v", first+uint64(i), err)
					}
					if !bytes.Equal(got.Data, want.Data) {
						r.Fatalf("entry %d has %d × %x, want %d × %x", got.Index, len(got.Data), got.Data[0], len(want.Data), want.Data[0])
					}
				}
			},
		})
		j.close(r)
		c := &contents{values: map[string][]byte{}}
		must(r, c.readStore(filepath.Join(dir, storeName)))
		must(r, c.readSegments(filepath.Join(dir, logName)))
		if last := first + uint64(len(model)) - 1; len(model) > 0 && (c.last < last || c.last > last && maybe == nil) {
			r.Fatalf("verified up to %d, want %d", c.last, last)
		}
	})
}
