package fs

import (
	"bytes"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

var testLimit = valueLimit{size: 16, errno: syscall.EFBIG}

func TestBatchSpoils(t *testing.T) {
	var b batch
	b.begin([]byte("old"), 7)
	if errno := b.write([]byte("new"), 0, false, testLimit); errno != 0 || b.base != 7 {
		t.Fatalf("write: %v, base %d", errno, b.base)
	}
	if errno := b.write([]byte("x"), 16, false, testLimit); errno != syscall.EFBIG {
		t.Fatalf("write past the limit: %v", errno)
	}
	if errno := b.write([]byte("x"), 0, false, testLimit); errno != syscall.EFBIG {
		t.Errorf("write after a refused one: %v", errno)
	}
	if errno := b.resize(0, testLimit); errno != syscall.EFBIG {
		t.Errorf("resize after a refused one: %v", errno)
	}
	if _, own := b.visible(); own {
		t.Error("a spoiled batch is still read")
	}
	b.discard()
	b.begin([]byte("old"), 8)
	if errno := b.write([]byte("N"), 0, false, testLimit); errno != 0 || string(b.data) != "Nld" {
		t.Errorf("write after the discard: %v, %q", errno, b.data)
	}
}

func TestBatchTruncatedIsNoWrite(t *testing.T) {
	var b batch
	b.truncate(3, true)
	if v, own := b.visible(); !own || len(v) != 0 || b.state != batchTruncated || b.wrote(1) {
		t.Fatalf("after O_TRUNC: %+v", b)
	}
	b.begin([]byte("old value"), 4)
	if errno := b.write([]byte("new"), 0, false, testLimit); errno != 0 || string(b.data) != "new" || b.base != 3 {
		t.Fatalf("first write after O_TRUNC: %v, %+v", errno, b)
	}
}

func TestBatchWriters(t *testing.T) {
	var b batch
	b.begin(nil, 0)
	b.wroteBy(5, true)
	b.wroteBy(5, true)
	if !b.wrote(5) || b.wrote(6) || len(b.writers) != 1 {
		t.Errorf("writers %v", b.writers)
	}
	b.wroteBy(0, false)
	if !b.wrote(6) {
		t.Error("a write of nobody known must let any FLUSH commit")
	}
}

// TestBatchModel compares write and resize with what POSIX says of a file, made of a fixed array.
func TestBatchModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old := rapid.SliceOfN(rapid.Byte(), 0, testLimit.size).Draw(t, "old")
		kept := bytes.Clone(old)
		var file [16]byte
		size := copy(file[:], old)
		var b batch
		b.begin(old, 1)
		for range rapid.IntRange(0, 8).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "resize") {
				n := rapid.IntRange(0, testLimit.size).Draw(t, "size")
				clear(file[min(n, size):])
				size = n
				if errno := b.resize(uint64(n), testLimit); errno != 0 {
					t.Fatal(errno)
				}
			} else {
				atEnd := rapid.Bool().Draw(t, "append")
				off := rapid.IntRange(0, testLimit.size).Draw(t, "off")
				at := off
				if atEnd {
					at = size
				}
				p := rapid.SliceOfN(rapid.Byte(), 1, testLimit.size).Draw(t, "p")
				p = p[:min(len(p), testLimit.size-at)]
				if len(p) == 0 {
					continue
				}
				copy(file[at:], p)
				size = max(size, at+len(p))
				if errno := b.write(p, uint64(off), atEnd, testLimit); errno != 0 {
					t.Fatal(errno)
				}
			}
			if got, _ := b.visible(); !bytes.Equal(got, file[:size]) {
				t.Fatalf("value %q, want %q", got, file[:size])
			}
			if !bytes.Equal(old, kept) {
				t.Fatal("the committed value was written to")
			}
		}
	})
}
