package ioc

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of the structs. An ioctl number has 14 bits for it, so none may reach 16 KiB.
const (
	RequestSize = 48
	TokenSize   = 16
	TextSize    = 8192  // structs that carry a path or a line
	ValueSize   = 16320 // structs that carry a piece of a value

	// MaxPiece is how many bytes of a value one call carries.
	MaxPiece = ValueSize - valueHead
	// MaxSequencer, MaxLine and MaxPath are how many bytes of text fit; a longer path is
	// ENAMETOOLONG, a longer notice is cut.
	MaxSequencer = TextSize - checkHead
	MaxLine      = TextSize - noticeHead
	MaxPath      = TextSize - infoHead

	valueHead  = 32
	checkHead  = 16
	noticeHead = 48
	infoHead   = 64
)

// The commands. Their numbers are part of the interface and never change their meaning.
const (
	CmdRequest   uint32 = readWrite | RequestSize<<16 | 'L'<<8 | 1
	CmdConvert   uint32 = readWrite | RequestSize<<16 | 'L'<<8 | 2
	CmdToken     uint32 = readWrite | TokenSize<<16 | 'L'<<8 | 3
	CmdSequencer uint32 = readWrite | TextSize<<16 | 'L'<<8 | 4
	CmdNotice    uint32 = readWrite | TextSize<<16 | 'L'<<8 | 5
	CmdValueGet  uint32 = readWrite | ValueSize<<16 | 'L'<<8 | 6
	CmdValueSet  uint32 = readWrite | ValueSize<<16 | 'L'<<8 | 7
	CmdInfo      uint32 = readWrite | TextSize<<16 | 'L'<<8 | 8
	CmdCheck     uint32 = readWrite | TextSize<<16 | 'L'<<8 | 9

	readWrite uint32 = 3 << 30
)

// Size returns how many bytes cmd's struct has, 0 for a command that is not one of these.
func Size(cmd uint32) int {
	switch cmd {
	case CmdRequest, CmdConvert, CmdToken, CmdSequencer, CmdNotice, CmdValueGet, CmdValueSet, CmdInfo, CmdCheck:
		return int(cmd >> 16 & 0x3fff)
	}
	return 0
}

// ErrMalformed is wrapped by every decoding error; fs answers it with EINVAL.
var ErrMalformed = errors.New("malformed ioctl payload")

func malformed(what string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(what, args...))
}

var order = binary.NativeEndian

// expect checks the length of a payload.
func expect(b []byte, size int, name string) error {
	if len(b) != size {
		return malformed("%s has %d bytes, want %d", name, len(b), size)
	}
	return nil
}

// text takes the n bytes of text behind the head of b; what follows them is ignored.
func text(b []byte, head int, n uint32, name string) (string, error) {
	if uint64(n) > uint64(len(b)-head) {
		return "", malformed("%s text of %d bytes, at most %d", name, n, len(b)-head)
	}
	return string(b[head : head+int(n)]), nil
}

// putText writes s after the head, cutting what does not fit, clears the rest and returns the length.
func putText(b []byte, head int, s string) uint32 {
	n := copy(b[head:], s)
	clear(b[head+n:])
	return uint32(n)
}
