package cluster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

// raft-wal reads its last segment up to the first thing that is no frame and takes that for the end, since a crash
// leaves a torn batch there. So damage in the middle would silently drop what was acknowledged. scanSegment
// tells the two apart. A torn batch is one that was being written when the machine stopped: the last one of all,
// of which some sectors are on disk and the others are still zeros, because a segment is made of zeros. All
// else is damage: bytes that are neither, a batch with every sector there and a wrong checksum, a good batch further on.
//
// Layout of a segment (raft-wal v0.4.0, segment/format.go), all little-endian:
//
//	header   magic u32, reserved, version u8 @7, base index u64 @8, segment id u64 @16, codec u64 @24
//	frames   kind u8, 0 0 0, length u32 (or the CRC, in a commit), payload, zeros to a multiple of 8
//	batch    entry frames, an index frame if the segment is full (offset u32 of each entry), a commit frame with the
//	         CRC-32C of all since the last commit (the first one's includes the header)
const (
	segMagic  = 0x58eb6b0d
	segHeader = 32
	segFrame  = 8
	sector    = 512

	frameEntry  = 1
	frameIndex  = 2
	frameCommit = 3
)

// scan is what a segment holds.
type scan struct {
	last       uint64 // index of the last entry, base-1 if there is none
	lastTerm   uint64
	indexStart uint64 // where the index of a full segment starts, else 0
	end        int64  // of the last good batch
	torn       bool   // an unfinished batch follows the last good one
	entries    int
}

// scanSegment verifies the bytes of a segment. visit, which may be nil, gets every entry.
func scanSegment(b []byte, info types.SegmentInfo, visit func(*raft.Log) error) (scan, error) {
	s := scan{last: info.BaseIndex - 1}
	var offsets []uint32
	for {
		batch, problem := readBatch(b, s.end, info, s.last+1)
		if problem != nil {
			if problem == errNoBatch {
				return s, s.finish(info)
			}
			if s.indexStart == 0 && torn(b, s.end, info, s.last+1) {
				s.torn = true
				return s, s.finish(info)
			}
			return s, fmt.Errorf("after entry %d, at byte %d: %w", s.last, s.end, problem)
		}
		if s.indexStart != 0 {
			return s, fmt.Errorf("at byte %d: entries follow the index of a full segment", s.end)
		}
		for _, l := range batch.logs {
			if l.Term < s.lastTerm {
				return s, fmt.Errorf("entry %d: its term %d is older than the one before (%d)", l.Index, l.Term, s.lastTerm)
			}
			s.last, s.lastTerm = l.Index, l.Term
			s.entries++
			if visit != nil {
				if err := visit(l); err != nil {
					return s, err
				}
			}
		}
		offsets = append(offsets, batch.offsets...)
		if batch.indexStart != 0 {
			if !equalIndex(b[batch.indexStart:], batch.indexLen, offsets) {
				return s, fmt.Errorf("at byte %d: the index does not match the entries", batch.indexStart)
			}
			s.indexStart = uint64(batch.indexStart)
		}
		s.end = batch.end
	}
}

// finish checks what was found against what lockfs.db knows of the segment.
func (s *scan) finish(info types.SegmentInfo) error {
	sealed := !info.SealTime.IsZero()
	switch {
	case sealed && s.last < info.MaxIndex:
		return fmt.Errorf("it ends with entry %d and should have entries up to %d", s.last, info.MaxIndex)
	case sealed && info.IndexStart != 0 && (s.torn || s.indexStart != info.IndexStart):
		return fmt.Errorf("it is full but its index is not where it should be")
	}
	return nil
}

type batch struct {
	logs       []*raft.Log
	offsets    []uint32
	indexStart int64
	indexLen   int
	end        int64
}

var errNoBatch = fmt.Errorf("no more entries")

// readBatch reads the batch that starts at byte start (0: with the header), errNoBatch if there are but zeros.
func readBatch(b []byte, start int64, info types.SegmentInfo, next uint64) (*batch, error) {
	if zeros(b[min(start, int64(len(b))):]) {
		return nil, errNoBatch
	}
	at := start
	if start == 0 {
		if err := checkHeader(b, info); err != nil {
			return nil, err
		}
		at = segHeader
	}
	out := &batch{}
	for {
		f, err := readFrame(b, at)
		if err != nil {
			return nil, err
		}
		switch f.kind {
		case 0:
			return nil, fmt.Errorf("a batch of entries is unfinished")
		case frameEntry:
			out.offsets = append(out.offsets, uint32(at))
		case frameIndex:
			out.indexStart, out.indexLen = f.start, int(f.end-f.start)
		case frameCommit:
			if crc32.Checksum(b[start:at], castagnoli) != f.crc {
				return nil, fmt.Errorf("the checksum of a batch of entries does not match")
			}
			out.end = f.next
			return out, out.decode(b, next)
		}
		at = f.next
	}
}

