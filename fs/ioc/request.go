package ioc

import (
	"strings"
	"time"
)

// Flags of a request or conversion; the VMS names, see sys$enq.
type Flags uint32

const (
	NoQueue   Flags = 1 << iota // EAGAIN at once instead of waiting
	Expedite                    // NL only: granted without queueing
	QueCvt                      // an upward conversion queues behind the conversions that wait
	HeadQue                     // at the head of its queue
	AltPR                       // PR if the mode asked for cannot be had at once
	AltCW                       // CW likewise
	NoBAST                      // no blocking notices for this lock
	NoDlckWt                    // its wait counts for no deadlock
	NoDlckBlk                   // its blocking others counts for no deadlock
	Async                       // return at once; poll(2) and the granted notice tell when it is granted

	allFlags = 1<<iota - 1
)

var flagNames = [...]string{"noqueue", "expedite", "quecvt", "headque", "altpr", "altcw", "nobast", "nodlckwt", "nodlckblk", "async"}

// String returns the names of the bits set, joined by commas.
func (f Flags) String() string {
	var names []string
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// ParseFlag returns the bit of one name, in lower case.
func ParseFlag(name string) (Flags, bool) {
	for i, n := range flagNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// MaxMode is the highest mode number, EX.
const MaxMode = 6

// Request is the struct of CmdRequest, which takes a lock on a descriptor that has none, and of
// CmdConvert, which changes the mode of one that has.
type Request struct {
	Mode  uint32        // in: asked for, 1..6; out: granted (differs with altpr, altcw), 0 while an async request waits
	Flags Flags         // in
	Wait  time.Duration // in: gives up (ETIMEDOUT) after it; 0 waits for ever
	TTL   time.Duration // in: the lock is taken away (lost) so long after the grant; 0 never; not for conversions that keep it

	Token      uint64 // out: the fencing token of the grant
	Generation uint64 // out: commits to the value so far
	Valid      bool   // out: false if a holder of PW or EX died and nobody committed since
}

// DecodeRequest reads a payload and checks what can be checked without the descriptor.
func DecodeRequest(b []byte) (Request, error) {
	if err := expect(b, RequestSize, "request"); err != nil {
		return Request{}, err
	}
	r := Request{
		Mode:       order.Uint32(b),
		Flags:      Flags(order.Uint32(b[4:])),
		Wait:       time.Duration(order.Uint64(b[8:])),
		TTL:        time.Duration(order.Uint64(b[16:])),
		Token:      order.Uint64(b[24:]),
		Generation: order.Uint64(b[32:]),
		Valid:      order.Uint32(b[40:]) != 0,
	}
	switch {
	case r.Mode > MaxMode:
		return Request{}, malformed("mode %d, at most %d", r.Mode, MaxMode)
	case r.Flags&^allFlags != 0:
		return Request{}, malformed("unknown flags %#x", uint32(r.Flags&^allFlags))
	case r.Wait < 0 || r.TTL < 0:
		return Request{}, malformed("wait %d ns, ttl %d ns: negative", r.Wait, r.TTL)
	case order.Uint32(b[40:]) > 1 || order.Uint32(b[44:]) != 0:
		return Request{}, malformed("padding is not zero")
	}
	return r, nil
}

// Encode writes the struct to b, which must have RequestSize bytes.
func (r Request) Encode(b []byte) {
	_ = b[RequestSize-1]
	order.PutUint32(b, r.Mode)
	order.PutUint32(b[4:], uint32(r.Flags))
	order.PutUint64(b[8:], uint64(r.Wait))
	order.PutUint64(b[16:], uint64(r.TTL))
	order.PutUint64(b[24:], r.Token)
	order.PutUint64(b[32:], r.Generation)
	order.PutUint64(b[40:], 0)
	if r.Valid {
		order.PutUint32(b[40:], 1)
	}
}

// Token is the struct of CmdToken: what the descriptor's lock was granted with. A descriptor without a
// lock is EINVAL, a lost lock EIO.
type Token struct {
	Token uint64 // out
	Mode  uint32 // out
}

// DecodeToken reads a payload.
func DecodeToken(b []byte) (Token, error) {
	if err := expect(b, TokenSize, "token"); err != nil {
		return Token{}, err
	}
	t := Token{Token: order.Uint64(b), Mode: order.Uint32(b[8:])}
	if t.Mode > MaxMode || order.Uint32(b[12:]) != 0 {
		return Token{}, malformed("token of mode %d", t.Mode)
	}
	return t, nil
}

// Encode writes the struct to b, which must have TokenSize bytes.
func (t Token) Encode(b []byte) {
	_ = b[TokenSize-1]
	order.PutUint64(b, t.Token)
	order.PutUint32(b[8:], t.Mode)
	order.PutUint32(b[12:], 0)
}
