package state

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/btree"
)

// View is the state as it was after some entry. It is immutable: any goroutine may read it, while entries are applied.
type View struct {
	index       uint64
	formatted   bool
	nextIno     uint64
	raises      uint64 // the last number given to a grant
	lastSession uint64
	tokenBase   uint64
	bytes       uint64 // of values and attributes
	limits      Limits
	rangeWaits  uint64

	nodes      *btree.Map[uint64, *Node]
	names      *btree.BTreeG[dirent]
	locks      *lockTree
	ranges     *btree.Map[uint64, *fileRanges]
	orphans    *btree.Map[uint64, uint64] // ino to session
	reports    *btree.BTreeG[*Report]
	sessions   []*session   // by id
	delays     []delay      // by ino
	hosts      []Host       // by id
	suspicions []*Suspicion // by id
	cycles     []*Cycle     // the last ones
	unsearched []ReportKey  // waits that a search for deadlocks is put off for
}

// dirent is an entry of a directory.
type dirent struct {
	parent uint64
	ino    uint64
	name   string
}

func direntLess(a, b dirent) bool {
	return a.parent < b.parent || a.parent == b.parent && a.name < b.name
}

// Session is one run of a host's daemon.
type Session struct {
	ID      uint64
	Host    string
	Nonce   uint64
	Version string        // of the program
	BootID  string        // of the machine
	Seq     uint64        // the last command applied
	Renewed uint64        // index of the last renewal, at first that of the opening
	Stamp   int64         // what the host sent with it, 0 at first
	TTL     time.Duration // it ends when not renewed for so long, by the leader's clock
	Locks   uint64        // host locks, held or awaited
	Ranges  uint64        // byte-range locks and waits
	Reports uint64        // of its locks and waits
	Watches []uint64      // what its host wants to be told of, ascending; not to be changed
}

// session is a Session that may be written to in the epoch that it was made in.
type session struct {
	Session
	epoch uint64
}

// Index returns the index of the last entry applied.
func (v *View) Index() uint64 { return v.index }

// TokenBase returns what is added to the number of a grant to make its token.
func (v *View) TokenBase() uint64 { return v.tokenBase }

// Formatted says whether the root has been given its owner.
func (v *View) Formatted() bool { return v.formatted }

// Limits returns the cluster's limits.
func (v *View) Limits() Limits { return v.limits }

// Counts returns the number of nodes and the bytes of values and attributes, as they count against the limits.
func (v *View) Counts() (nodes, bytes uint64) { return uint64(v.nodes.Len()), v.bytes }

// Node returns the node of that number, or nil.
func (v *View) Node(ino uint64) *Node {
	n, _ := v.nodes.Get(ino)
	return n
}

// Lookup returns the entry of that name in a directory, or nil.
func (v *View) Lookup(parent uint64, name string) *Node {
	e, ok := v.names.Get(dirent{parent: parent, name: name})
	if !ok {
		return nil
	}
	return v.Node(e.ino)
}

// ReadDir returns the entries of a directory with names after a given one, in the order of the names' bytes.
func (v *View) ReadDir(parent uint64, after string) iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		v.names.Ascend(dirent{parent: parent, name: after}, func(e dirent) bool {
			if e.parent != parent {
				return false
			}
			if e.name == after { // "" is no name
				return true
			}
			return yield(v.Node(e.ino))
		})
	}
}

// Path returns the path of a node from the root, as "/a/b"; "" if there is no such node or it is an orphan.
func (v *View) Path(ino uint64) string {
	var names []string
	for ino != Root {
		n := v.Node(ino)
		if n == nil || n.Parent == 0 {
			return ""
		}
		names = append(names, n.Name)
		ino = n.Parent
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/")
}

// Ancestors appends the inode numbers from the root to the node, both included, to buf and returns it; nothing
// is appended for a node that is not there. An orphan is its own only ancestor.
func (v *View) Ancestors(buf []uint64, ino uint64) []uint64 {
	start := len(buf)
	for ino != 0 {
		n := v.Node(ino)
		if n == nil {
			return buf[:start]
		}
		buf = append(buf, ino)
		ino = n.Parent
	}
	slices.Reverse(buf[start:])
	return buf
}

// Session returns the session of that id, if it has not ended.
func (v *View) Session(id uint64) (Session, bool) {
	i, ok := v.findSession(id)
	if !ok {
		return Session{}, false
	}
	return v.sessions[i].Session, true
}

// Sessions returns the sessions by id.
func (v *View) Sessions() iter.Seq[Session] {
	return func(yield func(Session) bool) {
		for _, s := range v.sessions {
			if !yield(s.Session) {
				return
			}
		}
	}
}

// Orphans returns the orphans and the sessions that have them open, by inode number.
func (v *View) Orphans() iter.Seq2[uint64, uint64] {
	return func(yield func(uint64, uint64) bool) { v.orphans.Scan(yield) }
}

func (v *View) findSession(id uint64) (int, bool) {
	return slices.BinarySearchFunc(v.sessions, id, func(s *session, id uint64) int { return cmp.Compare(s.ID, id) })
}

func (v *View) hasChildren(dir uint64) bool {
	found := false
	v.names.Ascend(dirent{parent: dir}, func(e dirent) bool {
		found = e.parent == dir
		return false
	})
	return found
}

// depth returns the number of names in the path of a node.
func (v *View) depth(ino uint64) uint64 {
	var d uint64
	for ino != Root && ino != 0 {
		n := v.Node(ino)
		if n == nil {
			break
		}
		ino = n.Parent
		d++
	}
	return d
}
