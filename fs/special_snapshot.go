package fs

import (
	"bufio"
	"io"
	"syscall"

	"github.com/lockfs/lockfs/lockd"
)

// maxSnapshots is how many descriptors of .lockfs/snapshot a mount has at once: each keeps a whole state in memory.
const maxSnapshots = 2

// snapshotPiece is how much of a snapshot is ready before somebody reads it.
const snapshotPiece = 256 << 10

// snapshotFile is an open .lockfs/snapshot: the state as of the OPEN, written as fast as it is read. It is a stream: a
// READ goes on where the last one ended, and another offset is ESPIPE. A snapshot that cannot be written to its end is EIO.
type snapshotFile struct {
	fs     *FS
	pieces chan []byte   // closed by the writer at the end
	closed chan struct{} // by RELEASE: the writer ends
	failed error         // of the writer; to be looked at when pieces is closed

	turn turnstile // one reader at a time
	rest []byte
	next uint64 // offset of rest
}

var _ specialFile = (*snapshotFile)(nil)

// openSnapshot begins to write a snapshot.
func (f *FS) openSnapshot() (*snapshotFile, syscall.Errno) {
	if f.snapshots.Add(1) > maxSnapshots {
		f.snapshots.Add(-1)
		return nil, syscall.EBUSY
	}
	s := &snapshotFile{fs: f, pieces: make(chan []byte), closed: make(chan struct{})}
	f.closing.Go(func() {
		defer f.snapshots.Add(-1)
		w := bufio.NewWriterSize(snapshotWriter{s}, snapshotPiece)
		err := f.snapshot(w)
		if err == nil {
			err = w.Flush()
		}
		if err != nil && err != io.ErrClosedPipe {
			f.log.Error("writing a snapshot for a reader of .lockfs/snapshot", "error", err)
		}
		s.failed = err
		close(s.pieces)
	})
	return s, 0
}

// snapshotWriter is the end that the writer has.
type snapshotWriter struct{ *snapshotFile }

// Write hands a copy to the readers; it waits until one takes it.
func (w snapshotWriter) Write(p []byte) (int, error) {
	select {
	case w.pieces <- append([]byte(nil), p...):
		return len(p), nil
	case <-w.closed:
		return 0, io.ErrClosedPipe
	}
}

func (s *snapshotFile) read(c *lockd.Call, off uint64, buf []byte) (int, syscall.Errno) {
	if errno := s.turn.take(c, false); errno != 0 {
		return 0, errno
	}
	defer s.turn.leave()
	if off != s.next {
		return 0, syscall.ESPIPE
	}
	n := 0
	for n < len(buf) {
		if len(s.rest) == 0 {
			piece, errno := s.piece(c)
			if errno != 0 && n == 0 {
				return 0, errno
			}
			if piece == nil {
				break
			}
			s.rest = piece
		}
		copied := copy(buf[n:], s.rest)
		s.rest = s.rest[copied:]
		n += copied
	}
	s.next += uint64(n)
	return n, 0
}

// piece waits for the next piece, nil at the end.
func (s *snapshotFile) piece(c *lockd.Call) ([]byte, syscall.Errno) {
	if c.Park != nil {
		c.Park()
	}
	select {
	case piece, ok := <-s.pieces:
		if !ok && s.failed != nil {
			return nil, syscall.EIO
		}
		return piece, 0
	case <-c.Cancel:
		return nil, syscall.EINTR
	}
}

func (s *snapshotFile) poll(uint64, uint32) uint32 { return pollReadable }
func (s *snapshotFile) release()                   { close(s.closed) }
