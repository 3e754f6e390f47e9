package state

import "github.com/lockfs/lockfs/lockd/state/statepb"

// commit stores a value (DESIGN 1.4, 1.7). What holds PW or EX in the state when it commits makes the value valid.
func (s *State) commit(op *statepb.Commit, done *Change) {
	old := s.own(op.Ino, done.Session)
	if old == nil {
		done.Code = Stale
		return
	}
	done.Ino, done.Generation = old.Ino, old.Generation
	writer := s.cur.HostLock(op.Ino, done.Session).Writes()
	switch {
	case op.Posix:
	case !writer:
		done.Code = NotHolder
		return
	case op.BaseGeneration != old.Generation:
		done.Code = Stale
		return
	}
	value, code := s.newValue(op, old.Value)
	if code != OK {
		done.Code = code
		return
	}
	n := *old
	n.Value = value
	n.Generation++
	n.Ctime = s.now
	if !n.Dir {
		n.Mtime = s.now // a directory's is that of its entries
	}
	if writer {
		n.Invalid = false
	}
	s.setNode(&n)
	done.Generation = n.Generation
	s.emit(Change{Kind: Value, Ino: n.Ino, Generation: n.Generation, Session: done.Session})
}

// newValue returns the value that a commit makes of the present one; a whole value is the command's own bytes.
func (s *State) newValue(op *statepb.Commit, old []byte) ([]byte, Code) {
	size, ok := newSize(op, uint64(len(old)), s.cur.limits.ValueLen)
	switch {
	case !ok:
		return nil, TooBig
	case s.overfull(uint64(len(old)), size):
		return nil, NoSpace
	}
	if op.Change == nil {
		return nil, Invalid
	}
	if size == 0 {
		return nil, OK
	}
	if c, ok := op.Change.(*statepb.Commit_Whole); ok {
		return c.Whole, OK
	}
	v := make([]byte, size)
	switch c := op.Change.(type) {
	case *statepb.Commit_Write:
		copy(v, old)
		if b := c.Write.GetBytes(); len(b) > 0 {
			copy(v[c.Write.Offset:], b)
		}
	case *statepb.Commit_Truncate:
		copy(v, old)
	case *statepb.Commit_Append:
		copy(v[copy(v, old):], c.Append)
	}
	return v, OK
}

// newSize returns the length of the value after a commit, and whether the limit permits it. A value that is past a limit
// lowered since may stay as long as it is.
func newSize(op *statepb.Commit, old, limit uint64) (uint64, bool) {
	size := old
	switch c := op.Change.(type) {
	case *statepb.Commit_Whole:
		size = uint64(len(c.Whole))
	case *statepb.Commit_Write:
		off, n := c.Write.GetOffset(), uint64(len(c.Write.GetBytes()))
		if off > limit || off+n > max(limit, old) {
			return 0, false
		}
		if n > 0 { // writing nothing extends nothing
			size = max(old, off+n)
		}
	case *statepb.Commit_Truncate:
		size = c.Truncate
	case *statepb.Commit_Append:
		size = old + uint64(len(c.Append))
	}
	return size, size <= limit || size <= old
}

// invalidate marks a value invalid: a process that held PW or EX was killed.
func (s *State) invalidate(op *statepb.Invalidate, done *Change) {
	switch {
	case s.own(op.Ino, done.Session) == nil:
		done.Code = NotFound
	case !s.cur.HostLock(op.Ino, done.Session).Writes():
		done.Code = NotHolder
	default:
		done.Ino = op.Ino
		s.spoil(op.Ino, done.Session)
	}
}

func (s *State) spoil(ino, session uint64) {
	old := s.cur.Node(ino)
	if old.Invalid {
		return
	}
	n := *old
	n.Invalid = true
	s.setNode(&n)
	s.emit(Change{Kind: Invalidated, Ino: ino, Session: session})
}
