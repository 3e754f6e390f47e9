package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// seedEntries are the entries of a small history with some of everything in it.
func seedEntries() [][]byte {
	of := func(session, seq uint64, op any) *statepb.Command {
		c := operationOf(op)
		c.Session, c.Seq, c.TimeUnixNs = session, seq, 1e9
		return c
	}
	step := func(ino uint64, keep, want queue.Mode, flags queue.Flags) *statepb.Step {
		return &statepb.Step{Ino: ino, Keep: uint32(keep), Want: uint32(want), Flags: uint32(flags)}
	}
	held := func(ino, id uint64, mode queue.Mode, pid uint32) *statepb.Reported {
		return &statepb.Reported{Ino: ino, Id: id, Kind: uint32(ReportHeld), Mode: uint32(mode), Pid: pid, Tgid: pid, Comm: []byte("c")}
	}
	waits := func(ino, id uint64, mode queue.Mode, pid uint32, holds ...*statepb.ReportKey) *statepb.Reported {
		p := held(ino, id, mode, pid)
		p.Kind, p.At, p.Rank, p.Holds = uint32(ReportWait), ino, int64(id), holds
		return p
	}
	batches := [][]*statepb.Command{
		{of(0, 0, &statepb.OpenSession{Host: "a", Nonce: 1, Version: "v", BootId: "b"}), of(0, 0, &statepb.OpenSession{Host: "b", Nonce: 2}),
			of(0, 0, &statepb.OpenSession{Host: "c", Nonce: 3, Ttl: 3e9}),
			of(0, 0, &statepb.SetHost{Id: "1", Name: "a", Address: "10.0.0.1:7420", Gossip: "10.0.0.1:7421", Durable: true, Version: "v"}),
			of(0, 0, &statepb.SetHost{Id: "2", Name: "b"}), of(0, 0, &statepb.SetHost{Id: "3", Name: "b"})},
		{of(1, 1, &statepb.Make{Parent: 1, Name: []byte("d"), Dir: true, Perm: 0o755}),
			of(1, 2, &statepb.Make{Parent: 2, Name: []byte("x"), Lock: true}),
			of(1, 3, &statepb.SetXattr{Ino: 2, Name: []byte(XattrEphemeral), Value: []byte("1")}),
			of(1, 4, &statepb.SetXattr{Ino: 3, Name: []byte(XattrLockDelay), Value: []byte("9")})},
		{of(1, 5, &statepb.Commit{Ino: 3, Change: &statepb.Commit_Whole{Whole: []byte("value")}}),
			of(2, 1, &statepb.Acquire{Steps: []*statepb.Step{step(1, 0, queue.CR, 0), step(2, 0, queue.CR, 0), step(3, 0, queue.PR, queue.Try)}}),
			of(3, 1, &statepb.Acquire{Steps: []*statepb.Step{step(3, 0, queue.EX, queue.AltPR)}})},
		{of(1, 6, &statepb.InUse{Ino: 3, Waiter: 2}), of(1, 7, &statepb.Release{Ino: 3, Keep: uint32(queue.CR)}),
			of(3, 2, &statepb.Cancel{Ino: 3}), of(2, 2, &statepb.Acquire{Steps: []*statepb.Step{step(3, 0, queue.PR, 0)}}),
			of(2, 3, &statepb.Acquire{Steps: []*statepb.Step{{Ino: 3, Keep: uint32(queue.PR), Want: uint32(queue.EX), Convert: true}}}),
			of(3, 3, &statepb.Acquire{Steps: []*statepb.Step{step(3, 0, queue.EX, 0)}})},
		{of(1, 8, &statepb.RangeLock{Ino: 3, Owner: 1, Write: true, Start: 5, End: 9, Pid: 7}),
			of(2, 4, &statepb.RangeLock{Ino: 3, Owner: 1, Start: 0, End: MaxRange, Wait: true, Id: 1}),
			of(3, 4, &statepb.RangeLock{Ino: 3, Owner: 2, Start: 0, End: 3, Wait: true, Id: 2, Ofd: true}),
			of(1, 9, &statepb.RangeUnlock{Ino: 3, Owner: 1, Start: 6, End: 6}), of(3, 5, &statepb.RangeCancel{Id: 2})},
		{of(1, 10, &statepb.Make{Parent: 1, Name: []byte("y")}), of(1, 11, &statepb.Commit{Ino: 4, Posix: true, Change: &statepb.Commit_Append{Append: []byte("z")}}),
			of(1, 12, &statepb.Remove{Parent: 1, Name: []byte("y"), Posix: true}), of(1, 13, &statepb.Make{Parent: 1, Name: []byte("z")}),
			of(1, 14, &statepb.Rename{Parent: 1, Name: []byte("z"), NewParent: 1, NewName: []byte("zz")}),
			of(1, 15, &statepb.Acquire{Steps: []*statepb.Step{step(5, 0, queue.PW, 0)}}),
			of(1, 16, &statepb.SetXattr{Ino: 5, Name: []byte(XattrLockDelay), Value: []byte("9")}),
			of(1, 17, &statepb.Invalidate{Ino: 5})},
		{of(1, 18, &statepb.Report{Set: []*statepb.Reported{held(5, 1, queue.EX, 10), waits(2, 2, queue.EX, 10)}}),
			of(2, 5, &statepb.Report{Set: []*statepb.Reported{held(2, 1, queue.PR, 20), waits(5, 2, queue.PR, 21, &statepb.ReportKey{Ino: 2, Id: 1})}})},
		{of(1, 19, &statepb.Confirm{Suspicion: 7 << suspicionBits, Round: 1, Stuck: true}),
			of(2, 6, &statepb.Report{Gone: []*statepb.ReportKey{{Ino: 5, Id: 3}}, Set: []*statepb.Reported{waits(5, 4, queue.EX, 22)}})},
		{of(2, 7, &statepb.Confirm{Suspicion: 7 << suspicionBits, Round: 1, Stuck: true}),
			of(2, 8, &statepb.Watch{Inos: []uint64{2, 5}}), of(2, 9, &statepb.Tell{Lost: 3, Told: []*statepb.Told{
				{Event: uint32(EventGranted), Ino: 5, Mode: uint32(queue.EX), Token: 9, Pid: 7, Comm: []byte("c")},
				{Event: uint32(EventBlocking), Ino: 5, Mode: uint32(queue.EX), Wanted: uint32(queue.PR), Host: []byte("b")}}})},
		{of(0, 0, &statepb.Renew{Renewals: []*statepb.Renewal{{Session: 1, Stamp: 5}, {Session: 2, Stamp: 6}}}),
			of(0, 0, &statepb.EndSession{Session: 1, RenewedIndex: 99}), of(0, 0, &statepb.RemoveHost{Id: "1"}),
			of(0, 0, &statepb.SetHost{Id: "3", Name: "a"})},
	}
	var entries [][]byte
	for _, b := range batches {
		entries = append(entries, Encode(b))
	}
	return entries
}

