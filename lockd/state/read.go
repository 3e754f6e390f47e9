package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Read reads a snapshot, to its end. Whatever the bytes are, it returns a state that [State.Check] finds nothing wrong
// with, or an error, and takes no more memory than a small multiple of the bytes it was given.
func Read(r io.Reader) (*State, error) {
	sr := &snapshotReader{r: bufio.NewReaderSize(r, 1<<16), sum: crc32.New(castagnoli)}
	s, err := sr.read()
	if err != nil {
		todo := "use another snapshot, or reset this host and join again"
		if errors.Is(err, ErrUnknown) {
			todo = "install the version of lockfs that wrote it"
		}
		return nil, fmt.Errorf("lockfs: read a snapshot: %w, after %d bytes; %s", err, sr.n, todo)
	}
	return s, nil
}

// Rebase makes the state that of an operator's restored snapshot: all sessions, locks and waits end, and 2^36 is
// added to the token base, so that no token of the time since the snapshot was taken comes again (DESIGN 3.5). What a
// session held in PW or EX becomes invalid; nothing is withheld for a lockdelay. The list of hosts is empty: they were
// another cluster's.
func (s *State) Rebase() {
	s.index, s.now = s.cur.index, 0
	for len(s.cur.sessions) > 0 {
		s.endSession(&statepb.EndSession{Session: s.cur.sessions[0].ID, Reason: statepb.EndReason_RESTART})
	}
	var over []uint64
	for _, d := range s.cur.delays {
		over = append(over, d.ino)
	}
	s.cur.delays = nil
	s.unwithhold(over)
	s.cur.tokenBase += 1 << 36
	s.cur.hosts, s.cur.cycles = nil, nil
	s.suspects, s.cur.unsearched = nil, nil
	s.dirty |= partRest
	s.changes = nil
}

type snapshotReader struct {
	r     *bufio.Reader
	sum   hash.Hash32
	n     int64
	count uint64
	stage int // of the record read last: the order of statepb.Record's fields
	last  uint64
	buf   []byte
	s     *State
}

func (r *snapshotReader) read() (*State, error) {
	head, err := r.take(uint32(len(snapshotMagic) + 4))
	if err != nil {
		return nil, err
	}
	version := binary.LittleEndian.Uint32(head[len(snapshotMagic):])
	switch {
	case string(head[:len(snapshotMagic)]) != snapshotMagic:
		return nil, fmt.Errorf("%w: it does not begin as a snapshot does", ErrCorrupt)
	case version != snapshotVersion:
		return nil, fmt.Errorf("%w: snapshot version %d, this one knows version %d", ErrUnknown, version, snapshotVersion)
	}
	r.s = New()
	r.s.cur.nodes.Delete(Root)
	for {
		more, err := r.record()
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
	}
	if r.count == 0 {
		return nil, fmt.Errorf("%w: nothing in it", ErrCorrupt)
	}
	r.s.graph = graphOf(&r.s.cur)
	if err := r.s.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return r.s, nil
}

// takeAtOnce is how many bytes memory is taken for before they have come.
const takeAtOnce = 64 << 10

// take reads n bytes, valid until the next call. It takes memory as the bytes come, not for what a length claims.
func (r *snapshotReader) take(n uint32) ([]byte, error) {
	buf := r.buf[:0]
	for left := int(n); left > 0; {
		part := min(left, takeAtOnce)
		at := len(buf)
		buf = slices.Grow(buf, part)[:at+part]
		got, err := io.ReadFull(r.r, buf[at:])
		r.n += int64(got)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, fmt.Errorf("%w: it ends too early", ErrCorrupt)
		}
		if err != nil {
			return nil, err
		}
		left -= part
	}
	r.buf = buf
	r.sum.Write(buf)
	return buf, nil
}

// record reads one record; false after the trailer.
func (r *snapshotReader) record() (bool, error) {
	b, err := r.take(4)
	if err != nil {
		return false, err
	}
	n := binary.LittleEndian.Uint32(b)
	if n == trailerMark {
		return false, r.trailer()
	}
	if n > maxRecord {
		return false, fmt.Errorf("%w: a record of %d bytes", ErrCorrupt, n)
	}
	if b, err = r.take(4); err != nil {
		return false, err
	}
	want := binary.LittleEndian.Uint32(b)
	if b, err = r.take(n); err != nil {
		return false, err
	}
	if crc32.Checksum(b, castagnoli) != want {
		return false, fmt.Errorf("%w: checksum of record %d", ErrCorrupt, r.count)
	}
	rec := new(statepb.Record)
	if err := proto.Unmarshal(b, rec); err != nil {
		return false, fmt.Errorf("%w: record %d: %w", ErrCorrupt, r.count, err)
	}
	if err := r.load(rec); err != nil {
		return false, fmt.Errorf("record %d: %w", r.count, err)
	}
	r.count++
	return true, nil
}

