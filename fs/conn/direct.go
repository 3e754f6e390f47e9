package conn

import (
	"bytes"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A few kinds of requests are most of all there are: those of stat, open, close, flock and read. For them the loop calls
// the file system itself, with the same arguments as go-fuse's ProtocolServer, which would make about 1 KiB of garbage
// a request. All other kinds go through it.

// direct is how one kind of request is answered. The request is at least size bytes long; call puts what follows the
// reply's header in body, which is cleared as far as out, and returns its length.
type direct struct {
	size int // of the request's fixed part, with the header
	out  int // of the reply's fixed part, without the header
	// cancels says that the handler may wait, so that it needs a cancel channel. The others get a nil one.
	cancels bool
	call    func(fs fuse.RawFileSystem, f *frame, body []byte) (length int, status fuse.Status)
}

// directs are the kinds that are answered directly, by opcode.
var directs = [opSetlkw + 1]direct{
	opLookup: {inHeaderSize + 1, size[fuse.EntryOut](), false,
		func(fs fuse.RawFileSystem, f *frame, body []byte) (int, fuse.Status) {
			name, ok := cString(f.in[0][inHeaderSize:])
			if !ok {
				return 0, fuse.EIO
			}
			return size[fuse.EntryOut](), fs.Lookup(nil, header(f.in[0]), name, as[fuse.EntryOut](body))
		}},
	opGetattr: {size[fuse.GetAttrIn](), size[fuse.AttrOut](), false,
		func(fs fuse.RawFileSystem, f *frame, body []byte) (int, fuse.Status) {
			return size[fuse.AttrOut](), fs.GetAttr(nil, as[fuse.GetAttrIn](f.in[0]), as[fuse.AttrOut](body))
		}},
	opOpen: {size[fuse.OpenIn](), size[fuse.OpenOut](), true,
		func(fs fuse.RawFileSystem, f *frame, body []byte) (int, fuse.Status) {
			return size[fuse.OpenOut](), fs.Open(f.cancel, as[fuse.OpenIn](f.in[0]), as[fuse.OpenOut](body))
		}},
	opRead: {size[fuse.ReadIn](), 0, true,
		func(fs fuse.RawFileSystem, f *frame, body []byte) (int, fuse.Status) {
			in := as[fuse.ReadIn](f.in[0])
			if int(in.Size) > len(body) {
				return 0, fuse.EIO
			}
			buf := body[:in.Size:in.Size]
			result, status := fs.Read(f.cancel, in, buf)
			if result == nil {
				return 0, status
			}
			return settle(result, status, buf)
		}},
	opRelease: {size[fuse.ReleaseIn](), 0, false,
		func(fs fuse.RawFileSystem, f *frame, _ []byte) (int, fuse.Status) {
			fs.Release(nil, as[fuse.ReleaseIn](f.in[0]))
			return 0, fuse.OK
		}},
	opFlush: {size[fuse.FlushIn](), 0, true,
		func(fs fuse.RawFileSystem, f *frame, _ []byte) (int, fuse.Status) {
			return 0, fs.Flush(f.cancel, as[fuse.FlushIn](f.in[0]))
		}},
	opSetlk: {size[fuse.LkIn](), 0, true,
		func(fs fuse.RawFileSystem, f *frame, _ []byte) (int, fuse.Status) {
			return 0, fs.SetLk(f.cancel, as[fuse.LkIn](f.in[0]))
		}},
	opSetlkw: {size[fuse.LkIn](), 0, true,
		func(fs fuse.RawFileSystem, f *frame, _ []byte) (int, fuse.Status) {
			return 0, fs.SetLkw(f.cancel, as[fuse.LkIn](f.in[0]))
		}},
}

// directOf is how a request is answered directly, nil if it is not.
func directOf(f *frame) *direct {
	if f.op >= uint32(len(directs)) || f.largeIn {
		return nil
	}
	d := &directs[f.op]
	if d.call == nil || len(f.in[0]) < d.size || header(f.in[0]).TotalExtlen != 0 {
		return nil
	}
	return d
}

// answer makes the reply to a request.
func (d *direct) answer(fs fuse.RawFileSystem, f *frame) []byte {
	if d.cancels {
		// Not one of an earlier request: somebody may still have that.
		f.cancel = make(chan struct{})
	}
	out := f.out[0]
	body := out[outHeaderSize:]
	clear(body[:d.out])
	length, status := d.call(fs, f, body)
	if status != fuse.OK {
		return errorReply(out, status, f.unique)
	}
	length += outHeaderSize
	putOutHeader(out, length, 0, f.unique)
	return out[:length]
}

// settle puts the result of a Read in its place, where it mostly is already.
func settle(result fuse.ReadResult, status fuse.Status, buf []byte) (int, fuse.Status) {
	defer result.Done()
	if status != fuse.OK {
		return 0, status
	}
	data, status := result.Bytes(buf)
	if len(data) > 0 && unsafe.SliceData(data) != unsafe.SliceData(buf) {
		return copy(buf, data), status
	}
	return len(data), status
}

// as is the view of a buffer as one of the protocol's structures, of which it must be the size at least.
func as[T any](b []byte) *T {
	return (*T)(unsafe.Pointer(unsafe.SliceData(b)))
}

func size[T any]() int {
	var t T
	return int(unsafe.Sizeof(t))
}

// cString is the text before the first NUL.
func cString(b []byte) (string, bool) {
	end := bytes.IndexByte(b, 0)
	if end < 0 {
		return "", false
	}
	return string(b[:end]), true
}