// seedStates are the states of that history, one an entry.
func seedSnapshots(t testing.TB) (snapshots [][]byte) {
	s := New()
	for i, e := range seedEntries() {
		if _, err := s.Apply(uint64(i+1), e); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := s.View().WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		snapshots = append(snapshots, b.Bytes())
	}
	return snapshots
}

// FuzzApply applies any bytes to a state that has some of everything.
func FuzzApply(f *testing.F) {
	entries, snapshots := seedEntries(), seedSnapshots(f)
	for i, e := range entries {
		f.Add(uint8(i), e)
	}
	f.Fuzz(func(t *testing.T, at uint8, entry []byte) {
		s := New()
		if i := int(at) % len(entries); i > 0 {
			var err error
			if s, err = Read(bytes.NewReader(snapshots[i-1])); err != nil {
				t.Fatal(err)
			}
		}
		before := s.View()
		digest := before.Digest()
		_, err := s.Apply(before.Index()+1, entry)
		if before.Digest() != digest {
			t.Fatal("the view of before has changed")
		}
		if err != nil && s.View().Digest() != digest {
			t.Fatal("an entry that was refused changed the state")
		}
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		s.View().WriteTo(&b)
		r, err := Read(&b)
		if err != nil {
			t.Fatal(err)
		}
		if r.View().Digest() != s.View().Digest() {
			t.Fatal("digest after a snapshot differs")
		}
	})
}

