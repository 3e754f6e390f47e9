package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// castagnoli is the table of CRC-32C, for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entryCodec is how one raft.Log lies in the log:
//
//	crc-32c of the rest (u32)  bytes in all (u32)  index  term  type  appended (ns)  len(extensions)  extensions  data
//
// The two u32 are little-endian, the others varints; the data goes to the end. raft-wal checks a CRC only of the last batch, when it opens a log;
// with this one every entry is checked whenever it is read.
type entryCodec struct{}

// codecID names the layout above in each segment's header. A changed layout gets a new one.
const codecID = wal.FirstExternalCodecID + 0x1f501

// entryHeader is the bytes of the two u32.
const entryHeader = 8

// entrySize returns how many bytes the entry that starts with b has, by its own word.
func entrySize(b []byte) int64 { return int64(binary.LittleEndian.Uint32(b[4:])) }

var errEntry = errors.New("the entry's checksum does not match its data")

func (entryCodec) ID() uint64 { return codecID }

func (entryCodec) Encode(l *raft.Log, w io.Writer) error {
	var head [entryHeader + 5*binary.MaxVarintLen64]byte
	b := binary.AppendUvarint(head[:entryHeader], l.Index)
	b = binary.AppendUvarint(b, l.Term)
	b = binary.AppendUvarint(b, uint64(l.Type))
	b = binary.AppendVarint(b, unixNano(l.AppendedAt))
	b = binary.AppendUvarint(b, uint64(len(l.Extensions)))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)+len(l.Extensions)+len(l.Data)))
	sum := crc32.Update(0, castagnoli, b[4:])
	sum = crc32.Update(sum, castagnoli, l.Extensions)
	sum = crc32.Update(sum, castagnoli, l.Data)
	binary.LittleEndian.PutUint32(b, sum)
	if buf, ok := w.(*bytes.Buffer); ok {
		buf.Grow(len(b) + len(l.Extensions) + len(l.Data))
	}
	for _, part := range [][]byte{b, l.Extensions, l.Data} {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return nil
}

// Decode checks the CRC and fills l, which shares no memory with b.
func (entryCodec) Decode(b []byte, l *raft.Log) error {
	if len(b) < entryHeader || entrySize(b) != int64(len(b)) || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
		return errEntry
	}
	d := varints{b: b[entryHeader:]}
	index, term, kind := d.next(), d.next(), d.next()
	appended := d.nextSigned()
	ext := d.next()
	if d.bad || kind > 0xff || ext > uint64(len(d.b)) {
		return fmt.Errorf("an entry is laid out as this version does not know it")
	}
	*l = raft.Log{Index: index, Term: term, Type: raft.LogType(kind), AppendedAt: fromUnixNano(appended)}
	l.Extensions = append([]byte(nil), d.b[:ext]...)
	l.Data = append([]byte(nil), d.b[ext:]...)
	return nil
}

// varints reads numbers off the front of b; bad once one was cut off.
type varints struct {
	b   []byte
	bad bool
}

func (d *varints) next() uint64 {
	v, n := binary.Uvarint(d.b)
	return v * d.step(n)
}

func (d *varints) nextSigned() int64 {
	v, n := binary.Varint(d.b)
	return v * int64(d.step(n))
}

// step advances by a varint's length and is 0 if there was none.
func (d *varints) step(n int) uint64 {
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return 1
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnixNano(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