// decode decodes the entries, which must continue the log.
func (o *batch) decode(b []byte, next uint64) error {
	if len(o.offsets) == 0 {
		return fmt.Errorf("a batch has no entries")
	}
	for _, off := range o.offsets {
		f, err := readFrame(b, int64(off))
		if err != nil {
			return err
		}
		l := new(raft.Log)
		if err := (entryCodec{}).Decode(b[f.start:f.end], l); err != nil {
			return fmt.Errorf("entry %d: %w", next, err)
		}
		if l.Index != next {
			return fmt.Errorf("entry %d is in the place of entry %d", l.Index, next)
		}
		o.logs = append(o.logs, l)
		next++
	}
	return nil
}

// frame is one frame: its payload is b[start:end].
type frame struct {
	kind             byte
	crc              uint32
	start, end, next int64
}

// readFrame reads the frame at byte at; past the end of the file there are zeros.
func readFrame(b []byte, at int64) (frame, error) {
	if at+segFrame > int64(len(b)) {
		return frame{}, nil
	}
	h := b[at : at+segFrame]
	n := binary.LittleEndian.Uint32(h[4:])
	f := frame{kind: h[0], start: at + segFrame, end: at + segFrame, next: at + segFrame}
	if h[1]|h[2]|h[3] != 0 {
		return f, fmt.Errorf("a frame's header is damaged")
	}
	switch f.kind {
	case 0:
		if n != 0 {
			return f, fmt.Errorf("a frame's header is damaged")
		}
	case frameCommit:
		f.crc = n
	case frameEntry, frameIndex:
		f.end = f.start + int64(n)
		f.next = f.start + (int64(n)+segFrame-1)&^(segFrame-1)
		if f.next > int64(len(b)) {
			return f, fmt.Errorf("a frame leads past the end of the file")
		}
	default:
		return f, fmt.Errorf("a frame is of an unknown kind (%d)", f.kind)
	}
	return f, nil
}

func checkHeader(b []byte, info types.SegmentInfo) error {
	if len(b) < segHeader {
		return fmt.Errorf("the file's header is missing")
	}
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }
	switch {
	case binary.LittleEndian.Uint32(b) != segMagic || b[4]|b[5]|b[6]|b[7] != 0:
		return fmt.Errorf("the file's header is damaged")
	case u64(8) != info.BaseIndex || u64(16) != info.ID:
		return fmt.Errorf("the file is another segment's: it says entry %d, segment %d", u64(8), u64(16))
	case u64(24) != codecID:
		return fmt.Errorf("its entries are laid out in a way that this version does not know (%#x)", u64(24))
	}
	return nil
}

// torn says whether what starts at byte start can be a batch that a crash kept from being written whole.
func torn(b []byte, start int64, info types.SegmentInfo, next uint64) bool {
	if goodBatchAfter(b, start, info, next) {
		return false
	}
	at := start
	if start == 0 {
		if missing(b, 0, 0, segHeader) {
			return true
		}
		if checkHeader(b, info) != nil {
			return false
		}
		at = segHeader
	}
	for {
		if missing(b, start, at, at+segFrame) {
			return true
		}
		h := b[at : at+segFrame]
		n := int64(binary.LittleEndian.Uint32(h[4:]))
		switch {
		case h[1]|h[2]|h[3] != 0:
			return false
		case h[0] == frameEntry:
			body := at + segFrame
			if !missing(b, start, body, body+entryHeader) && entrySize(b[body:]) != n {
				return false
			}
			next++
		case h[0] == frameIndex:
			if n != 4*int64(next-info.BaseIndex) {
				return false
			}
		default: // no frame, or the commit that makes the batch whole
			return false
		}
		end := at + segFrame + (n+segFrame-1)&^(segFrame-1)
		if missing(b, start, at, end) {
			return true
		}
		at = end
	}
}

// missing says whether a sector of b[from:to] never came to disk: the part of it that belongs to the batch, which
// starts at byte start, is zeros or past the end of the file.
func missing(b []byte, start, from, to int64) bool {
	if to > int64(len(b)) {
		return true
	}
	for s := from &^ (sector - 1); s < to; s += sector {
		if zeros(b[max(s, start):min(s+sector, int64(len(b)))]) {
			return true
		}
	}
	return false
}

// goodBatchAfter says whether a whole batch of later entries follows somewhere after byte start.
func goodBatchAfter(b []byte, start int64, info types.SegmentInfo, next uint64) bool {
	for at := start + segFrame; at+2*segFrame < int64(len(b)); at += segFrame {
		if b[at] != frameEntry || b[at+1]|b[at+2]|b[at+3] != 0 {
			continue
		}
		f, err := readFrame(b, at)
		if err != nil {
			continue
		}
		var l raft.Log
		if (entryCodec{}).Decode(b[f.start:f.end], &l) != nil || l.Index <= next {
			continue
		}
		if _, err := readBatch(b, at, info, l.Index); err == nil {
			return true
		}
	}
	return false
}

func equalIndex(b []byte, n int, offsets []uint32) bool {
	if n != 4*len(offsets) {
		return false
	}
	for i, o := range offsets {
		if binary.LittleEndian.Uint32(b[4*i:]) != o {
			return false
		}
	}
	return true
}

var zeroPage [4096]byte

func zeros(b []byte) bool {
	for len(b) > len(zeroPage) {
		if !bytes.Equal(b[:len(zeroPage)], zeroPage[:]) {
			return false
		}
		b = b[len(zeroPage):]
	}
	return bytes.Equal(b, zeroPage[:len(b)])
}
