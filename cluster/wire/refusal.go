package wire

import (
	"errors"
	"fmt"
)

// Code is why an acceptor refuses a connection. The numbers are on the wire.
type Code uint8

const (
	ok           Code = 0
	Malformed    Code = 1 // the preface is none
	OtherVersion Code = 2 // another version of the protocol
	OtherCluster Code = 3 // the two hosts are of different clusters
	NoMember     Code = 4 // raft's connections are for members, and one of the two is not one yet
	Removed      Code = 5 // the dialer was removed from the cluster
	SameHost     Code = 6 // both have the same id: a data directory was copied
	NeedTLS      Code = 7 // the acceptor wants TLS, the dialer does without
	NoTLS        Code = 8 // the other way round
	Busy         Code = 9 // too many connections
	Starting     Code = 10
	Certificate  Code = 11 // one does not accept the other's certificate; told by TLS itself
	NotLockfs    Code = 12 // whatever is there, it is no lockfs daemon
)

var codeNames = map[Code]string{
	ok: "ok", Malformed: "malformed preface", OtherVersion: "another version", OtherCluster: "another cluster", NoMember: "no member",
	Removed: "removed", SameHost: "the same host id", NeedTLS: "TLS needed", NoTLS: "no TLS here", Busy: "busy",
	Starting: "starting", Certificate: "certificate", NotLockfs: "not lockfs",
}

func (c Code) String() string {
	if s := codeNames[c]; s != "" {
		return s
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// Refused is the error of a connection that the other side refused, or that this one did not want with that other side.
// It was logged already, unless the other host is only starting.
type Refused struct {
	Code    Code
	Address string   // of the other side
	Peer    Identity // as far as it told
	Text    string   // what is in the way and what to do
}

func (e *Refused) Error() string { return fmt.Sprintf("connect to %s: %s", e.Address, e.Text) }

// RefusedAs says whether err is a refusal for that reason.
func RefusedAs(err error, c Code) bool {
	r := (*Refused)(nil)
	return errors.As(err, &r) && r.Code == c
}

// unknown is for an id that was not told.
func unknown(id string) string {
	if id == "" {
		return "(none)"
	}
	return id
}
