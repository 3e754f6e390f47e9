package cluster

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// testSegment writes batches of entries (sizes of their data) through raft-wal's own writer and returns the file's
// bytes and where each batch ends.
func testSegment(t testing.TB, limit uint32, batches ...[]int) ([]byte, types.SegmentInfo, []int64) {
	t.Helper()
	dir := t.TempDir()
	f := &files{dir: dir, reserve: newReserve(dir, 64<<10)}
	info := types.SegmentInfo{ID: 3, BaseIndex: 11, MinIndex: 11, SizeLimit: limit, Codec: codecID, CreateTime: time.Now()}
	if err := f.prepare(info); err != nil {
		t.Fatal(err)
	}
	w, err := filer{segment.NewFiler(dir, f), new(rotation)}.Create(info)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	rnd := rand.New(rand.NewPCG(1, uint64(limit)))
	path := filepath.Join(dir, segment.FileName(info))
	index := info.BaseIndex
	var ends []int64
	for _, sizes := range batches {
		var entries []types.LogEntry
		for _, size := range sizes {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(rnd.UintN(255)) + 1
			}
			var buf bytes.Buffer
			if err := (entryCodec{}).Encode(&raft.Log{Index: index, Term: 2, Data: data, AppendedAt: time.Now()}, &buf); err != nil {
				t.Fatal(err)
			}
			entries = append(entries, types.LogEntry{Index: index, Data: buf.Bytes()})
			index++
		}
		if err := w.Append(entries); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		end := len(b)
		for end > 0 && b[end-1] == 0 {
			end--
		}
		ends = append(ends, int64(end+7)&^7)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b, info, ends
}

func TestScanSegment(t *testing.T) {
	b, info, ends := testSegment(t, 64<<10, []int{10}, []int{300, 20, 5000}, []int{0}, []int{2000})
	s, err := scanSegment(b, info, nil)
	if err != nil || s.last != 16 || s.lastTerm != 2 || s.torn || s.end != ends[3] || s.indexStart != 0 {
		t.Fatalf("%+v %v, ends %v", s, err, ends)
	}
	// The first batch alone, then none at all.
	for i, want := range []uint64{16, 15, 14, 11, 10} {
		if i > 0 {
			from := int64(0)
			if i < 4 {
				from = ends[3-i]
			}
			clear(b[from:])
		}
		if s, err := scanSegment(b, info, nil); err != nil || s.last != want || s.torn {
			t.Fatalf("%d: %+v %v", want, s, err)
		}
	}
}

func TestScanFullSegment(t *testing.T) {
	b, info, _ := testSegment(t, 4<<10, []int{1000}, []int{1000, 1500}, []int{900})
	s, err := scanSegment(b, info, nil)
	if err != nil || s.last != 14 || s.indexStart == 0 {
		t.Fatalf("%+v %v", s, err)
	}
	info.SealTime, info.MaxIndex, info.IndexStart = time.Now(), 14, s.indexStart
	if _, err := scanSegment(b, info, nil); err != nil {
		t.Fatal(err)
	}
	for at := range int(s.end) { // every bit counts in a sealed segment
		b[at] ^= 0x10
		if _, err := scanSegment(b, info, nil); err == nil {
			t.Fatalf("a flipped bit in byte %d was not noticed", at)
		}
		b[at] ^= 0x10
	}
	info.MaxIndex++
	if _, err := scanSegment(b, info, nil); err == nil {
		t.Fatal("a missing entry was not noticed")
	}
}

// TestTornBatch drops sectors of the last batch, as a power cut may: all that was written before is found, nothing more.
func TestTornBatch(t *testing.T) {
	for name, sizes := range map[string][]int{
		"large": {3000, 40, 700}, "small": {10}, "crossing": {300, 300}, "sealing": {2400, 70, 1700},
	} {
		limit := uint32(64 << 10)
		if name == "sealing" {
			limit = 4 << 10
		}
		b, info, ends := testSegment(t, limit, []int{10}, []int{450}, sizes)
		start, end := ends[1], ends[2]
		first, last := start/sector, (end-1)/sector
		n := last - first + 1
		for mask := range 1 << n {
			c := bytes.Clone(b)
			whole := true
			for i := range n {
				if mask>>i&1 == 0 {
					clear(c[max(start, (first+i)*sector):min(end, (first+i+1)*sector)])
					whole = false
				}
			}
			s, err := scanSegment(c, info, nil)
			if err != nil {
				t.Fatalf("%s, sectors %b of %d: %v", name, mask, n, err)
			}
			if want := uint64(12); !whole && (s.last != want || s.end != start || s.torn == (mask == 0)) {
				t.Fatalf("%s, sectors %b of %d: %+v", name, mask, n, s)
			}
		}
	}
}

