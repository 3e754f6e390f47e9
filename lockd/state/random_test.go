package state

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// operation wraps an operation into a command.
func operationOf(op any) *statepb.Command {
	c := new(statepb.Command)
	switch op := op.(type) {
	case *statepb.Format:
		c.Op = &statepb.Command_Format{Format: op}
	case *statepb.OpenSession:
		c.Op = &statepb.Command_OpenSession{OpenSession: op}
	case *statepb.EndSession:
		c.Op = &statepb.Command_EndSession{EndSession: op}
	case *statepb.Renew:
		c.Op = &statepb.Command_Renew{Renew: op}
	case *statepb.Watch:
		c.Op = &statepb.Command_Watch{Watch: op}
	case *statepb.Tell:
		c.Op = &statepb.Command_Tell{Tell: op}
	case *statepb.Barrier:
		c.Op = &statepb.Command_Barrier{Barrier: op}
	case *statepb.SetLimits:
		c.Op = &statepb.Command_SetLimits{SetLimits: op}
	case *statepb.Make:
		c.Op = &statepb.Command_Make{Make: op}
	case *statepb.Remove:
		c.Op = &statepb.Command_Remove{Remove: op}
	case *statepb.Rename:
		c.Op = &statepb.Command_Rename{Rename: op}
	case *statepb.SetAttr:
		c.Op = &statepb.Command_SetAttr{SetAttr: op}
	case *statepb.SetXattr:
		c.Op = &statepb.Command_SetXattr{SetXattr: op}
	case *statepb.RemoveXattr:
		c.Op = &statepb.Command_RemoveXattr{RemoveXattr: op}
	case *statepb.Forget:
		c.Op = &statepb.Command_Forget{Forget: op}
	case *statepb.Acquire:
		c.Op = &statepb.Command_Acquire{Acquire: op}
	case *statepb.Release:
		c.Op = &statepb.Command_Release{Release: op}
	case *statepb.Cancel:
		c.Op = &statepb.Command_Cancel{Cancel: op}
	case *statepb.InUse:
		c.Op = &statepb.Command_InUse{InUse: op}
	case *statepb.Commit:
		c.Op = &statepb.Command_Commit{Commit: op}
	case *statepb.Invalidate:
		c.Op = &statepb.Command_Invalidate{Invalidate: op}
	case *statepb.RangeLock:
		c.Op = &statepb.Command_RangeLock{RangeLock: op}
	case *statepb.RangeUnlock:
		c.Op = &statepb.Command_RangeUnlock{RangeUnlock: op}
	case *statepb.RangeCancel:
		c.Op = &statepb.Command_RangeCancel{RangeCancel: op}
	case *statepb.SetHost:
		c.Op = &statepb.Command_SetHost{SetHost: op}
	case *statepb.RemoveHost:
		c.Op = &statepb.Command_RemoveHost{RemoveHost: op}
	case *statepb.Report:
		c.Op = &statepb.Command_Report{Report: op}
	case *statepb.Confirm:
		c.Op = &statepb.Command_Confirm{Confirm: op}
	default:
		panic("no such operation")
	}
	return c
}

// history draws random commands that often make sense in a small world: three hosts, a few names, little time.
type history struct {
	t    *rapid.T
	s    *State
	seqs map[uint64]uint64 // of this batch
	of   uint64            // the session of the command
	time int64
}

func (h *history) n(label string, most int) uint64 {
	return uint64(rapid.IntRange(0, most).Draw(h.t, label))
}

func (h *history) yes(label string) bool { return rapid.IntRange(0, 3).Draw(h.t, label) == 0 }

func (h *history) name() []byte {
	return []byte(rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(h.t, "name"))
}

func (h *history) session() uint64 {
	if len(h.s.cur.sessions) == 0 {
		return 0
	}
	return rapid.SampledFrom(h.s.cur.sessions).Draw(h.t, "session").ID
}

// ino draws a node, often one that is there.
func (h *history) ino() uint64 {
	if h.yes("any") {
		return h.n("ino", int(h.s.cur.nextIno))
	}
	ino, _, _ := h.s.cur.nodes.GetAt(int(h.n("node", h.s.cur.nodes.Len()-1)))
	return ino
}

// hot draws one of a few nodes that all want.
func (h *history) hot() uint64 {
	ino, _, _ := h.s.cur.nodes.GetAt(int(h.n("hot", min(2, h.s.cur.nodes.Len()-1))))
	return ino
}

// entry draws a directory and a name in it, often one that is there.
func (h *history) entry() (uint64, []byte) {
	if n := h.s.cur.Node(h.ino()); n != nil && n.Parent != 0 && !h.yes("other") {
		return n.Parent, []byte(n.Name)
	}
	return h.ino(), h.name()
}

