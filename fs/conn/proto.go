package conn

import (
	"encoding/binary"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// The opcodes that the loop itself looks at (include/uapi/linux/fuse.h).
const (
	opLookup      = 1
	opGetattr     = 3
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opRelease     = 18
	opFsync       = 20
	opGetxattr    = 22
	opListxattr   = 23
	opFlush       = 25
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opSetlk       = 32
	opSetlkw      = 33
	opCreate      = 35
	opInterrupt   = 36
	opIoctl       = 39
	opPoll        = 40
	opReaddirplus = 44
	opTmpfile     = 51

	opcodes = 64 // more than there are
)

// Notification codes: what stands in the error field of a message without a unique.
const (
	codePoll       = 1
	codeInvalInode = 2
	codeInvalEntry = 3
	codeDelete     = 6
)

// ExpireOnly is the flag of InvalEntry that ends the entry's validity but leaves it in place: the next use of the
// name looks it up again, and a watch on it stays.
const ExpireOnly = fuse.EXPIRE_ONLY

// PollScheduleNotify is the flag of a POLL request that says that somebody waits, and wants NotifyPoll.
const PollScheduleNotify = 1

const (
	inHeaderSize  = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeaderSize = int(unsafe.Sizeof(fuse.OutHeader{}))
	interruptSize = int(unsafe.Sizeof(fuse.InterruptIn{}))
	maxOutStruct  = 288 // the largest fixed reply of any opcode: go-fuse's outputDataSize
)

// native is the byte order of the device.
var native = binary.NativeEndian

// header is the view of a request that was read. The buffer must hold at least inHeaderSize bytes.
func header(request []byte) *fuse.InHeader { return as[fuse.InHeader](request) }

// payloadSize is how many bytes of variable length the reply to a request may carry, as far as the request itself
// says: the size of a READ and its like.
func payloadSize(op uint32, request []byte) int {
	at := 0
	switch op {
	case opRead, opReaddir, opReaddirplus:
		at = inHeaderSize + 16 // fh, offset
	case opGetxattr, opListxattr:
		at = inHeaderSize
	case opIoctl:
		at = inHeaderSize + 28 // fh, flags, cmd, arg, in_size
	default:
		return 0
	}
	if len(request) < at+4 {
		return 0
	}
	return int(native.Uint32(request[at:]))
}

// putOutHeader writes a reply's or a notification's header. errno is positive; for a notification code and unique 0.
func putOutHeader(b []byte, length int, status int32, unique uint64) {
	native.PutUint32(b[0:], uint32(length))
	native.PutUint32(b[4:], uint32(status))
	native.PutUint64(b[8:], unique)
}

// errorReply makes the reply that is nothing but an errno.
func errorReply(b []byte, errno fuse.Status, unique uint64) []byte {
	putOutHeader(b, outHeaderSize, int32(-errno), unique)
	return b[:outHeaderSize]
}
