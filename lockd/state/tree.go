package state

import (
	"bytes"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Names that lockfs keeps for itself. They are no entries of the tree: package fs answers for them.
const (
	LockName    = ".lock"   // in every directory: the lock file of the directory
	ControlName = ".lockfs" // in the root
)

// CheckName says whether a directory may have an entry of that name: OK, Invalid (empty, ".", "..", a slash or a NUL),
// NameTooLong or Reserved. What looks like an alias ("name@ex") is a plain name here; package fs never creates one.
func (v *View) CheckName(parent uint64, name []byte) Code {
	switch {
	case len(name) == 0 || string(name) == "." || string(name) == "..":
		return Invalid
	case uint64(len(name)) > v.limits.NameLen:
		return NameTooLong
	case bytes.IndexByte(name, '/') >= 0 || bytes.IndexByte(name, 0) >= 0:
		return Invalid
	case string(name) == LockName || parent == Root && string(name) == ControlName:
		return Reserved
	}
	return OK
}

// directory returns a directory that names can be looked up in.
func (s *State) directory(ino uint64) (*Node, Code) {
	n := s.cur.Node(ino)
	switch {
	case n == nil:
		return nil, NotFound
	case !n.Dir:
		return nil, NotDir
	}
	return n, OK
}

// entry returns what a name in a directory leads to. If ino is not 0, it must be that.
func (s *State) entry(parent uint64, name []byte, ino uint64) (*Node, Code) {
	if _, code := s.directory(parent); code != OK {
		return nil, code
	}
	if code := s.cur.CheckName(parent, name); code != OK {
		return nil, code
	}
	n := s.cur.Lookup(parent, string(name))
	switch {
	case n == nil:
		return nil, NotFound
	case ino != 0 && n.Ino != ino:
		return nil, Stale
	}
	return n, OK
}

func (s *State) make(op *statepb.Make, done *Change) {
	if _, done.Code = s.directory(op.Parent); done.Code != OK {
		return
	}
	if done.Code = s.cur.CheckName(op.Parent, op.Name); done.Code != OK {
		return
	}
	name := string(op.Name)
	if n := s.cur.Lookup(op.Parent, name); n != nil {
		done.Code, done.Ino = Exists, n.Ino
		return
	}
	switch {
	case s.cur.depth(op.Parent)+1 > s.cur.limits.Depth:
		done.Code = TooDeep
		return
	case uint64(s.cur.nodes.Len()) >= s.cur.limits.Nodes:
		done.Code = NoSpace
		return
	}
	n := &Node{
		Ino: s.cur.nextIno, Parent: op.Parent, Name: name, Dir: op.Dir, Perm: op.Perm & 0o7777, UID: op.Uid, GID: op.Gid,
		Atime: s.now, Mtime: s.now, Ctime: s.now,
	}
	s.cur.nextIno++
	s.setNode(n)
	s.setName(op.Parent, name, n.Ino)
	s.touchDir(op.Parent)
	s.emit(Change{Kind: Made, Session: done.Session, Parent: op.Parent, Name: name, Ino: n.Ino, Dir: n.Dir})
	if op.Lock {
		s.lockMade(n, done.Session)
	}
	done.Ino = n.Ino
}

// touchDir notes that a directory's entries changed.
func (s *State) touchDir(ino uint64) {
	n := *s.cur.Node(ino)
	n.Mtime, n.Ctime = s.now, s.now
	s.setNode(&n)
}

// lockMade gives the maker of a node EX on it and CW on its ancestors, if all that can be had at once (DESIGN 3.1).
func (s *State) lockMade(n *Node, session uint64) {
	path := s.cur.Ancestors(s.path[:0], n.Parent)
	s.path = path
	if s.session(session).Locks+uint64(len(path))+1 > s.cur.limits.HostLocks {
		return
	}
	for _, ino := range path {
		if !s.raisable(ino, session, queue.CW) {
			return
		}
	}
	for _, ino := range path {
		s.raiseNow(ino, session, queue.CW)
	}
	s.raiseNow(n.Ino, session, queue.EX)
}

func (s *State) remove(op *statepb.Remove, done *Change) {
	n, code := s.entry(op.Parent, op.Name, op.Ino)
	if code == OK {
		code = s.removable(n, op.Dir)
	}
	if code != OK {
		done.Code = code
		return
	}
	done.Ino = n.Ino
	keep := op.Posix && !op.Drop && !n.Dir
	w := s.way(done.Session)
	w.check(n.Ino, keep)
	if done.Code = w.clear(); done.Code != OK {
		return
	}
	s.unlink(n, done.Session, keep)
	s.touchDir(op.Parent)
}

// removable says whether a node is of the kind to be removed, and empty.
func (s *State) removable(n *Node, dir bool) Code {
	switch {
	case dir && !n.Dir:
		return NotDir
	case !dir && n.Dir:
		return IsDir
	case dir && s.cur.hasChildren(n.Ino):
		return NotEmpty
	}
	return OK
}

// unlink takes a node out of its directory. A file that is kept lives on as an orphan of the session, with its
// locks; else all ends here, the session's own locks on it included.
func (s *State) unlink(n *Node, session uint64, keep bool) {
	s.emit(Change{
		Kind: Removed, Session: session, Parent: n.Parent, Name: n.Name, Ino: n.Ino, Dir: n.Dir, Orphan: keep,
	})
	s.deleteName(n.Parent, n.Name)
	if !keep {
		s.deleteNode(n.Ino)
		s.forgetLocks(n.Ino)
		s.forgetRanges(n.Ino)
		return
	}
	o := *n
	o.Parent, o.Name, o.Orphan, o.Ctime = 0, "", session, s.now
	s.setNode(&o)
	s.cur.orphans.Set(o.Ino, session)
	s.dirty |= partOrphans
}

// destroy ends a node whose last lock went (ephemeral), or an orphan.
func (s *State) destroy(n *Node) {
	s.emit(Change{Kind: Removed, Parent: n.Parent, Name: n.Name, Ino: n.Ino, Dir: n.Dir})
	if n.Parent != 0 {
		s.deleteName(n.Parent, n.Name)
		s.touchDir(n.Parent)
	} else {
		s.cur.orphans.Delete(n.Ino)
		s.dirty |= partOrphans
	}
	s.deleteNode(n.Ino)
	s.forgetLocks(n.Ino)
	s.forgetRanges(n.Ino)
}

func (s *State) forget(op *statepb.Forget, done *Change) {
	n := s.cur.Node(op.Ino)
	if n == nil || n.Orphan != done.Session {
		done.Code = NotFound
		return
	}
	s.destroy(n)
}

// dropOrphans ends the orphans of a session that ended.
func (s *State) dropOrphans(session uint64) {
	var gone []uint64
	s.cur.orphans.Scan(func(ino, owner uint64) bool {
		if owner == session {
			gone = append(gone, ino)
		}
		return true
	})
	for _, ino := range gone {
		s.destroy(s.cur.Node(ino))
	}
}
