package state

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// known reports a version, command or field that this program does not know.
func known(b *statepb.Batch) error {
	if b.Version != Version {
		return fmt.Errorf("%w: batch version %d, this one knows version %d", ErrUnknown, b.Version, Version)
	}
	if err := fields(b); err != nil {
		return err
	}
	for i, c := range b.Commands {
		if err := knownCommand(c); err != nil {
			return fmt.Errorf("command %d: %w", i, err)
		}
	}
	return nil
}

func knownCommand(c *statepb.Command) error {
	if err := fields(c); err != nil {
		return err
	}
	m := c.ProtoReflect()
	field := m.WhichOneof(operation)
	if field == nil {
		return fmt.Errorf("%w: no operation", ErrUnknown)
	}
	if err := fields(m.Get(field).Message().Interface()); err != nil {
		return err
	}
	switch op := c.Op.(type) { // messages within
	case *statepb.Command_Acquire:
		return eachKnown(op.Acquire.Steps)
	case *statepb.Command_Renew:
		return eachKnown(op.Renew.Renewals)
	case *statepb.Command_Report:
		if err := eachKnown(op.Report.Gone); err != nil {
			return err
		}
		return knownReports(op.Report.Set)
	case *statepb.Command_Tell:
		return eachKnown(op.Tell.Told)
	case *statepb.Command_Commit:
		return fields(op.Commit.GetWrite())
	case *statepb.Command_EndSession:
		if r := op.EndSession.Reason; r < 0 || int(r) >= len(reasons) {
			return fmt.Errorf("%w: reason %d to end a session", ErrUnknown, r)
		}
	}
	return nil
}

var operation = (*statepb.Command)(nil).ProtoReflect().Descriptor().Oneofs().ByName("op")

func eachKnown[M proto.Message](ms []M) error {
	for _, m := range ms {
		if err := fields(m); err != nil {
			return err
		}
	}
	return nil
}

// knownReports looks at reports and at what is in them.
func knownReports(list []*statepb.Reported) error {
	for _, r := range list {
		if err := fields(r); err != nil {
			return err
		}
		if err := eachKnown(r.GetHolds()); err != nil {
			return err
		}
	}
	return nil
}

// fields reports the first field of a message that this program does not know.
func fields(m proto.Message) error {
	r := m.ProtoReflect()
	u := r.GetUnknown()
	if len(u) == 0 {
		return nil
	}
	number, _, _ := protowire.ConsumeTag(u)
	return fmt.Errorf("%w: field %d of %s", ErrUnknown, number, r.Descriptor().Name())
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
	if len(s.suspects) > 0 {
		s.search()
	}
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
	case *statepb.Command_SetHost:
		done.Code = s.setHost(op.SetHost)
		return
	case *statepb.Command_RemoveHost:
		s.removeHost(op.RemoveHost)
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
	case *statepb.Command_Report:
		s.report(op.Report, done)
	case *statepb.Command_Confirm:
		s.confirm(op.Confirm, done)
	case *statepb.Command_Watch:
		s.watch(op.Watch, done)
	case *statepb.Command_Tell:
		s.tell(op.Tell, done)
	}
}

func (s *State) setLimits(op *statepb.SetLimits) Code {
	l, ok := s.cur.limits.with(op)
	if !ok {
		s.emit(Change{Kind: Limited, Code: Invalid})
		return Invalid
	}
	s.cur.limits = l
	s.emit(Change{Kind: Limited})
	return OK
}
