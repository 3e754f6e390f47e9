package state

import (
	"bytes"
	"slices"
	"strconv"
	"time"
)

// Root is the inode number of the root directory.
const Root uint64 = 1

// The attributes of a node that the state itself acts upon. All other names below user.lockfs. are refused.
const (
	XattrPrefix    = "user.lockfs."
	XattrEphemeral = "user.lockfs.ephemeral" // directories: "1", files in it go with their last lock; or "0"
	XattrLockDelay = "user.lockfs.lockdelay" // seconds, 0 to 60, see [Node.LockDelay]
	XattrSlots     = "user.lockfs.slots"     // directories: a count for `lockfs run --slots`, 1 to 1<<20
)

// Node is a file or a directory, and so a resource with its value block. A directory's Value, Generation and Invalid
// are those of its `.lock`. A Node is immutable and shared by views: a change makes a new one. (It must not have a method
// Copy or IsoCopy: the trees would call it for every node that they copy. The same goes for all that is kept in them.)
type Node struct {
	Ino    uint64
	Parent uint64 // 0: the root or an orphan
	Name   string // empty: the root or an orphan
	Orphan uint64 // the session that has this nameless file open in a posix view, else 0

	Perm      uint32 // 07777
	UID, GID  uint32
	Dir       bool
	Invalid   bool // a holder of PW or EX was lost; cleared by the next commit under PW or EX
	Ephemeral bool // a directory with user.lockfs.ephemeral=1

	Atime, Mtime, Ctime int64 // ns since the epoch

	Generation uint64 // number of commits
	Value      []byte
	Xattrs     []Attribute // by name
}

// Attribute is an extended attribute.
type Attribute struct {
	Name  string
	Value []byte
}

// Xattr returns the attribute of that name.
func (n *Node) Xattr(name string) ([]byte, bool) {
	i, ok := n.xattr(name)
	if !ok {
		return nil, false
	}
	return n.Xattrs[i].Value, true
}

// LockDelay returns how long the node's lock is withheld after a holder's session ended otherwise than by leaving.
func (n *Node) LockDelay() time.Duration {
	v, ok := n.Xattr(XattrLockDelay)
	if !ok {
		return 0
	}
	s, _ := parseNumber(v, 60)
	return time.Duration(s) * time.Second
}

// weight returns the bytes that count against the limit of bytes.
func (n *Node) weight() uint64 {
	return uint64(len(n.Value)) + xattrsWeight(n.Xattrs)
}

func (n *Node) xattr(name string) (int, bool) {
	return slices.BinarySearchFunc(n.Xattrs, name, func(x Attribute, name string) int {
		switch {
		case x.Name < name:
			return -1
		case x.Name > name:
			return 1
		}
		return 0
	})
}

func xattrsWeight(xs []Attribute) uint64 {
	var sum uint64
	for i := range xs {
		sum += uint64(len(xs[i].Name) + len(xs[i].Value))
	}
	return sum
}

// checkXattr says whether the attribute may have this value on the node.
func checkXattr(n *Node, name string, value []byte) bool {
	switch name {
	case XattrEphemeral:
		return n.Dir && (bytes.Equal(value, []byte("0")) || bytes.Equal(value, []byte("1")))
	case XattrLockDelay:
		_, ok := parseNumber(value, 60)
		return ok
	case XattrSlots:
		v, ok := parseNumber(value, 1<<20)
		return n.Dir && ok && v > 0
	}
	return len(name) < len(XattrPrefix) || name[:len(XattrPrefix)] != XattrPrefix
}

// parseNumber reads a plain decimal number of at most limit.
func parseNumber(v []byte, limit uint64) (uint64, bool) {
	if len(v) == 0 || len(v) > 10 || v[0] == '+' || v[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(v), 10, 64)
	return n, err == nil && n <= limit
}
