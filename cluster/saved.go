package cluster

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
)

// An operator's snapshot is
//
//	magic    8 bytes
//	format   u32
//	header   length u32, a SnapshotInfo in JSON
//	chunk …  length u32, bytes: together a snapshot of the state, in its own format
//	end      0 u32
//	sum      SHA-256 of all before it
//
// with all numbers little-endian. So it can be written and read as a stream, and an end that is cut off is noticed.
const (
	savedMagic  = "lockfsSV"
	savedFormat = 1
	savedChunk  = 64 << 10
	maxSavedHdr = 64 << 10
)

// SnapshotInfo says what an operator's snapshot is of.
type SnapshotInfo struct {
	Cluster string    `json:"cluster"` // id
	Host    string    `json:"host"`    // name of the host that wrote it
	Index   uint64    `json:"index"`   // the entry that it is of
	Created time.Time `json:"created"`

	Nodes uint64 `json:"-"` // files and directories in it
	Bytes uint64 `json:"-"` // of their values and attributes
}

// ErrSnapshot is that of a file that is no whole and undamaged snapshot.
var ErrSnapshot = errors.New("no good snapshot")

// SaveSnapshot writes a snapshot of the state as this host has it now, for VerifySnapshot and Restore. Entries are applied
// meanwhile; they are not in it. Valid after Start.
func (n *Node) SaveSnapshot(w io.Writer) error {
	view := n.machine.view.Load()
	return saveSnapshot(w, view, SnapshotInfo{
		Cluster: n.Identity().Cluster, Host: n.Name(), Index: view.Index(), Created: time.Now().UTC(),
	})
}

func saveSnapshot(w io.Writer, view *state.View, info SnapshotInfo) error {
	header, err := json.Marshal(info)
	if err != nil {
		return err
	}
	sum := sha256.New()
	chunks := &chunkWriter{to: io.MultiWriter(w, sum)}
	b := binary.LittleEndian.AppendUint32([]byte(savedMagic), savedFormat)
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(header))), header...)
	if _, err := chunks.to.Write(b); err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(chunks, savedChunk)
	if _, err := view.WriteTo(buffered); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if _, err := chunks.to.Write(make([]byte, 4)); err != nil {
		return err
	}
	_, err = w.Write(sum.Sum(nil))
	return err
}

// chunkWriter writes each piece that it gets as a chunk.
type chunkWriter struct{ to io.Writer }

func (c *chunkWriter) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		n := min(len(rest), savedChunk)
		if _, err := c.to.Write(binary.LittleEndian.AppendUint32(nil, uint32(n))); err != nil {
			return 0, err
		}
		if _, err := c.to.Write(rest[:n]); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// VerifySnapshot reads an operator's snapshot to its end and says what it is of, or (ErrSnapshot) what is wrong with it. One
// that a newer version of lockfs wrote is an error too.
func VerifySnapshot(r io.Reader) (SnapshotInfo, error) {
	info, _, err := readSaved(r)
	return info, err
}

// readSaved reads and verifies an operator's snapshot. Whatever the bytes are, it takes memory only as they come.
func readSaved(r io.Reader) (SnapshotInfo, *state.State, error) {
	sum := sha256.New()
	c := &chunkReader{from: bufio.NewReader(r), sum: sum}
	info, err := c.header()
	if err != nil {
		return info, nil, err
	}
	s, err := state.Read(c)
	switch {
	case c.err != nil && c.err != io.EOF:
		return info, nil, c.err
	case err != nil && !errors.Is(err, state.ErrUnknown):
		return info, nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	case err != nil:
		return info, nil, err
	}
	view := s.View()
	if view.Index() != info.Index {
		return info, nil, fmt.Errorf("%w: it says that it is of entry %d and is of entry %d", ErrSnapshot, info.Index, view.Index())
	}
	info.Nodes, info.Bytes = view.Counts()
	return info, s, nil
}

// chunkReader reads the chunks' bytes, and at their end checks the sum.
type chunkReader struct {
	from *bufio.Reader
	sum  hash.Hash
	left uint32 // of the chunk
	err  error  // for all further reads
}

// take reads exactly len(b) bytes that the sum is of.
func (c *chunkReader) take(b []byte) error {
	if _, err := io.ReadFull(c.from, b); err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends too early", ErrSnapshot)
	} else if err != nil {
		return err
	}
	c.sum.Write(b)
	return nil
}

func (c *chunkReader) header() (info SnapshotInfo, err error) {
	var b [len(savedMagic) + 8]byte
	if err := c.take(b[:len(savedMagic)]); err != nil {
		return info, err
	}
	if string(b[:len(savedMagic)]) != savedMagic {
		return info, fmt.Errorf("%w: it does not begin as one of lockfs does", ErrSnapshot)
	}
	if err := c.take(b[len(savedMagic):]); err != nil {
		return info, err
	}
	if format := binary.LittleEndian.Uint32(b[len(savedMagic):]); format != savedFormat {
		return info, fmt.Errorf("the snapshot is of format %d and this program knows format %d only: "+
			"use the version of lockfs that wrote it, or a newer one", format, savedFormat)
	}
	n := binary.LittleEndian.Uint32(b[len(savedMagic)+4:])
	if n > maxSavedHdr {
		return info, fmt.Errorf("%w: a header of %d bytes", ErrSnapshot, n)
	}
	header := make([]byte, n)
	if err := c.take(header); err != nil {
		return info, err
	}
	if err := json.Unmarshal(header, &info); err != nil {
		return info, fmt.Errorf("%w: its header: %w", ErrSnapshot, err)
	}
	return info, nil
}

func (c *chunkReader) Read(b []byte) (int, error) {
	if c.err == nil && c.left == 0 {
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	n := min(len(b), int(c.left))
	if c.err = c.take(b[:n]); c.err != nil {
		return 0, c.err
	}
	c.left -= uint32(n)
	return n, nil
}

// next begins the next chunk; io.EOF after the last.
func (c *chunkReader) next() error {
	var b [4]byte
	if err := c.take(b[:]); err != nil {
		return err
	}
	c.left = binary.LittleEndian.Uint32(b[:])
	if c.left > savedChunk {
		return fmt.Errorf("%w: a chunk of %d bytes", ErrSnapshot, c.left)
	}
	if c.left > 0 {
		return nil
	}
	want := c.sum.Sum(nil)
	have := make([]byte, len(want))
	if err := c.take(have); err != nil {
		return err
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("%w: its checksum does not match", ErrSnapshot)
	}
	if _, err := c.from.ReadByte(); err == nil {
		return fmt.Errorf("%w: something follows its end", ErrSnapshot)
	} else if err != io.EOF {
		return err
	}
	return io.EOF
}
