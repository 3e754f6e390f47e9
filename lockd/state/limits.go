package state

import "github.com/lockfs/lockfs/lockd/state/statepb"

// Limits are those of the cluster, the same on every host since they are part of the state. A SetLimits command changes them;
// what is there already stays.
type Limits struct {
	NameLen   uint64 // bytes of a name
	Depth     uint64 // of a path; the root is 0
	ValueLen  uint64 // bytes of a value
	Nodes     uint64 // files and directories, orphans and the root included
	Bytes     uint64 // of all values and attributes
	XattrLen  uint64 // bytes of an attribute's value
	XattrsLen uint64 // bytes of all attributes of a node, names included
	Sessions  uint64
	Ranges    uint64 // byte-range locks and waits of one session; a new lock needs room for two, it may cut another
	HostLocks uint64 // host locks of one session, those it only waits for included
}

// DefaultLimits are the limits of a new cluster.
func DefaultLimits() Limits {
	return Limits{
		NameLen: 255, Depth: 64, ValueLen: 256 << 10, Nodes: 1 << 20, Bytes: 1 << 30,
		XattrLen: 4 << 10, XattrsLen: 16 << 10, Sessions: 1024, Ranges: 1 << 16, HostLocks: 1 << 20,
	}
}

// The ceilings keep the fixed sizes of the protocol and of snapshots: a larger wish is refused.
const (
	maxNameLen  = 255
	maxDepth    = 1024
	maxValueLen = 4 << 20
	maxXattrLen = 64 << 10 // as XATTR_SIZE_MAX
	maxSessions = 1 << 14
)

// with returns the limits changed as asked, and whether they may be had.
func (l Limits) with(op *statepb.SetLimits) (Limits, bool) {
	set := func(to *uint64, v uint64) {
		if v != 0 {
			*to = v
		}
	}
	set(&l.NameLen, op.NameLen)
	set(&l.Depth, op.Depth)
	set(&l.ValueLen, op.ValueLen)
	set(&l.Nodes, op.Nodes)
	set(&l.Bytes, op.Bytes)
	set(&l.XattrLen, op.XattrLen)
	set(&l.XattrsLen, op.XattrsLen)
	set(&l.Sessions, op.Sessions)
	set(&l.Ranges, op.Ranges)
	set(&l.HostLocks, op.HostLocks)
	return l, l.NameLen <= maxNameLen && l.Depth <= maxDepth && l.ValueLen <= maxValueLen && l.XattrLen <= maxXattrLen &&
		l.XattrsLen <= maxXattrLen && l.Sessions <= maxSessions
}

// saved returns the limits as a snapshot has them.
func (l Limits) saved() *statepb.SetLimits {
	return &statepb.SetLimits{
		NameLen: l.NameLen, Depth: l.Depth, ValueLen: l.ValueLen, Nodes: l.Nodes, Bytes: l.Bytes, XattrLen: l.XattrLen,
		XattrsLen: l.XattrsLen, Sessions: l.Sessions, Ranges: l.Ranges, HostLocks: l.HostLocks,
	}
}
