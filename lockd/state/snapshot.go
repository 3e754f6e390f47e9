package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// A snapshot is
//
//	magic       8 bytes
//	version     u32
//	record …    length u32, CRC-32C of the payload u32, payload: a statepb.Record
//	trailer     0xffffffff u32, number of records u64, CRC-32C of all before it u32
//
// with all numbers little-endian. The records are one header, then sessions, nodes, locks, ranges and delays, each by
// their number, hosts by id, and reports, suspicions and deadlocks. The same state gives the same bytes.
const (
	snapshotMagic   = "lockfsSS"
	snapshotVersion = 1
	trailerMark     = 1<<32 - 1
	trailerLen      = 4 + 8 + 4
	maxRecord       = maxValueLen + 2*maxXattrLen + 1<<16
	rangesPerRecord = 1024
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteTo writes a snapshot of the view. Entries may be applied meanwhile.
func (v *View) WriteTo(w io.Writer) (int64, error) {
	sw := newSnapshotWriter(w)
	v.records(sw.record)
	sw.trailer()
	if sw.err == nil {
		sw.err = sw.w.Flush()
	}
	if sw.err != nil {
		return sw.n, fmt.Errorf("lockfs: write a snapshot of index %d: %w", v.index, sw.err)
	}
	return sw.n, nil
}

// Digest returns a hash of all that the state is: equal on all hosts that have applied the same entries.
func (v *View) Digest() [sha256.Size]byte {
	h := sha256.New()
	if _, err := v.WriteTo(h); err != nil {
		panic(err) // a hash takes all
	}
	return [sha256.Size]byte(h.Sum(nil))
}

type snapshotWriter struct {
	w     *bufio.Writer
	sum   hash.Hash32
	n     int64
	count uint64
	err   error
	buf   []byte
	frame [8]byte
}

// newSnapshotWriter begins a snapshot.
func newSnapshotWriter(to io.Writer) *snapshotWriter {
	w := &snapshotWriter{w: bufio.NewWriterSize(to, 1<<16), sum: crc32.New(castagnoli)}
	w.write([]byte(snapshotMagic))
	w.write(binary.LittleEndian.AppendUint32(nil, snapshotVersion))
	return w
}

func (w *snapshotWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	w.sum.Write(b)
	var n int
	n, w.err = w.w.Write(b)
	w.n += int64(n)
}

// record writes one record, and reports whether to go on.
func (w *snapshotWriter) record(r *statepb.Record) bool {
	buf, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend(w.buf[:0], r)
	if err != nil {
		w.err = err
		return false
	}
	w.buf = buf
	w.payload(buf)
	return w.err == nil
}

// payload frames the bytes of a record.
func (w *snapshotWriter) payload(b []byte) {
	binary.LittleEndian.PutUint32(w.frame[:], uint32(len(b)))
	binary.LittleEndian.PutUint32(w.frame[4:], crc32.Checksum(b, castagnoli))
	w.write(w.frame[:])
	w.write(b)
	w.count++
}

func (w *snapshotWriter) trailer() {
	b := binary.LittleEndian.AppendUint32(nil, trailerMark)
	b = binary.LittleEndian.AppendUint64(b, w.count)
	w.write(b)
	w.write(binary.LittleEndian.AppendUint32(nil, w.sum.Sum32()))
}

// records yields the records of a snapshot. A record is valid until the next.
func (v *View) records(yield func(*statepb.Record) bool) {
	if !yield(v.header()) {
		return
	}
	for _, x := range v.sessions {
		if !yield(savedSession(&x.Session)) {
			return
		}
	}
	rest := true
	v.nodes.Scan(func(_ uint64, n *Node) bool {
		rest = yield(savedNode(n))
		return rest
	})
	if rest {
		v.locks.Scan(func(ino uint64, l lock) bool {
			rest = yield(savedLock(ino, l))
			return rest
		})
	}
	if rest {
		v.ranges.Scan(func(ino uint64, f *fileRanges) bool {
			rest = savedRanges(ino, f, yield)
			return rest
		})
	}
	for _, d := range v.delays {
		rest = rest && yield(&statepb.Record{Record: &statepb.Record_Delay{
			Delay: &statepb.SavedDelay{Ino: d.ino, Left: d.left, Until: d.until},
		}})
	}
	for i := range v.hosts {
		rest = rest && yield(&statepb.Record{Record: &statepb.Record_Host{Host: v.hosts[i].saved()}})
	}
	if rest {
		v.reportRecords(yield)
	}
}

func (v *View) header() *statepb.Record {
	return &statepb.Record{Record: &statepb.Record_Header{Header: &statepb.Header{
		Index: v.index, Formatted: v.formatted, NextIno: v.nextIno, LastSession: v.lastSession, Raises: v.raises,
		TokenBase: v.tokenBase, Limits: v.limits.saved(),
	}}}
}

func savedSession(x *Session) *statepb.Record {
	return &statepb.Record{Record: &statepb.Record_Session{Session: &statepb.SavedSession{
		Id: x.ID, Host: x.Host, Nonce: x.Nonce, Version: x.Version, BootId: x.BootID, Seq: x.Seq, Renewed: x.Renewed,
		Stamp: x.Stamp, Ttl: int64(x.TTL), Watches: x.Watches,
	}}}
}

func savedNode(n *Node) *statepb.Record {
	s := &statepb.SavedNode{
		Ino: n.Ino, Parent: n.Parent, Name: []byte(n.Name), Dir: n.Dir, Perm: n.Perm, Uid: n.UID, Gid: n.GID,
		Atime: n.Atime, Mtime: n.Mtime, Ctime: n.Ctime, Generation: n.Generation, Invalid: n.Invalid, Orphan: n.Orphan,
		Value: n.Value,
	}
	for _, x := range n.Xattrs {
		s.Xattrs = append(s.Xattrs, &statepb.SavedXattr{Name: []byte(x.Name), Value: x.Value})
	}
	return &statepb.Record{Record: &statepb.Record_Node{Node: s}}
}

func savedLock(ino uint64, l lock) *statepb.Record {
	s := &statepb.SavedLock{Ino: ino}
	r := &statepb.Record{Record: &statepb.Record_Lock{Lock: s}}
	c := l.more
	if c == nil {
		s.Holds = []*statepb.SavedHold{{Session: l.holder, Mode: uint32(l.mode), Raise: l.raise}}
		return r
	}
	s.Withheld = c.q.Ceiling() != queue.EX
	for i := range c.holds {
		h := &c.holds[i]
		s.Holds = append(s.Holds, &statepb.SavedHold{
			Session: h.session, Mode: uint32(c.q.Granted(h.session)), Raise: h.raise,
		})
	}
	for e := range c.q.Line() {
		w := c.wait(e.Holder)
		s.Waits = append(s.Waits, &statepb.SavedWait{
			Session: w.session, Mode: uint32(e.Wanted), Since: w.since, Try: w.try, Convert: w.convert,
			Flags: uint32(e.Flags & lastingFlags), Pid: w.pid, Comm: []byte(w.comm),
		})
	}
	return r
}

// lastingFlags are those that matter while a request waits; the others did their work when it came.
const lastingFlags = queue.AltPR | queue.AltCW

// savedRanges yields the records of a file: the locks, then the waits.
func savedRanges(ino uint64, f *fileRanges, yield func(*statepb.Record) bool) bool {
	s := &statepb.SavedRanges{Ino: ino}
	flush := func(limit int) bool {
		if len(s.Held)+len(s.Waits) < limit {
			return true
		}
		r := &statepb.Record{Record: &statepb.Record_Ranges{Ranges: s}}
		s = &statepb.SavedRanges{Ino: ino}
		return yield(r)
	}
	for i := range f.held {
		s.Held = append(s.Held, savedRange(&f.held[i]))
		if !flush(rangesPerRecord) {
			return false
		}
	}
	for i := range f.waits {
		w := &f.waits[i]
		r := savedRange(&w.Range)
		r.Id, r.Since = w.ID, w.Since
		s.Waits = append(s.Waits, r)
		if !flush(rangesPerRecord) {
			return false
		}
	}
	return flush(1)
}

func savedRange(r *Range) *statepb.SavedRange {
	return &statepb.SavedRange{Session: r.Session, Owner: r.Owner, Start: r.Start, End: r.End, Pid: r.PID, Write: r.Write, Ofd: r.OFD}
}
