package state

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// known reports a version, command or field that this program does not know.
func known(b *statepb.Batch) error {
	if b.Version != Version {
		return fmt.Errorf("%w: batch version %d, this one knows version %d", ErrUnknown, b.Version, Version)
	}
	if u := b.ProtoReflect().GetUnknown(); len(u) > 0 {
		return fmt.Errorf("%w: batch with unknown field %d", ErrUnknown, fieldNumber(u))
	}
	for i, c := range b.Commands {
		if c == nil {
			return fmt.Errorf("%w: command %d is missing", ErrCorrupt, i)
		}
		if u := c.ProtoReflect().GetUnknown(); len(u) > 0 {
			return fmt.Errorf("%w: command %d with unknown field or operation %d", ErrUnknown, i, fieldNumber(u))
		}
		if c.Op == nil {
			return fmt.Errorf("%w: command %d has no operation", ErrUnknown, i)
		}
		m := message(c)
		if m == nil {
			return fmt.Errorf("%w: command %d has an empty operation %T", ErrCorrupt, i, c.Op)
		}
		if u := m.ProtoReflect().GetUnknown(); len(u) > 0 {
			return fmt.Errorf("%w: command %d, %s, has unknown field %d", ErrUnknown, i,
				m.ProtoReflect().Descriptor().Name(), fieldNumber(u))
		}
	}
	return nil
}

// fieldNumber returns the number of the first of some unknown fields.
func fieldNumber(unknown []byte) uint64 {
	var v uint64
	for i, b := range unknown {
		v |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 || i == 4 {
			break
		}
	}
	return v >> 3
}

// message returns the message of a command's operation, or nil.
func message(c *statepb.Command) proto.Message {
	var m proto.Message
	switch op := c.Op.(type) {
	case *statepb.Command_Format:
		m = op.Format
	case *statepb.Command_OpenSession:
		m = op.OpenSession
	case *statepb.Command_EndSession:
		m = op.EndSession
	case *statepb.Command_Renew:
		m = op.Renew
	case *statepb.Command_Barrier:
		m = op.Barrier
	case *statepb.Command_SetLimits:
		m = op.SetLimits
	case *statepb.Command_Make:
		m = op.Make
	case *statepb.Command_Remove:
		m = op.Remove
	case *statepb.Command_Rename:
		m = op.Rename
	case *statepb.Command_SetAttr:
		m = op.SetAttr
	case *statepb.Command_SetXattr:
		m = op.SetXattr
	case *statepb.Command_RemoveXattr:
		m = op.RemoveXattr
	case *statepb.Command_Forget:
		m = op.Forget
	case *statepb.Command_Acquire:
		m = op.Acquire
	case *statepb.Command_Release:
		m = op.Release
	case *statepb.Command_Cancel:
		m = op.Cancel
	case *statepb.Command_InUse:
		m = op.InUse
	case *statepb.Command_Commit:
		m = op.Commit
	case *statepb.Command_Invalidate:
		m = op.Invalidate
	case *statepb.Command_RangeLock:
		m = op.RangeLock
	case *statepb.Command_RangeUnlock:
		m = op.RangeUnlock
	case *statepb.Command_RangeCancel:
		m = op.RangeCancel
	}
	if m == nil || reflect.ValueOf(m).IsNil() {
		return nil
	}
	return m
}

// command applies one command: exactly once, if it is a session's.
func (s *State) command(c *statepb.Command) {
	s.now = c.TimeUnixNs
	done := Change{Kind: Done, Session: c.Session, Seq: c.Seq}
	if c.Session != 0 {
		x := s.session(c.Session)
		switch {
		case x == nil:
			done.Code = Ended
			s.emit(done)
			return
		case c.Seq <= x.Seq:
			return // a repeat: answered when it was applied
		case c.Seq > x.Seq+1:
			s.emit(Change{Kind: Gap, Session: c.Session, Seq: c.Seq, Next: x.Seq + 1})
			return
		}
		x.Seq = c.Seq
		s.dirty |= partRest
	}
	s.operate(c, &done)
	if c.Session != 0 {
		s.emit(done)
	}
}

// operate does what a command says; done becomes its answer. Operations on behalf of a host need a session.
func (s *State) operate(c *statepb.Command, done *Change) {
	switch op := c.Op.(type) {
	case *statepb.Command_Format:
		s.format(op.Format.Uid, op.Format.Gid)
		return
	case *statepb.Command_OpenSession:
		done.Code = s.openSession(op.OpenSession)
		return
	case *statepb.Command_EndSession:
		s.endSession(op.EndSession)
		return
	case *statepb.Command_Renew:
		s.renew(op.Renew)
		return
	case *statepb.Command_Barrier:
		return
	case *statepb.Command_SetLimits:
		done.Code = s.setLimits(op.SetLimits)
		return
	}
	if c.Session == 0 {
		return
	}
	switch op := c.Op.(type) {
	case *statepb.Command_Make:
		s.make(op.Make, done)
	case *statepb.Command_Remove:
		s.remove(op.Remove, done)
	case *statepb.Command_Rename:
		s.rename(op.Rename, done)
	case *statepb.Command_SetAttr:
		s.setAttr(op.SetAttr, done)
	case *statepb.Command_SetXattr:
		s.setXattr(op.SetXattr, done)
	case *statepb.Command_RemoveXattr:
		s.removeXattr(op.RemoveXattr, done)
	case *statepb.Command_Forget:
		s.forget(op.Forget, done)
	case *statepb.Command_Acquire:
		s.acquire(op.Acquire, done)
	case *statepb.Command_Release:
		s.release(op.Release, done)
	case *statepb.Command_Cancel:
		s.cancel(op.Cancel, done)
	case *statepb.Command_InUse:
		s.inUse(op.InUse, done)
	case *statepb.Command_Commit:
		s.commit(op.Commit, done)
	case *statepb.Command_Invalidate:
		s.invalidate(op.Invalidate, done)
	case *statepb.Command_RangeLock:
		s.rangeLock(op.RangeLock, done)
	case *statepb.Command_RangeUnlock:
		s.rangeUnlock(op.RangeUnlock, done)
	case *statepb.Command_RangeCancel:
		s.rangeCancel(op.RangeCancel, done)
	}
}

func (s *State) setLimits(op *statepb.SetLimits) Code {
	l, ok := s.cur.limits.with(op)
	if !ok {
		return Invalid
	}
	s.cur.limits = l
	s.emit(Change{Kind: Limited})
	return OK
}