// TestTornFirstBatch is the same for the first batch of a segment, which has the header.
func TestTornFirstBatch(t *testing.T) {
	b, info, ends := testSegment(t, 64<<10, []int{1300, 5})
	n := (ends[0] + sector - 1) / sector
	for mask := range 1<<n - 1 {
		c := bytes.Clone(b)
		for i := range n {
			if mask>>i&1 == 0 {
				clear(c[i*sector : (i+1)*sector])
			}
		}
		if s, err := scanSegment(c, info, nil); err != nil || s.last != 10 || s.end != 0 {
			t.Fatalf("sectors %b of %d: %+v %v", mask, n, s, err)
		}
	}
}

// TestDamageInTail flips each byte of an unsealed segment: none may pass for a torn batch or go unnoticed.
func TestDamageInTail(t *testing.T) {
	b, info, ends := testSegment(t, 16<<10, []int{10}, []int{700, 90}, []int{33}, []int{1200, 4})
	for at := range int(ends[3]) {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b[at] ^= flip
			if s, err := scanSegment(b, info, nil); err == nil {
				t.Fatalf("byte %d ^ %#x: taken for %+v, batches end at %v", at, flip, s, ends)
			}
			b[at] ^= flip
		}
	}
	// Garbage after the end, and a file that lost a sector in the middle.
	for _, at := range []int64{ends[3], ends[3] + 8} {
		c := bytes.Clone(b)
		c[at] = 7
		if s, err := scanSegment(c, info, nil); err == nil {
			t.Fatalf("garbage at byte %d: taken for %+v", at, s)
		}
	}
	c := bytes.Clone(b)
	clear(c[512:900])
	if s, err := scanSegment(c, info, nil); err == nil {
		t.Fatalf("a sector of zeros in the middle: taken for %+v", s)
	}
}

// FuzzScanSegment gives the reader anything at all.
func FuzzScanSegment(f *testing.F) {
	b, info, ends := testSegment(f, 4<<10, []int{10}, []int{70, 90}, []int{33})
	f.Add(b[:ends[2]], false)
	f.Add(b[:ends[1]+13], true)
	f.Fuzz(func(t *testing.T, b []byte, sealed bool) {
		info := info
		if sealed {
			info.SealTime, info.MaxIndex = time.Now(), 12
		}
		n := 0
		s, err := scanSegment(b, info, func(*raft.Log) error { n++; return nil })
		if err == nil && (s.entries != n || s.end > int64(len(b)) || s.last != info.BaseIndex+uint64(n)-1) {
			t.Fatalf("%+v, %d entries", s, n)
		}
	})
}

func FuzzEntryCodec(f *testing.F) {
	var buf bytes.Buffer
	entryCodec{}.Encode(&raft.Log{Index: 1 << 40, Term: 7, Type: raft.LogBarrier, Data: []byte("data"),
		Extensions: []byte("ext"), AppendedAt: time.Now()}, &buf)
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var l, again raft.Log
		if (entryCodec{}).Decode(b, &l) != nil {
			return
		}
		var buf bytes.Buffer
		if err := (entryCodec{}).Encode(&l, &buf); err != nil {
			t.Fatal(err)
		}
		if err := (entryCodec{}).Decode(buf.Bytes(), &again); err != nil {
			t.Fatal(err)
		}
		if again.Index != l.Index || !bytes.Equal(again.Data, l.Data) {
			t.Fatalf("%+v became %+v", l, again)
		}
	})
}

func BenchmarkScanSegment(b *testing.B) {
	var batches [][]int
	for range 20000 {
		batches = append(batches, []int{120})
	}
	seg, info, _ := testSegment(b, 4<<20, batches...)
	b.SetBytes(int64(len(seg)))
	for b.Loop() {
		if _, err := scanSegment(seg, info, nil); err != nil {
			b.Fatal(err)
		}
	}
}