func (h *history) mode() uint32 { return uint32(h.n("mode", int(queue.EX))) }

func (h *history) command() *statepb.Command {
	h.of = h.session()
	c := operationOf(h.operation())
	h.time += int64(h.n("time", 2)) * 1e9
	c.TimeUnixNs = h.time
	switch c.Op.(type) {
	case *statepb.Command_OpenSession, *statepb.Command_EndSession, *statepb.Command_Renew, *statepb.Command_SetHost,
		*statepb.Command_RemoveHost:
		return c
	}
	c.Session = h.of
	if c.Session == 0 {
		return c
	}
	if h.seqs[c.Session] == 0 {
		x, _ := h.s.cur.findSession(c.Session)
		h.seqs[c.Session] = h.s.cur.sessions[x].Seq
	}
	c.Seq = h.seqs[c.Session] + 1
	switch h.n("seq", 30) {
	case 0:
		c.Seq--
	case 1:
		c.Seq++
	default:
		h.seqs[c.Session]++
	}
	return c
}

// report draws what a host may tell of two processes' locks and waits.
func (h *history) report() *statepb.Report {
	p := &statepb.Reported{
		Ino: h.hot(), Id: h.n("id", 5), Kind: uint32(h.n("kind", 4)), Mode: h.mode(), Tgid: uint32(h.n("pid", 2)), At: h.hot(),
		First: h.yes("first"), Rank: int64(h.n("rank", 3)), Range: h.n("range", 5), Comm: h.name(),
	}
	if h.yes("heir") {
		p.Holds = []*statepb.ReportKey{{Ino: h.hot(), Id: h.n("hold", 5)}}
	}
	op := &statepb.Report{Set: []*statepb.Reported{p}}
	if h.yes("gone") {
		op.Gone = []*statepb.ReportKey{{Ino: h.hot(), Id: h.n("gone", 5)}}
	}
	return op
}

func (h *history) operation() any {
	parent, name := h.entry()
	switch h.n("op", 60) {
	case 0:
		return &statepb.OpenSession{Host: string(h.name()), Nonce: h.n("nonce", 3), Ttl: int64(h.n("ttl", 3)) * 1e9}
	case 1:
		if !h.yes("really") {
			return &statepb.Barrier{}
		}
		return &statepb.EndSession{Session: h.session(), RenewedIndex: h.s.cur.index, Reason: statepb.EndReason(h.n("reason", 2))}
	case 2, 3:
		return &statepb.Renew{Renewals: []*statepb.Renewal{{Session: h.session(), Stamp: h.time}}}
	case 4, 5, 6, 7:
		return &statepb.Make{Parent: h.ino(), Name: h.name(), Dir: h.yes("dir"), Lock: h.yes("lock")}
	case 8, 9:
		return &statepb.Remove{Parent: parent, Name: name, Dir: h.yes("dir"), Posix: h.yes("posix"), Drop: h.yes("drop")}
	case 10, 11, 12:
		p2, n2 := h.entry()
		return &statepb.Rename{Parent: parent, Name: name, NewParent: p2, NewName: n2, Noreplace: h.yes("noreplace"), Posix: h.yes("posix"), Drop: h.yes("drop")}
	case 13:
		perm := uint32(h.n("perm", 0o7777))
		return &statepb.SetAttr{Ino: h.ino(), Perm: &perm}
	case 14, 15:
		name := rapid.SampledFrom([]string{XattrEphemeral, XattrLockDelay, "user.x"}).Draw(h.t, "xattr")
		return &statepb.SetXattr{Ino: h.ino(), Name: []byte(name), Value: []byte{byte('0' + h.n("value", 2))}}
	case 16:
		return &statepb.RemoveXattr{Ino: h.ino(), Name: []byte(XattrEphemeral)}
	case 17:
		return &statepb.Forget{Ino: h.ino()}
	case 18, 19, 20:
		return &statepb.Release{Ino: h.hot(), Keep: h.mode() * uint32(h.n("some", 1))}
	case 21, 22:
		return &statepb.Cancel{Ino: h.hot()}
	case 23, 24:
		return &statepb.InUse{Ino: h.hot(), Waiter: h.session()}
	case 25, 26:
		ino := h.ino()
		op := &statepb.Commit{Ino: ino, Posix: h.yes("posix")}
		if n := h.s.cur.Node(ino); n != nil {
			op.BaseGeneration = n.Generation
		}
		switch h.n("change", 4) {
		case 0:
			op.Change = &statepb.Commit_Whole{Whole: h.name()}
		case 1:
			op.Change = &statepb.Commit_Write{Write: &statepb.Write{Offset: h.n("offset", 9), Bytes: h.name()}}
		case 2:
			op.Change = &statepb.Commit_Truncate{Truncate: h.n("size", 9)}
		case 3:
			op.Change = &statepb.Commit_Append{Append: h.name()}
		}
		return op
	case 27:
		return &statepb.Invalidate{Ino: h.ino()}
	case 28, 29, 30, 31, 32:
		start := h.n("start", 9)
		return &statepb.RangeLock{Ino: h.hot(), Owner: h.n("owner", 2), Write: !h.yes("read"), Start: start, End: start + h.n("length", 5), Id: h.n("id", 5), Wait: !h.yes("try"), Ofd: h.yes("ofd")}
	case 33, 34, 35:
		start := h.n("start", 9)
		return &statepb.RangeUnlock{Ino: h.hot(), Owner: h.n("owner", 2), Start: start, End: start + h.n("length", 5), All: h.yes("all")}
	case 36:
		return &statepb.RangeCancel{Id: h.n("id", 5)}
	case 37:
		return &statepb.SetLimits{Nodes: 5 + h.n("nodes", 10), Depth: 2 + h.n("depth", 4), Bytes: 10 + h.n("bytes", 20), HostLocks: 3 + h.n("locks", 20), Ranges: 4 + h.n("ranges", 9)}
	case 38:
		return &statepb.SetHost{Id: string(h.name()), Name: string(h.name()), Address: string(h.name()), Durable: h.yes("durable")}
	case 39:
		return &statepb.RemoveHost{Id: string(h.name())}
	case 40, 41, 42, 43:
		return h.report()
	case 44, 45:
		op := &statepb.Confirm{Suspicion: h.n("suspicion", 3), Round: h.n("round", 2), Stuck: !h.yes("free")}
		if list := h.s.cur.suspicions; len(list) > 0 {
			op.Suspicion = rapid.SampledFrom(list).Draw(h.t, "suspicion").ID
		}
		return op
	}
	op := new(statepb.Acquire)
	for range 1 + h.n("steps", 2) {
		keep, want := queue.Mode(h.mode()), queue.Mode(h.mode())
		ino := h.hot()
		if !h.yes("wild") { // what a host would ask
			have := h.s.cur.HostLock(ino, h.of)
			if h.yes("give up") || !have.Covers(keep) {
				keep = have
			}
			want = queue.Join(want, keep)
		}
		flags := []queue.Flags{0, 0, 0, queue.NoQueue, queue.Try, queue.Try, queue.HeadQue, queue.QueCvt, queue.AltPR, queue.AltCW | queue.AltPR}
		op.Steps = append(op.Steps, &statepb.Step{
			Ino: ino, Keep: uint32(keep), Want: uint32(want), Flags: uint32(rapid.SampledFrom(flags).Draw(h.t, "flags")), Convert: h.yes("convert"),
		})
	}
	return op
}

