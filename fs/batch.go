package fs

import (
	"slices"
	"syscall"
)

// batch is the uncommitted change of the value made through one handle (DESIGN 1.4). It starts with O_TRUNC or the
// first write, on the value of that moment, and ends with a commit, a failure or a discard. The zero batch is none.
//
//	          O_TRUNC                write                      commit
//	none ───────────────► truncated ───────► dirty ──────────────────────► none
//	  └───────────────── write ────────────────▲ │ refused write, failed commit
//	                                             └──────────► spoiled ── FLUSH ──► none
//
// A truncated batch is no write yet: it commits with the first write, or at RELEASE.
type batch struct {
	state   batchState
	base    uint64        // generation of the value that it builds on
	late    bool          // base is that of the first write: O_TRUNC came before the lock
	data    []byte        // the whole new value
	spoiled syscall.Errno // the error that spoiled it
	writers []uint64      // lock owners that wrote since the last commit
	anyone  bool          // somebody wrote whose owner is not known (a page of a mapping)
}

type batchState uint8

const (
	batchNone batchState = iota
	batchTruncated
	batchDirty
	batchSpoiled
)

// valueLimit is how long a value may get, and the errno of what goes beyond.
type valueLimit struct {
	size  int
	errno syscall.Errno
}

// begin starts a batch on a value, if there is none. The value is not written to.
func (b *batch) begin(value []byte, generation uint64) {
	if b.state == batchNone && b.data == nil {
		b.base, b.data = generation, slices.Clone(value)
	}
	if b.late {
		b.base, b.late = generation, false
	}
}

// truncate is O_TRUNC at the open, of a lock that is granted or is not yet.
func (b *batch) truncate(generation uint64, granted bool) {
	*b = batch{state: batchTruncated, base: generation, late: !granted}
}

// write puts p at off, or at the end, filling a gap with zeros. The batch must have begun. Beyond the limit nothing is
// written and the batch is spoiled.
func (b *batch) write(p []byte, off uint64, atEnd bool, limit valueLimit) syscall.Errno {
	if b.state == batchSpoiled {
		return b.spoiled
	}
	if atEnd {
		off = uint64(len(b.data))
	}
	if off > uint64(limit.size) || uint64(len(p)) > uint64(limit.size)-off {
		return b.spoil(limit.errno)
	}
	b.data = putAt(b.data, int(off), p)
	b.state = batchDirty
	return 0
}

// resize is ftruncate(2). The batch must have begun.
func (b *batch) resize(size uint64, limit valueLimit) syscall.Errno {
	switch {
	case b.state == batchSpoiled:
		return b.spoiled
	case size > uint64(limit.size):
		return b.spoil(limit.errno)
	case size <= uint64(len(b.data)):
		b.data = b.data[:size]
	default:
		b.data = append(b.data, make([]byte, int(size)-len(b.data))...)
	}
	b.state = batchDirty
	return 0
}

// replace makes v, which becomes the batch's own, the whole new value on that generation, whatever was there.
func (b *batch) replace(v []byte, generation uint64) {
	*b = batch{state: batchDirty, base: generation, data: v}
}

// wroteBy notes who wrote: the lock owner of the WRITE, if it came with one.
func (b *batch) wroteBy(owner uint64, known bool) {
	switch {
	case !known:
		b.anyone = true
	case !slices.Contains(b.writers, owner):
		b.writers = append(b.writers, owner)
	}
}

// wrote reports whether a FLUSH of that lock owner is a writer's.
func (b *batch) wrote(owner uint64) bool {
	return b.anyone || slices.Contains(b.writers, owner)
}

// spoil makes every later write, fsync and close fail with errno, until FLUSH takes the batch away.
func (b *batch) spoil(errno syscall.Errno) syscall.Errno {
	b.state, b.spoiled, b.data = batchSpoiled, errno, nil
	return errno
}

// discard ends the batch.
func (b *batch) discard() { *b = batch{} }

// visible returns what the handle itself reads, and whether that is something else than the committed value.
func (b *batch) visible() ([]byte, bool) {
	return b.data, b.state == batchDirty || b.state == batchTruncated
}

// putAt returns v with p at off, longer and with zeros in a gap as needed.
func putAt(v []byte, off int, p []byte) []byte {
	if end := off + len(p); end > len(v) {
		v = slices.Grow(v, end-len(v))
		was := len(v)
		v = v[:end]
		if off > was {
			clear(v[was:off])
		}
	}
	copy(v[off:], p)
	return v
}