// FuzzReadSnapshot reads any bytes, as they are and, so that the records themselves are tried, with their checksums put right.
func FuzzReadSnapshot(f *testing.F) {
	for _, s := range seedSnapshots(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, resum(b)} {
			s, err := Read(bytes.NewReader(b))
			if err != nil {
				if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnknown) {
					t.Fatal(err)
				}
				continue
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			var again bytes.Buffer
			if _, err := s.View().WriteTo(&again); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(&again); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// resum frames the records in b anew, as far as they can be told apart.
func resum(b []byte) []byte {
	const head = len(snapshotMagic) + 4
	var out bytes.Buffer
	w := newSnapshotWriter(&out)
	b = b[min(head, len(b)):]
	for len(b) >= 8 {
		n := min(int(b[0])|int(b[1])<<8, len(b)-8)
		w.payload(b[8 : 8+n])
		b = b[8+n:]
	}
	w.trailer()
	w.w.Flush()
	return out.Bytes()
}

func TestUnknownEntries(t *testing.T) {
	entry := func(fields ...[]byte) []byte { return slices.Concat(fields...) }
	version := func(v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), v)
	}
	message := func(field protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), b)
	}
	field := func(n protowire.Number) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), 1)
	}
	for _, c := range []struct {
		entry []byte
		want  error
		says  string
	}{
		{nil, ErrUnknown, "batch version 0"},
		{version(2), ErrUnknown, "batch version 2"},
		{[]byte{0xff}, ErrCorrupt, "damaged"},
		{entry(version(1), field(9)), ErrUnknown, "field 9 of Batch"},
		{entry(version(1), message(2, nil)), ErrUnknown, "no operation"},
		{entry(version(1), message(2, message(99, nil))), ErrUnknown, "field 99 of Command"},
		{entry(version(1), message(2, message(14, field(5)))), ErrUnknown, "field 5 of Barrier"},
		{entry(version(1), message(2, message(30, message(1, field(6))))), ErrUnknown, "field 6 of Step"},
		{entry(version(1), message(2, message(13, message(1, field(3))))), ErrUnknown, "field 3 of Renewal"},
		{entry(version(1), message(2, message(40, message(5, field(3))))), ErrUnknown, "field 3 of Write"},
		{entry(version(1), message(2, message(11, field(8)))), ErrUnknown, "field 8 of OpenSession"},
		{entry(version(1), message(2, message(60, field(7)))), ErrUnknown, "field 7 of SetHost"},
		{entry(version(1), message(2, message(62, nil))), ErrUnknown, "field 62 of Command"},
		{entry(version(1), message(2, message(12, protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 7)))), ErrUnknown, "reason 7"},
	} {
		s := New()
		_, err := s.Apply(5, c.entry)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "entry 5") {
			t.Errorf("%x: %v, want %v and %q", c.entry, err, c.want, c.says)
		}
		if s.View().Index() != 0 {
			t.Errorf("%x: the state has changed", c.entry)
		}
	}
	s := New()
	if _, err := s.Apply(5, Encode(nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(5, Encode(nil)); err == nil {
		t.Error("an entry was applied twice")
	}
}

// TestUnknownFields puts a field that nobody knows into every message that an entry or a snapshot can have: whatever a newer
// program adds, this one stops at it.
func TestUnknownFields(t *testing.T) {
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 1)
	var each func(m protoreflect.Message, root func() error)
	tried := 0
	var fill func(m protoreflect.Message) // with what must not be missing in a record
	fill = func(m protoreflect.Message) {
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			if f := fields.Get(i); f.Message() != nil && !f.IsList() && f.ContainingOneof() == nil {
				fill(m.Mutable(f).Message())
			}
		}
	}
	each = func(m protoreflect.Message, root func() error) {
		fill(m)
		m.SetUnknown(unknown)
		if err := root(); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "field 9999 of "+string(m.Descriptor().Name())) {
			t.Errorf("a field that is not known in %s: %v", m.Descriptor().Name(), err)
		}
		m.SetUnknown(nil)
		tried++
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			f := fields.Get(i)
			if f.Message() == nil {
				continue
			}
			if f.IsList() {
				each(m.Mutable(f).List().AppendMutable().Message(), root)
			} else {
				each(m.Mutable(f).Message(), root)
			}
			if f.IsList() || f.ContainingOneof() != nil {
				m.Clear(f)
			}
		}
	}
	b := &statepb.Batch{Version: Version}
	each(b.ProtoReflect(), func() error {
		if cmds := b.Commands; len(cmds) > 0 && cmds[0].Op == nil { // of the command itself
			cmds[0].Op = &statepb.Command_Barrier{Barrier: &statepb.Barrier{}}
		}
		entry, err := proto.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		_, err = New().Apply(1, entry)
		return err
	})
	rec := new(statepb.Record)
	each(rec.ProtoReflect(), func() error {
		r := &snapshotReader{s: New(), count: 1}
		r.s.cur.sessions = []*session{{}} // locks have one
		if h := rec.GetHeader(); h != nil {
			r.count = 0
			if h.Limits == nil {
				h.Limits = &statepb.SetLimits{}
			}
		}
		return r.load(rec)
	})
	if tried < 40 {
		t.Errorf("only %d messages tried", tried)
	}
}

