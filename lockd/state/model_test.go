package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// applyTo applies one command of a session and returns the changes, the answer last.
func applyTo(t *rapid.T, s *State, session uint64, op any) []Change {
	c := operationOf(op)
	if session != 0 {
		i, _ := s.cur.findSession(session)
		c.Session, c.Seq = session, s.cur.sessions[i].Seq+1
	}
	changes, err := s.Apply(s.cur.index+1, Encode([]*statepb.Command{c}))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err != nil {
		t.Fatalf("%v: %v", c, err)
	}
	return changes
}

// treeModel is the tree as a map from paths: as slow and as simple as can be.
type treeModel struct {
	nodes map[string]*modelNode // by path, the root is ""
	depth int
	room  int
	bytes int
}

type modelNode struct {
	ino   uint64
	dir   bool
	value string
}

func (m *treeModel) used() (sum int) {
	for _, n := range m.nodes {
		sum += len(n.value)
	}
	return sum
}

func (m *treeModel) empty(path string) bool {
	for p := range m.nodes {
		if strings.HasPrefix(p, path+"/") {
			return false
		}
	}
	return true
}

func (m *treeModel) parent(path string) (*modelNode, Code) {
	p := m.nodes[path[:strings.LastIndexByte(path, '/')]]
	switch {
	case p == nil:
		return nil, NotFound
	case !p.dir:
		return nil, NotDir
	}
	return p, OK
}

func (m *treeModel) make(path string, dir bool, ino uint64) Code {
	_, code := m.parent(path)
	switch {
	case code != OK:
		return code
	case m.nodes[path] != nil:
		return Exists
	case strings.Count(path, "/") > m.depth:
		return TooDeep
	case len(m.nodes) >= m.room:
		return NoSpace
	}
	m.nodes[path] = &modelNode{ino: ino, dir: dir}
	return OK
}

func (m *treeModel) removable(path string, dir bool) Code {
	n := m.nodes[path]
	switch {
	case n == nil:
		return NotFound
	case dir && !n.dir:
		return NotDir
	case !dir && n.dir:
		return IsDir
	case dir && !m.empty(path):
		return NotEmpty
	}
	return OK
}

func (m *treeModel) remove(path string, dir bool) Code {
	if _, code := m.parent(path); code != OK {
		return code
	}
	code := m.removable(path, dir)
	if code == OK {
		delete(m.nodes, path)
	}
	return code
}

func (m *treeModel) rename(from, to string, noreplace bool) Code {
	if _, code := m.parent(from); code != OK {
		return code
	}
	n := m.nodes[from]
	if n == nil {
		return NotFound
	}
	if _, code := m.parent(to); code != OK {
		return code
	}
	if n.dir && strings.HasPrefix(to, from+"/") {
		return Loop
	}
	if over := m.nodes[to]; over != nil {
		switch {
		case noreplace:
			return Exists
		case over == n:
			return OK
		}
		if code := m.removable(to, n.dir); code != OK {
			return code
		}
	}
	moved := map[string]*modelNode{}
	for p, x := range m.nodes {
		if p == from || strings.HasPrefix(p, from+"/") {
			moved[to+p[len(from):]] = x
		}
	}
	for p := range moved {
		if strings.Count(p, "/") > m.depth && strings.Count(to, "/") > strings.Count(from, "/") {
			return TooDeep
		}
	}
	for p := range m.nodes {
		if p == from || strings.HasPrefix(p, from+"/") {
			delete(m.nodes, p)
		}
	}
	for p, x := range moved {
		m.nodes[p] = x
	}
	return OK
}

func (m *treeModel) write(path string, off int, data string, limit int) Code {
	n := m.nodes[path]
	if n == nil {
		return Stale
	}
	v := n.value
	if data != "" {
		for len(v) < off+len(data) {
			v += "\x00"
		}
		v = v[:off] + data + v[off+len(data):]
	}
	switch {
	case len(v) > limit:
		return TooBig
	case m.used()-len(n.value)+len(v) > m.bytes:
		return NoSpace
	}
	n.value = v
	return OK
}

func TestTreeModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		applyTo(t, s, 0, &statepb.OpenSession{Host: "a", Nonce: 1})
		applyTo(t, s, 0, &statepb.SetLimits{Depth: 4, Nodes: 12, ValueLen: 8, Bytes: 20})
		m := &treeModel{nodes: map[string]*modelNode{"": {ino: Root, dir: true}}, depth: 4, room: 12, bytes: 20}
		segment := rapid.SampledFrom([]string{"a", "b", "c"})
		path := func(label string) string {
			// A child of something that is there, often what is there itself.
			var all []string
			for p := range m.nodes {
				all = append(all, p)
			}
			slices.Sort(all)
			p := rapid.SampledFrom(all).Draw(t, label)
			if p != "" && rapid.Bool().Draw(t, "itself") {
				return p
			}
			return p + "/" + segment.Draw(t, "name")
		}
		at := func(p string) (uint64, []byte) {
			i := strings.LastIndexByte(p, '/')
			if n := m.nodes[p[:i]]; n != nil {
				return n.ino, []byte(p[i+1:])
			}
			return 999, []byte(p[i+1:])
		}
		for range 60 {
			var want Code
			var op any
			var did string
			switch rapid.IntRange(0, 6).Draw(t, "op") {
			case 0, 1, 2:
				p, dir := path("make"), rapid.IntRange(0, 3).Draw(t, "dir") > 0
				parent, name := at(p)
				op, did = &statepb.Make{Parent: parent, Name: name, Dir: dir}, fmt.Sprint("make ", p, dir)
				want = m.make(p, dir, s.cur.nextIno)
			case 3:
				p, dir := path("remove"), rapid.Bool().Draw(t, "dir")
				parent, name := at(p)
				op, did = &statepb.Remove{Parent: parent, Name: name, Dir: dir}, fmt.Sprint("remove ", p, dir)
				want = m.remove(p, dir)
			case 4, 5:
				from, to, no := path("from"), path("to"), rapid.IntRange(0, 5).Draw(t, "noreplace") == 0
				p1, n1 := at(from)
				p2, n2 := at(to)
				op = &statepb.Rename{Parent: p1, Name: n1, NewParent: p2, NewName: n2, Noreplace: no}
				did = fmt.Sprint("rename ", from, " ", to, " ", no)
				want = m.rename(from, to, no)
			case 6:
				p, off := path("write"), rapid.IntRange(0, 9).Draw(t, "offset")
				data := rapid.StringMatching("[x-z]{0,4}").Draw(t, "bytes")
				ino := uint64(999)
				if n := m.nodes[p]; n != nil {
					ino = n.ino
				}
				op = &statepb.Commit{Ino: ino, Posix: true, Change: &statepb.Commit_Write{Write: &statepb.Write{Offset: uint64(off), Bytes: []byte(data)}}}
				did = fmt.Sprintf("write %s %d %q", p, off, data)
				want = m.write(p, off, data, 8)
				if data == "" && off > 8 && want != Stale {
					want = TooBig // past the limit even though nothing is written there
				}
			}
			changes := applyTo(t, s, 1, op)
			if got := changes[len(changes)-1].Code; got != want {
				t.Fatalf("%s: %v, want %v", did, got, want)
			}
			for p, n := range m.nodes {
				got := s.cur.Node(n.ino)
				if got == nil || "/"+strings.TrimPrefix(p, "/") != s.cur.Path(n.ino) || got.Dir != n.dir || string(got.Value) != n.value {
					t.Fatalf("after %s: %q is %+v at %s, want %+v", did, p, got, s.cur.Path(n.ino), n)
				}
			}
			if nodes, bytes := s.cur.Counts(); int(nodes) != len(m.nodes) || int(bytes) != m.used() {
				t.Fatalf("after %s: %d nodes, %d bytes, want %d, %d", did, nodes, bytes, len(m.nodes), m.used())
			}
		}
	})
}

// rangeModel has the byte-range locks of a file byte by byte.
type rangeModel struct {
	held  [4][modelBytes]byte // by owner: 0, 'r' or 'w'
	waits []RangeWait
}

const modelBytes = 12

func (m *rangeModel) free(owner uint64, kind byte, start, end uint64, ahead []RangeWait) bool {
	mine := false
	for o := range m.held {
		for b := range m.held[o] {
			h := m.held[o][b]
			if h == 0 {
				continue
			}
			if uint64(o) == owner {
				mine = true
				continue
			}
			if uint64(b) >= start && uint64(b) <= end && (h == 'w' || kind == 'w') {
				return false
			}
		}
	}
	for _, w := range ahead {
		if !mine && w.Owner != owner && w.Start <= end && start <= w.End && (w.Write || kind == 'w') {
			return false
		}
	}
	return true
}

func (m *rangeModel) set(owner uint64, kind byte, start, end uint64) {
	for b := start; b <= end; b++ {
		m.held[owner][b] = kind
	}
}

func kindOf(write bool) byte {
	if write {
		return 'w'
	}
	return 'r'
}

// grant grants waits, first come first, until none can be granted; it returns their ids, sorted.
func (m *rangeModel) grant() (ids []uint64) {
	for again := true; again; {
		again = false
		for i, w := range m.waits {
			if m.free(w.Owner, kindOf(w.Write), w.Start, w.End, m.waits[:i]) {
				m.set(w.Owner, kindOf(w.Write), w.Start, w.End)
				m.waits = slices.Delete(m.waits, i, i+1)
				ids = append(ids, w.ID)
				again = true
				break
			}
		}
	}
	slices.Sort(ids)
	return ids
}

func TestRangeModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := New()
		for i := range uint64(2) {
			applyTo(t, s, 0, &statepb.OpenSession{Host: "h", Nonce: i})
		}
		ino := applyTo(t, s, 1, &statepb.Make{Parent: Root, Name: []byte("x")})[0].Ino
		m := new(rangeModel)
		for id := uint64(1); id < 60; id++ {
			owner := uint64(rapid.IntRange(0, 3).Draw(t, "owner")) // two of each session
			session := owner/2 + 1
			start := uint64(rapid.IntRange(0, modelBytes-1).Draw(t, "start"))
			end := uint64(rapid.IntRange(int(start), modelBytes-1).Draw(t, "end"))
			var op any
			want := OK
			switch rapid.IntRange(0, 5).Draw(t, "op") {
			case 0, 1, 2:
				write, wait := rapid.Bool().Draw(t, "write"), rapid.Bool().Draw(t, "wait")
				op = &statepb.RangeLock{Ino: ino, Owner: owner, Write: write, Start: start, End: end, Id: id, Wait: wait, Ofd: true}
				var ahead []RangeWait
				if wait {
					ahead = m.waits
				}
				switch {
				case m.free(owner, kindOf(write), start, end, ahead):
					m.set(owner, kindOf(write), start, end)
				case wait:
					want = Waiting
					m.waits = append(m.waits, RangeWait{ID: id, Range: Range{Session: session, Owner: owner, Write: write, Start: start, End: end}})
				default:
					want = Busy
				}
			case 3, 4:
				op = &statepb.RangeUnlock{Ino: ino, Owner: owner, Start: start, End: end}
				m.set(owner, 0, start, end)
			case 5:
				if rapid.Bool().Draw(t, "all") {
					op = &statepb.RangeUnlock{Ino: ino, Owner: owner, All: true}
					m.set(owner, 0, 0, modelBytes-1)
					m.waits = slices.DeleteFunc(m.waits, func(w RangeWait) bool { return w.Owner == owner })
					break
				}
				want = NotFound
				var cancel uint64 = 999
				if len(m.waits) > 0 {
					w := rapid.SampledFrom(m.waits).Draw(t, "wait")
					cancel, session, want = w.ID, w.Session, OK
					m.waits = slices.DeleteFunc(m.waits, func(x RangeWait) bool { return x.ID == w.ID })
				}
				op = &statepb.RangeCancel{Id: cancel}
			}
			granted := m.grant()
			changes := applyTo(t, s, session, op)
			if got := changes[len(changes)-1].Code; got != want {
				t.Fatalf("%v: %v, want %v", op, got, want)
			}
			var ids []uint64
			for _, c := range changes {
				if c.Kind == RangeGranted {
					ids = append(ids, c.ID)
				}
			}
			slices.Sort(ids)
			if !slices.Equal(ids, granted) {
				t.Fatalf("%v: granted %v, want %v", op, ids, granted)
			}
			var held [4][modelBytes]byte
			for r := range s.View().Ranges(ino) {
				for b := r.Start; b <= r.End; b++ {
					held[r.Owner][b] = kindOf(r.Write)
				}
			}
			if held != m.held {
				t.Fatalf("%v: locked\n%q, want\n%q", op, held, m.held)
			}
		}
	})
}

// TestHostModel compares the list of hosts with a map.
func TestHostModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := New(), map[string]Host{}
		word := rapid.SampledFrom([]string{"", "a", "b", "c", "d", "e"})
		for range 40 {
			id := word.Draw(t, "id")
			if rapid.IntRange(0, 3).Draw(t, "op") == 0 {
				changes := applyTo(t, s, 0, &statepb.RemoveHost{Id: id})
				if _, there := m[id]; there != (len(changes) == 1 && changes[0].Kind == HostRemoved && changes[0].Name == m[id].Name) {
					t.Fatalf("remove %q of %v: %v", id, m, changes)
				}
				delete(m, id)
				continue
			}
			h := Host{ID: id, Name: word.Draw(t, "name"), Address: word.Draw(t, "address"), Durable: rapid.Bool().Draw(t, "durable")}
			want := OK
			for _, x := range m {
				if x.Name == h.Name && x.ID != id {
					want = Exists
				}
			}
			if id == "" || h.Name == "" {
				want = Invalid
			}
			if want == OK {
				m[id] = h
			}
			changes := applyTo(t, s, 0, h.saved())
			if len(changes) != 1 || changes[0] != (Change{Kind: HostSet, Index: s.cur.index, Host: id, Name: h.Name, Code: want}) {
				t.Fatalf("set %+v: %v, want %v", h, changes, want)
			}
		}
		list := slices.Collect(s.View().Hosts())
		if len(list) != len(m) {
			t.Fatalf("%v, want %v", list, m)
		}
		for _, h := range list {
			if m[h.ID] != h {
				t.Fatalf("%+v, want %+v", h, m[h.ID])
			}
		}
	})
}
