package fs

import (
	"strconv"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// userPrefix is the one namespace of extended attributes that there is.
const userPrefix = "user."

// shownXattr is an attribute of DESIGN 1.6 that says how a resource is and cannot be set.
type shownXattr struct {
	name  string
	value func(f *FS, n *state.Node) string
}

var shownXattrs = []shownXattr{
	{"generation", func(_ *FS, n *state.Node) string { return strconv.FormatUint(n.Generation, 10) }},
	{"holders", func(f *FS, n *state.Node) string { return strconv.Itoa(f.count(n.Ino, false)) }},
	{"mode", func(f *FS, n *state.Node) string { return f.strongest(n.Ino).String() }},
	{"token", func(f *FS, n *state.Node) string { return strconv.FormatUint(f.newestToken(n.Ino), 10) }},
	{"valid", func(_ *FS, n *state.Node) string {
		if n.Invalid {
			return "0"
		}
		return "1"
	}},
	{"waiters", func(f *FS, n *state.Node) string { return strconv.Itoa(f.count(n.Ino, true)) }},
}

// setXattrs are those below user.lockfs. that the owner and root can set.
var setXattrs = []string{state.XattrEphemeral, state.XattrLockDelay, state.XattrSlots}

// count returns how many locks are held on a resource, or requests wait for it.
func (f *FS) count(ino uint64, waiting bool) (n int) {
	f.host.LocksOf(ino, func(mode, wanted queue.Mode, _ uint64) {
		if waiting && wanted != queue.None || !waiting && mode != queue.None {
			n++
		}
	})
	return n
}

// strongest returns the join of all modes held.
func (f *FS) strongest(ino uint64) (m queue.Mode) {
	f.host.LocksOf(ino, func(mode, _ queue.Mode, _ uint64) { m = queue.Join(m, mode) })
	return m
}

// newestToken returns a lower bound of the newest token of a resource (DESIGN 3.5).
func (f *FS) newestToken(ino uint64) (newest uint64) {
	f.host.LocksOf(ino, func(_, _ queue.Mode, token uint64) { newest = max(newest, token) })
	return newest
}

// xattrNode returns the node whose attributes a node id shows.
func (f *FS) xattrNode(node uint64) *state.Node {
	if isAlias(node) {
		a, ok := f.aliases.get(node)
		if !ok {
			return nil
		}
		node = a.node
	}
	return f.node(node)
}

// GetXAttr reads an attribute.
func (f *FS) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	if isSpecial(h.NodeId) {
		return 0, fuse.ENOATTR
	}
	n := f.xattrNode(h.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	if short, ok := strings.CutPrefix(name, state.XattrPrefix); ok {
		for _, x := range shownXattrs {
			if x.name == short {
				if f.host.Fresh() != nil {
					return 0, fuse.EIO // as it was says nothing
				}
				return answerXattr(dest, []byte(x.value(f, n)))
			}
		}
	}
	v, ok := n.Xattr(name)
	if !ok {
		return 0, fuse.ENOATTR
	}
	return answerXattr(dest, v)
}

// answerXattr copies a value, or says how long it is.
func answerXattr(dest, value []byte) (uint32, fuse.Status) {
	if len(dest) < len(value) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr lists the attributes, those that only show how the resource is included.
func (f *FS) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if isSpecial(h.NodeId) {
		return 0, fuse.OK
	}
	n := f.xattrNode(h.NodeId)
	if n == nil {
		return 0, fuse.Status(syscall.ESTALE)
	}
	var list []byte
	for _, x := range shownXattrs {
		list = append(append(append(list, state.XattrPrefix...), x.name...), 0)
	}
	for _, x := range n.Xattrs {
		list = append(append(list, x.Name...), 0)
	}
	return answerXattr(dest, list)
}

// checkXattr says whether somebody may set or remove an attribute; the kernel has checked that he may write to the file.
func checkXattr(h *fuse.InHeader, n *state.Node, name string) syscall.Errno {
	if !strings.HasPrefix(name, userPrefix) {
		return syscall.EOPNOTSUPP
	}
	if !strings.HasPrefix(name, state.XattrPrefix) {
		return 0
	}
	for _, settable := range setXattrs {
		if name == settable {
			if h.Uid == 0 || h.Uid == n.UID {
				return 0
			}
			break
		}
	}
	return syscall.EPERM
}

// SetXAttr sets an attribute.
func (f *FS) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, name string, data []byte) fuse.Status {
	return f.changeXattr(&in.InHeader, name, func(ino uint64) *statepb.Command {
		return &statepb.Command{Op: &statepb.Command_SetXattr{SetXattr: &statepb.SetXattr{
			Ino: ino, Name: []byte(name), Value: append([]byte(nil), data...),
			Create: in.Flags&xattrCreate != 0, Replace: in.Flags&xattrReplace != 0,
		}}}
	})
}

// setxattr(2).
const (
	xattrCreate  = 1
	xattrReplace = 2
)

// RemoveXAttr removes an attribute.
func (f *FS) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return f.changeXattr(h, name, func(ino uint64) *statepb.Command {
		return &statepb.Command{Op: &statepb.Command_RemoveXattr{RemoveXattr: &statepb.RemoveXattr{Ino: ino, Name: []byte(name)}}}
	})
}

func (f *FS) changeXattr(h *fuse.InHeader, name string, command func(ino uint64) *statepb.Command) fuse.Status {
	if isSpecial(h.NodeId) {
		return fuse.EPERM
	}
	n := f.xattrNode(h.NodeId)
	if n == nil {
		return fuse.Status(syscall.ESTALE)
	}
	if errno := checkXattr(h, n, name); errno != 0 {
		return fuse.Status(errno)
	}
	c := f.call(h, nil)
	if isLockFile(h.NodeId) {
		c.From = nil
	}
	_, err := f.host.Do(c, command(n.Ino))
	return status(err, forTree)
}
