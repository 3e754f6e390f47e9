package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Version of the protocol: of the preface and all that is spoken after it.
const Version = 1

// Purpose is what a connection is for.
type Purpose uint8

const (
	Raft Purpose = 1 // raft's transport
	RPC  Purpose = 2 // gRPC
)

func (p Purpose) String() string {
	switch p {
	case Raft:
		return "raft"
	case RPC:
		return "rpc"
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

// Identity is who a host is.
type Identity struct {
	Cluster string // id; empty: no member of a cluster yet
	Host    string // id
}

// maxID bounds the ids, in bytes.
const maxID = 64

func (id Identity) check() error {
	switch {
	case id.Host == "":
		return errors.New("no host id")
	case len(id.Host) > maxID || len(id.Cluster) > maxID:
		return fmt.Errorf("an id of more than %d bytes", maxID)
	}
	for _, s := range []string{id.Host, id.Cluster} {
		for _, c := range []byte(s) {
			if c <= ' ' || c > '~' {
				return fmt.Errorf("the id %q has bytes that no id has", s)
			}
		}
	}
	return nil
}

// The preface, as the dialer sends it. The first two fields are so in every version; no TLS record begins like it.
//
//	magic "lockfs"  version (u8)  purpose (u8)  bytes after this (u8)  len (u8) cluster  len (u8) host
//
// The answer; it is so in every version:
//
//	magic "lockfs"  version (u8)  code (u8)  bytes after this (u16)  len (u8) cluster  len (u8) host  text
const magic = "lockfs"

const (
	prefaceHead = len(magic) + 3
	answerHead  = len(magic) + 4
	maxText     = 512
	maxAnswer   = 2 + 2*maxID + maxText
)

type preface struct {
	version uint8
	purpose Purpose
	from    Identity
}

func (p preface) encode() []byte {
	body := appendIdentity(nil, p.from)
	b := append([]byte(magic), p.version, byte(p.purpose), byte(len(body)))
	return append(b, body...)
}

var (
	errNotLockfs = errors.New("what it sent is nothing of lockfs")
	errMalformed = errors.New("it sent a malformed preface")
)

// alien is what the other side sent instead of the magic.
type alien struct{ head []byte }

func (e *alien) Error() string { return errNotLockfs.Error() }
func (e *alien) Unwrap() error { return errNotLockfs }

// tls says whether it is the beginning of a TLS handshake.
func (e *alien) tls() bool { return len(e.head) >= 2 && e.head[0] == 0x16 && e.head[1] == 0x03 }

// readPreface reads what a dialer says, and no byte more. Of another version it reads the head only.
func readPreface(r io.Reader) (preface, error) {
	var head [prefaceHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return preface{}, err
	}
	if string(head[:len(magic)]) != magic {
		return preface{}, &alien{bytes.Clone(head[:])}
	}
	p := preface{version: head[len(magic)], purpose: Purpose(head[len(magic)+1])}
	if p.version != Version {
		return p, nil
	}
	body := make([]byte, head[len(magic)+2])
	if _, err := io.ReadFull(r, body); err != nil {
		return p, err
	}
	var err error
	p.from, body, err = cutIdentity(body)
	if err != nil || len(body) > 0 || p.purpose != Raft && p.purpose != RPC {
		return p, errMalformed
	}
	if err := p.from.check(); err != nil {
		return p, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return p, nil
}

type answer struct {
	version uint8
	code    Code
	from    Identity
	text    string
}

func (a answer) encode() []byte {
	body := append(appendIdentity(nil, a.from), clean(a.text)...)
	b := append([]byte(magic), a.version, byte(a.code))
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// readAnswer reads what an acceptor says, and no byte more.
func readAnswer(r io.Reader) (answer, error) {
	var head [answerHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return answer{}, err
	}
	if string(head[:len(magic)]) != magic {
		return answer{}, &alien{bytes.Clone(head[:])}
	}
	a := answer{version: head[len(magic)], code: Code(head[len(magic)+1])}
	n := binary.BigEndian.Uint16(head[len(magic)+2:])
	if n > maxAnswer {
		return a, errMalformed
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return a, err
	}
	from, text, err := cutIdentity(body)
	if err != nil || from.Host != "" && from.check() != nil {
		return a, errMalformed
	}
	a.from, a.text = from, clean(string(text))
	return a, nil
}

func appendIdentity(b []byte, id Identity) []byte {
	for _, s := range []string{id.Cluster, id.Host} {
		b = append(b, byte(len(s)))
		b = append(b, s...)
	}
	return b
}

func cutIdentity(b []byte) (id Identity, rest []byte, err error) {
	for _, to := range []*string{&id.Cluster, &id.Host} {
		if len(b) == 0 || int(b[0]) > maxID || len(b) < 1+int(b[0]) {
			return id, b, errMalformed
		}
		*to, b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	return id, b, nil
}

// clean makes text of another host fit for a log: bounded, valid and printable.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s[:min(len(s), maxText)])
	for len(s) > maxText {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