// TestRandomHistories runs random commands on two states, of which one is read anew from a snapshot now and then. Both
// must come to the same changes and digests, keep the invariants, and leave older views alone.
func TestRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, replica := New(), New()
		h := &history{t: t, s: s}
		var old *View
		var oldDigest [32]byte
		for index := uint64(1); index <= 60; index++ {
			h.seqs = map[uint64]uint64{}
			var cmds []*statepb.Command
			if index <= 3 {
				cmds = append(cmds, operationOf(&statepb.OpenSession{Host: string(rune('a' + index)), Nonce: 9}))
			}
			for range 1 + h.n("commands", 3) {
				cmds = append(cmds, h.command())
			}
			entry := Encode(cmds)
			changes, err := s.Apply(index, entry)
			if err != nil {
				t.Fatal(err)
			}
			again, err := replica.Apply(index, entry)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(changes, again) {
				t.Fatalf("%v\nchanges   %v\nreplica's %v", cmds, changes, again)
			}
			if err := s.Check(); err != nil {
				t.Fatalf("%v: %v", cmds, err)
			}
			if h.yes("view") {
				if old != nil && old.Digest() != oldDigest {
					t.Fatalf("%v: an older view has changed", cmds)
				}
				old = s.View()
				oldDigest = old.Digest()
			}
			if h.yes("snapshot") {
				var snap bytes.Buffer
				if _, err := s.View().WriteTo(&snap); err != nil {
					t.Fatal(err)
				}
				if replica, err = Read(&snap); err != nil {
					t.Fatal(err)
				}
				if s.View().Digest() != replica.View().Digest() {
					t.Fatal("digests differ")
				}
			}
		}
		if s.View().Digest() != replica.View().Digest() {
			t.Fatal("digests differ")
		}
		s.Rebase()
		if err := s.Check(); err != nil {
			t.Fatal(err)
		}
		for range s.View().AllHostLocks() {
			t.Fatal("a lock is left")
		}
		for range s.View().Hosts() {
			t.Fatal("a host is left")
		}
	})
}