func (r *snapshotReader) trailer() error {
	b, err := r.take(8)
	if err != nil {
		return err
	}
	if n := binary.LittleEndian.Uint64(b); n != r.count {
		return fmt.Errorf("%w: %d records of %d", ErrCorrupt, r.count, n)
	}
	want := r.sum.Sum32()
	if b, err = r.take(4); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != want {
		return fmt.Errorf("%w: checksum of the whole", ErrCorrupt)
	}
	if _, err := r.r.ReadByte(); err != io.EOF {
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: something follows the end", ErrCorrupt)
	}
	return nil
}

// load takes a record into the state. What Check does not see, because trees have keys only once, is the order.
func (r *snapshotReader) load(rec *statepb.Record) error {
	if err := fields(rec); err != nil {
		return err
	}
	if (r.count == 0) != (rec.GetHeader() != nil) {
		return fmt.Errorf("%w: the header is to be the first record", ErrCorrupt)
	}
	v := &r.s.cur
	switch x := rec.Record.(type) {
	case *statepb.Record_Header:
		return r.header(x.Header)
	case *statepb.Record_Session:
		return r.in(2, x.Session.Id, x.Session, func() error { return v.loadSession(x.Session) })
	case *statepb.Record_Node:
		return r.in(3, x.Node.Ino, x.Node, func() error { return v.loadNode(x.Node) })
	case *statepb.Record_Lock:
		return r.in(4, x.Lock.Ino, x.Lock, func() error { return v.loadLock(x.Lock) })
	case *statepb.Record_Ranges:
		return r.in(5, x.Ranges.Ino, x.Ranges, func() error { return v.loadRanges(x.Ranges) })
	case *statepb.Record_Delay:
		return r.in(6, x.Delay.Ino, x.Delay, func() error {
			v.delays = append(v.delays, delay{ino: x.Delay.Ino, left: x.Delay.Left, until: x.Delay.Until})
			return nil
		})
	case *statepb.Record_Host:
		return r.in(7, uint64(len(v.hosts)), x.Host, func() error {
			v.hosts = append(v.hosts, loadedHost(x.Host))
			return nil
		})
	case *statepb.Record_Report:
		return r.in(8, x.Report.GetReport().GetIno(), x.Report, func() error { return v.loadReport(x.Report) })
	case *statepb.Record_Suspicion:
		return r.in(9, x.Suspicion.Id, x.Suspicion, func() error { return v.loadSuspicion(x.Suspicion) })
	case *statepb.Record_Deadlock:
		return r.in(10, uint64(len(v.cycles)), x.Deadlock, func() error { return v.loadCycle(x.Deadlock) })
	case *statepb.Record_Unsearched:
		return r.in(11, uint64(len(v.unsearched)), x.Unsearched, func() error {
			v.unsearched = append(v.unsearched, ReportKey{Ino: x.Unsearched.Ino, Session: x.Unsearched.Session, ID: x.Unsearched.Id})
			return nil
		})
	}
	return fmt.Errorf("%w: empty", ErrCorrupt)
}

// in checks the place of a record before it is loaded: kinds follow each other and numbers grow, but that a file's
// ranges may be spread over several records, and it may have several reports. (The order of hosts is for Check: their ids are no numbers.)
func (r *snapshotReader) in(stage int, number uint64, m proto.Message, load func() error) error {
	if err := fields(m); err != nil {
		return err
	}
	if stage < r.stage || stage == r.stage && (number < r.last || number == r.last && stage != 5 && stage != 8) {
		return fmt.Errorf("%w: out of order", ErrCorrupt)
	}
	r.stage, r.last = stage, number
	return load()
}

func (r *snapshotReader) header(h *statepb.Header) error {
	if err := fields(h); err != nil {
		return err
	}
	if h.Limits == nil {
		return fmt.Errorf("%w: no limits", ErrCorrupt)
	}
	if err := fields(h.Limits); err != nil {
		return err
	}
	l, ok := Limits{}.with(h.Limits)
	if !ok {
		return fmt.Errorf("%w: limits %v", ErrCorrupt, h.Limits)
	}
	v := &r.s.cur
	v.index, v.formatted, v.nextIno, v.lastSession = h.Index, h.Formatted, h.NextIno, h.LastSession
	v.raises, v.tokenBase, v.limits = h.Raises, h.TokenBase, l
	return nil
}

func (v *View) loadSession(x *statepb.SavedSession) error {
	if len(v.sessions) == maxSessions {
		return fmt.Errorf("%w: too many sessions", ErrCorrupt)
	}
	v.sessions = append(v.sessions, &session{Session: Session{
		ID: x.Id, Host: x.Host, Nonce: x.Nonce, Version: x.Version, BootID: x.BootId, Seq: x.Seq, Renewed: x.Renewed,
		Stamp: x.Stamp, TTL: ttl(x.Ttl), Watches: x.Watches,
	}})
	return nil
}

