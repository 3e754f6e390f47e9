package state

import (
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// format gives the root its owner, once.
func (s *State) format(uid, gid uint32) {
	if s.cur.formatted {
		return
	}
	s.cur.formatted = true
	n := *s.cur.Node(Root)
	n.UID, n.GID = uid, gid
	n.Atime, n.Mtime, n.Ctime = s.now, s.now, s.now
	s.setNode(&n)
	s.emit(Change{Kind: Attr, Ino: Root})
}

// How long a session lasts without renewal, where the host asks for nothing and at least and at most.
const (
	DefaultTTL = 10 * time.Second
	MinTTL     = 500 * time.Millisecond
	MaxTTL     = time.Hour
)

// ttl returns what a session gets that asks for so many ns.
func ttl(ns int64) time.Duration {
	if ns == 0 {
		return DefaultTTL
	}
	return min(max(time.Duration(ns), MinTTL), MaxTTL)
}

// openSession opens a session. Its id is the index of the entry, or the next number that no session had. Host, version
// and boot id may have 255 bytes.
func (s *State) openSession(op *statepb.OpenSession) Code {
	for _, x := range s.cur.sessions {
		if x.Host == op.Host && x.Nonce == op.Nonce {
			s.emit(Change{Kind: SessionOpened, Session: x.ID, Host: x.Host, Nonce: x.Nonce, TTL: x.TTL})
			return OK
		}
	}
	code := OK
	switch {
	case max(len(op.Host), len(op.Version), len(op.BootId)) > maxNameLen:
		code = NameTooLong
	case uint64(len(s.cur.sessions)) >= s.cur.limits.Sessions:
		code = TooMany
	}
	if code != OK {
		s.emit(Change{Kind: SessionOpened, Host: op.Host, Nonce: op.Nonce, Code: code})
		return code
	}
	s.format(op.Uid, op.Gid)
	id := max(s.index, s.cur.lastSession+1)
	s.cur.lastSession = id
	s.ownSessions()
	s.cur.sessions = append(s.cur.sessions, &session{epoch: s.epoch, Session: Session{
		ID: id, Host: op.Host, Nonce: op.Nonce, Version: op.Version, BootID: op.BootId, Renewed: s.index,
		TTL: ttl(op.Ttl),
	}})
	s.emit(Change{Kind: SessionOpened, Session: id, Host: op.Host, Nonce: op.Nonce, TTL: ttl(op.Ttl)})
	return OK
}

// renew notes renewals, and the leader's time, which lets lockdelays run out.
func (s *State) renew(op *statepb.Renew) {
	for _, r := range op.Renewals {
		x := s.session(r.Session)
		if x == nil {
			continue
		}
		x.Renewed, x.Stamp = s.index, r.Stamp
		s.emit(Change{Kind: SessionRenewed, Session: x.ID, Stamp: r.Stamp})
	}
	s.dirty |= partRest
	s.tick(s.now)
}

// endSession ends a session: its locks go and so do its waits, values that it held in PW or EX become invalid and locks
// are withheld where their nodes say so, unless it left. A later renewal saves it from expiry.
func (s *State) endSession(op *statepb.EndSession) {
	i, ok := s.cur.findSession(op.Session)
	if !ok {
		return
	}
	reason := reasons[op.Reason]
	x := s.cur.sessions[i]
	if reason == Expired && x.Renewed > op.RenewedIndex {
		return
	}
	s.ownSessions()
	s.cur.sessions = slices.Delete(s.cur.sessions, i, i+1)
	s.emit(Change{Kind: SessionEnded, Session: x.ID, Host: x.Host, Reason: reason})
	s.dropLocks(x.ID, reason)
	s.dropRanges(x.ID)
	s.dropReports(x.ID)
	s.dropOrphans(x.ID)
}

// reasons are those of the log; known refuses all others.
var reasons = [...]Reason{
	statepb.EndReason_EXPIRED: Expired,
	statepb.EndReason_LEAVE:   Leave,
	statepb.EndReason_RESTART: Restarted,
}
