package state

import (
	"bytes"
	"slices"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// own returns the node for a session to change: an orphan is its session's alone.
func (s *State) own(ino, session uint64) *Node {
	n := s.cur.Node(ino)
	if n == nil || n.Orphan != 0 && n.Orphan != session {
		return nil
	}
	return n
}

func (s *State) setAttr(op *statepb.SetAttr, done *Change) {
	old := s.own(op.Ino, done.Session)
	if old == nil {
		done.Code = NotFound
		return
	}
	n := *old
	if op.Perm != nil {
		n.Perm = *op.Perm & 0o7777
	}
	if op.Uid != nil {
		n.UID = *op.Uid
	}
	if op.Gid != nil {
		n.GID = *op.Gid
	}
	if op.Atime != nil {
		n.Atime = *op.Atime
	}
	if op.Mtime != nil {
		n.Mtime = *op.Mtime
	}
	n.Ctime = s.now
	s.setNode(&n)
	done.Ino = n.Ino
	s.emit(Change{Kind: Attr, Ino: n.Ino, Session: done.Session})
}

func (s *State) setXattr(op *statepb.SetXattr, done *Change) {
	n := s.own(op.Ino, done.Session)
	if n == nil {
		done.Code = NotFound
		return
	}
	name := string(op.Name)
	i, there := n.xattr(name)
	switch l := &s.cur.limits; {
	case len(name) == 0 || bytes.IndexByte(op.Name, 0) >= 0:
		done.Code = Invalid
	case len(name) > maxNameLen:
		done.Code = NameTooLong
	case !checkXattr(n, name, op.Value):
		done.Code = Invalid
	case op.Create && there:
		done.Code = Exists
	case op.Replace && !there:
		done.Code = NoAttr
	case uint64(len(op.Value)) > l.XattrLen:
		done.Code = TooBig
	}
	if done.Code != OK {
		return
	}
	xs := slices.Clone(n.Xattrs)
	x := Attribute{Name: name, Value: op.Value}
	if there {
		xs[i] = x
	} else {
		xs = slices.Insert(xs, i, x)
	}
	before, after := xattrsWeight(n.Xattrs), xattrsWeight(xs)
	if after > s.cur.limits.XattrsLen && after > before || s.overfull(before, after) {
		done.Code = NoSpace
		return
	}
	s.putXattrs(n, name, xs, done)
}

func (s *State) removeXattr(op *statepb.RemoveXattr, done *Change) {
	n := s.own(op.Ino, done.Session)
	if n == nil {
		done.Code = NotFound
		return
	}
	name := string(op.Name)
	i, there := n.xattr(name)
	if !there {
		done.Code = NoAttr
		return
	}
	s.putXattrs(n, name, slices.Delete(slices.Clone(n.Xattrs), i, i+1), done)
}

func (s *State) putXattrs(old *Node, name string, xs []Attribute, done *Change) {
	n := *old
	n.Xattrs, n.Ctime = xs, s.now
	if name == XattrEphemeral {
		v, _ := n.Xattr(XattrEphemeral)
		n.Ephemeral = string(v) == "1"
	}
	s.setNode(&n)
	done.Ino = n.Ino
	s.emit(Change{Kind: Xattr, Ino: n.Ino, Name: name, Session: done.Session})
}

// overfull says whether replacing some bytes by others would pass the limit of all bytes. Shrinking never does.
func (s *State) overfull(before, after uint64) bool {
	return after > before && s.cur.bytes-before+after > s.cur.limits.Bytes
}