func (v *View) loadNode(x *statepb.SavedNode) error {
	n := &Node{
		Ino: x.Ino, Parent: x.Parent, Name: string(x.Name), Dir: x.Dir, Perm: x.Perm, UID: x.Uid, GID: x.Gid,
		Atime: x.Atime, Mtime: x.Mtime, Ctime: x.Ctime, Generation: x.Generation, Invalid: x.Invalid, Orphan: x.Orphan,
		Value: x.Value,
	}
	for _, a := range x.Xattrs {
		if err := fields(a); err != nil {
			return err
		}
		n.Xattrs = append(n.Xattrs, Attribute{Name: string(a.Name), Value: a.Value})
	}
	if e, _ := n.Xattr(XattrEphemeral); string(e) == "1" {
		n.Ephemeral = true
	}
	v.nodes.Load(n.Ino, n)
	v.bytes += n.weight()
	switch {
	case n.Orphan != 0:
		v.orphans.Load(n.Ino, n.Orphan)
	case n.Ino != Root:
		if _, twice := v.names.Set(dirent{parent: n.Parent, name: n.Name, ino: n.Ino}); twice {
			return fmt.Errorf("%w: node %d has the name of another", ErrCorrupt, n.Ino)
		}
	}
	return nil
}

// loadLock queues up again what was queued: first the locks that are held, then the waits in their order. None of
// these can be granted, or it would have been.
func (v *View) loadLock(x *statepb.SavedLock) error {
	bad := badLock(x.Ino)
	if len(x.Holds) > len(v.sessions) || len(x.Waits) > len(v.sessions) {
		return bad
	}
	for _, h := range x.Holds {
		if err := fields(h); err != nil {
			return err
		}
		if h.Mode > uint32(queue.EX) || !queue.Mode(h.Mode).Valid() || h.Raise >= maxCounter {
			return bad
		}
	}
	if !x.Withheld && len(x.Waits) == 0 && len(x.Holds) <= 1 {
		if len(x.Holds) == 0 {
			return bad
		}
		h := x.Holds[0]
		v.locks.Set(x.Ino, lock{holder: h.Session, raise: h.Raise, mode: queue.Mode(h.Mode)})
		v.countLock(h.Session)
		return nil
	}
	c := newContention(0)
	for _, h := range x.Holds {
		m := queue.Mode(h.Mode)
		if c.hold(h.Session) != nil {
			return bad
		}
		if _, ok := c.q.TryGrant(queue.Request[uint64]{Holder: h.Session, Mode: m}); !ok {
			return bad
		}
		c.addHold(hold{session: h.Session, raise: h.Raise})
		v.countLock(h.Session)
	}
	if x.Withheld {
		c.q.SetCeiling(withheld)
	}
	for _, w := range x.Waits {
		if err := fields(w); err != nil {
			return err
		}
		if !c.restore(w) {
			return bad
		}
		if c.hold(w.Session) == nil {
			v.countLock(w.Session)
		}
	}
	for i := range c.holds {
		c.holds[i].recalls = c.recalls(c.holds[i].session)
	}
	v.locks.Set(x.Ino, lock{more: c})
	return nil
}

// badLock is the error of a lock that cannot be; as a number it costs nothing where all is well.
type badLock uint64

func (ino badLock) Error() string {
	return fmt.Sprintf("%v: locks of node %d", ErrCorrupt, uint64(ino))
}

func (badLock) Unwrap() error { return ErrCorrupt }

// restore queues a saved wait.
func (c *contention) restore(w *statepb.SavedWait) bool {
	m := queue.Mode(w.Mode)
	flags := queue.Flags(w.Flags)
	if w.Mode > uint32(queue.EX) || !m.Valid() || c.wait(w.Session) != nil || flags&^lastingFlags != 0 {
		return false
	}
	r := queue.Request[uint64]{Holder: w.Session, Mode: m, Flags: flags}
	out := queue.Refused
	if w.Convert {
		if c.q.Granted(w.Session) == queue.None {
			return false
		}
		r.Flags |= queue.QueCvt // it stays behind those before it
		out, _, _ = c.q.Convert(r)
	} else {
		out, _ = c.q.Request(r)
	}
	c.addWait(wait{session: w.Session, since: w.Since, try: w.Try, convert: w.Convert, pid: w.Pid, comm: string(w.Comm)})
	return out == queue.Waiting && len(w.Comm) <= maxComm
}

func (v *View) countLock(id uint64) {
	if i, ok := v.findSession(id); ok {
		v.sessions[i].Locks++
	}
}

func (v *View) loadRanges(x *statepb.SavedRanges) error {
	f, _ := v.ranges.Get(x.Ino)
	if f == nil {
		f = new(fileRanges)
		v.ranges.Load(x.Ino, f)
	}
	for _, r := range x.Held {
		if err := fields(r); err != nil {
			return err
		}
		f.held = append(f.held, loadedRange(r))
		v.countRange(r.Session)
	}
	for _, r := range x.Waits {
		if err := fields(r); err != nil {
			return err
		}
		f.waits = append(f.waits, RangeWait{Range: loadedRange(r), ID: r.Id, Since: r.Since})
		v.countRange(r.Session)
		v.rangeWaits++
	}
	return nil
}

func loadedRange(r *statepb.SavedRange) Range {
	return Range{Session: r.Session, Owner: r.Owner, Start: r.Start, End: r.End, PID: r.Pid, Write: r.Write, OFD: r.Ofd}
}

func (v *View) countRange(id uint64) {
	if i, ok := v.findSession(id); ok {
		v.sessions[i].Ranges++
	}
}
