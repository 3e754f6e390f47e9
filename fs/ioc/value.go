package ioc

// Value is the struct of CmdValueGet and CmdValueSet: one piece of the value block. A value of more than
// MaxPiece bytes takes several calls.
//
// Get returns the bytes from Offset on, of what the descriptor itself would read; a caller that sees
// Generation change between two pieces starts again. It needs what read(2) needs, but no offset and no
// access mode for reading.
//
// Set gathers pieces in the descriptor: the first has Offset 0 and begins anew, each further one must
// begin where the last ended (EINVAL), and the one that reaches Size replaces the whole value, commits it
// and returns the new Generation. It drops what write(2) left uncommitted in the descriptor. It needs PW
// or EX (view posix: write permission); EFBIG when Size is over the limit.
type Value struct {
	Offset     uint64 // in
	Generation uint64 // out
	Size       uint32 // get: out, set: in; of the whole value
	Valid      bool   // out
	Data       []byte // get: out, set: in; decoded it points into the payload
}

// DecodeValue reads a payload. Data aliases b.
func DecodeValue(b []byte) (Value, error) {
	if err := expect(b, ValueSize, "value"); err != nil {
		return Value{}, err
	}
	n, valid := order.Uint32(b[20:]), order.Uint32(b[24:])
	v := Value{Offset: order.Uint64(b), Generation: order.Uint64(b[8:]), Size: order.Uint32(b[16:]), Valid: valid == 1}
	switch {
	case n > MaxPiece:
		return Value{}, malformed("piece of %d bytes, at most %d", n, MaxPiece)
	case valid > 1 || order.Uint32(b[28:]) != 0:
		return Value{}, malformed("padding is not zero")
	case n > 0 && (v.Offset > uint64(v.Size) || uint64(n) > uint64(v.Size)-v.Offset):
		return Value{}, malformed("piece of %d bytes at %d is past the size %d", n, v.Offset, v.Size)
	}
	v.Data = b[valueHead : valueHead+int(n) : valueHead+int(n)]
	return v, nil
}

// Encode writes the struct to b, which must have ValueSize bytes. Data over MaxPiece panics.
func (v Value) Encode(b []byte) {
	_ = b[ValueSize-1]
	if len(v.Data) > MaxPiece {
		panic("ioc: a piece of a value is too long")
	}
	order.PutUint64(b, v.Offset)
	order.PutUint64(b[8:], v.Generation)
	order.PutUint32(b[16:], v.Size)
	order.PutUint32(b[20:], uint32(len(v.Data)))
	order.PutUint64(b[24:], 0)
	if v.Valid {
		order.PutUint32(b[24:], 1)
	}
	clear(b[valueHead+copy(b[valueHead:], v.Data):])
}