// TestDamagedSnapshots damages a snapshot byte by byte, and cuts it short everywhere.
func TestDamagedSnapshots(t *testing.T) {
	snapshots := seedSnapshots(t)
	good := snapshots[len(snapshots)-1]
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 0x20
		if _, err := Read(bytes.NewReader(bad)); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnknown) {
			t.Fatalf("byte %d: %v", i, err)
		}
		if _, err := Read(bytes.NewReader(good[:i])); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	if _, err := Read(bytes.NewReader(append(slices.Clone(good), 0))); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	huge := append(slices.Clone(good[:12]), 0xff, 0xff, 0xff, 0x7f)
	if _, err := Read(bytes.NewReader(huge)); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
}

// TestHostileSnapshots changes, drops, doubles and swaps the records of snapshots behind good checksums. What is read all the
// same must be sound, and stay so when entries are applied to it.
func TestHostileSnapshots(t *testing.T) {
	snapshots, entries := seedSnapshots(t), seedEntries()
	rng := rand.New(rand.NewPCG(1, 2))
	read := 0
	for range 5000 {
		at := rng.IntN(len(snapshots))
		records := split(snapshots[at])
		for range 1 + rng.IntN(2) {
			i, j := rng.IntN(len(records)), rng.IntN(len(records))
			switch r := slices.Clone(records[i]); rng.IntN(8) {
			case 0:
				records = slices.Delete(records, i, i+1)
			case 1:
				records = slices.Insert(records, j, r)
			case 2:
				records[i], records[j] = records[j], records[i]
			case 3:
				records[i] = append(r, records[j]...)
			default:
				if len(r) > 0 {
					r[rng.IntN(len(r))] = byte(rng.IntN(12) * rng.IntN(12))
				}
				records[i] = r
			}
			if len(records) == 0 {
				records = append(records, nil)
			}
		}
		var b bytes.Buffer
		w := newSnapshotWriter(&b)
		for _, r := range records {
			w.payload(r)
		}
		w.trailer()
		w.w.Flush()
		s, err := Read(bytes.NewReader(b.Bytes()))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnknown) {
				t.Fatal(err)
			}
			continue
		}
		read++
		for _, e := range entries[at+1:] {
			if _, err := s.Apply(s.cur.index+1, e); err != nil {
				t.Fatal(err)
			}
			if err := s.Check(); err != nil {
				t.Fatalf("%v\n%x", err, b.Bytes())
			}
		}
	}
	t.Logf("%d of 5000 were sound", read)
}

// split returns the payloads of a snapshot's records.
func split(b []byte) (records [][]byte) {
	for b = b[len(snapshotMagic)+4:]; ; {
		n := binary.LittleEndian.Uint32(b)
		if n == trailerMark {
			return records
		}
		records = append(records, b[8:8+n])
		b = b[8+n:]
	}
}
