package ioc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call does one ioctl. It may block as long as the request may wait, and is interrupted (EINTR) by a signal
// that its thread handles.
func call(fd int, cmd uint32, b []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(&b[0])))
	if errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// Lock takes a lock on a descriptor that has none and returns what was granted.
func Lock(fd int, r Request) (Request, error) { return request(fd, CmdRequest, r) }

// Convert changes the mode of a descriptor's lock, which it keeps while it waits.
func Convert(fd int, r Request) (Request, error) { return request(fd, CmdConvert, r) }

func request(fd int, cmd uint32, r Request) (Request, error) {
	b := make([]byte, RequestSize)
	r.Encode(b)
	if err := call(fd, cmd, b); err != nil {
		return Request{}, err
	}
	return DecodeRequest(b)
}

// TokenOf returns the fencing token of a descriptor's lock.
func TokenOf(fd int) (Token, error) {
	b := make([]byte, TokenSize)
	if err := call(fd, CmdToken, b); err != nil {
		return Token{}, err
	}
	return DecodeToken(b)
}

// SequencerOf returns the sequencer of a descriptor's lock.
func SequencerOf(fd int) (Check, error) {
	b := make([]byte, TextSize)
	if err := call(fd, CmdSequencer, b); err != nil {
		return Check{}, err
	}
	return DecodeCheck(b)
}

// CheckSequencer asks whether a sequencer still stands; fd is any descriptor of the mount.
func CheckSequencer(fd int, sequencer string) (Check, error) {
	if len(sequencer) > MaxSequencer {
		return Check{}, syscall.EINVAL
	}
	b := make([]byte, TextSize)
	Check{Text: sequencer}.Encode(b)
	if err := call(fd, CmdCheck, b); err != nil {
		return Check{}, err
	}
	return DecodeCheck(b)
}

// TakeNotice takes the oldest notice of a descriptor; EAGAIN if none is queued.
func TakeNotice(fd int) (Notice, error) {
	b := make([]byte, TextSize)
	if err := call(fd, CmdNotice, b); err != nil {
		return Notice{}, err
	}
	return DecodeNotice(b)
}

// InfoOf returns what a descriptor is; ENOTTY if it is not one of lockfs.
func InfoOf(fd int) (Info, error) {
	b := make([]byte, TextSize)
	if err := call(fd, CmdInfo, b); err != nil {
		return Info{}, err
	}
	return DecodeInfo(b)
}

// GetValue reads the whole value through a descriptor, whatever its offset. Data of the result is the whole.
func GetValue(fd int) (Value, error) {
	b := make([]byte, ValueSize)
	for {
		whole, same, err := getOnce(fd, b)
		if err != nil || same {
			return whole, err
		}
	}
}

// getOnce gathers the pieces; same is false if a commit came between two of them.
func getOnce(fd int, b []byte) (whole Value, same bool, err error) {
	for {
		Value{Offset: uint64(len(whole.Data))}.Encode(b)
		if err := call(fd, CmdValueGet, b); err != nil {
			return Value{}, false, err
		}
		piece, err := DecodeValue(b)
		if err != nil {
			return Value{}, false, err
		}
		if whole.Data == nil {
			whole = Value{Generation: piece.Generation, Size: piece.Size, Valid: piece.Valid, Data: make([]byte, 0, piece.Size)}
		} else if piece.Generation != whole.Generation || piece.Size != whole.Size {
			return Value{}, false, nil
		}
		whole.Data = append(whole.Data, piece.Data...)
		if len(whole.Data) >= int(whole.Size) || len(piece.Data) == 0 {
			return whole, true, nil
		}
	}
}

// SetValue replaces the whole value through a descriptor, commits it and returns the new generation.
func SetValue(fd int, data []byte) (generation uint64, err error) {
	if uint64(len(data)) > 1<<32-1 {
		return 0, syscall.EFBIG
	}
	b := make([]byte, ValueSize)
	for offset := 0; ; {
		n := min(MaxPiece, len(data)-offset)
		Value{Offset: uint64(offset), Size: uint32(len(data)), Data: data[offset : offset+n]}.Encode(b)
		if err := call(fd, CmdValueSet, b); err != nil {
			return 0, err
		}
		if offset += n; offset < len(data) {
			continue
		}
		v, err := DecodeValue(b)
		return v.Generation, err
	}
}
