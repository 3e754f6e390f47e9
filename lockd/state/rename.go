package state

import "github.com/lockfs/lockfs/lockd/state/statepb"

func (s *State) rename(op *statepb.Rename, done *Change) {
	n, over, code := s.renamed(op)
	if code != OK {
		done.Code = code
		return
	}
	done.Ino = n.Ino
	if over == n {
		return // both names are the same
	}
	keep := op.Posix && !op.Drop && !n.Dir // of what is overwritten
	w := s.way(done.Session)
	if !op.Posix || op.Parent != op.NewParent {
		w.checkTree(n, op.Posix)
	}
	if over != nil {
		w.check(over.Ino, keep)
	}
	if done.Code = w.clear(); done.Code != OK {
		return
	}
	if over != nil {
		s.unlink(over, done.Session, keep)
	}
	m := *n
	m.Parent, m.Name, m.Ctime = op.NewParent, string(op.NewName), s.now
	s.deleteName(n.Parent, n.Name)
	s.setName(m.Parent, m.Name, m.Ino)
	s.setNode(&m)
	s.touchDir(op.Parent)
	if op.NewParent != op.Parent {
		s.touchDir(op.NewParent)
	}
	s.emit(Change{
		Kind: Moved, Session: done.Session, Ino: m.Ino, Dir: m.Dir,
		Parent: n.Parent, Name: n.Name, NewParent: m.Parent, NewName: m.Name,
	})
}

// renamed returns the node to move and the one that it replaces, if any, once all but locks permits it.
func (s *State) renamed(op *statepb.Rename) (n, over *Node, code Code) {
	if n, code = s.entry(op.Parent, op.Name, op.Ino); code != OK {
		return nil, nil, code
	}
	if _, code = s.directory(op.NewParent); code != OK {
		return nil, nil, code
	}
	if code = s.cur.CheckName(op.NewParent, op.NewName); code != OK {
		return nil, nil, code
	}
	if n.Dir && s.cur.within(op.NewParent, n.Ino) {
		return nil, nil, Loop
	}
	over = s.cur.Lookup(op.NewParent, string(op.NewName))
	switch {
	case over == nil:
	case op.Noreplace:
		return nil, nil, Exists
	case over == n:
		return n, over, OK
	default:
		if code = s.removable(over, n.Dir); code != OK {
			return nil, nil, code
		}
	}
	if to := s.cur.depth(op.NewParent); to > s.cur.depth(op.Parent) && to+1+s.cur.height(n) > s.cur.limits.Depth {
		return nil, nil, TooDeep
	}
	return n, over, OK
}

// within says whether a node is a directory or below it.
func (v *View) within(ino, dir uint64) bool {
	for ino != 0 {
		if ino == dir {
			return true
		}
		n := v.Node(ino)
		if n == nil {
			return false
		}
		ino = n.Parent
	}
	return false
}

// height returns how many levels there are below a node.
func (v *View) height(n *Node) uint64 {
	if !n.Dir {
		return 0
	}
	var h uint64
	for c := range v.ReadDir(n.Ino, "") {
		h = max(h, 1+v.height(c))
	}
	return h
}
