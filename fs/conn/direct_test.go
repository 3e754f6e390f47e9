package conn

import (
	"bytes"
	"fmt"
	"testing"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"pgregory.net/rapid"
)

// echoFS answers every request with what it was asked, so that one byte of a request that goes astray shows.
type echoFS struct {
	fuse.RawFileSystem
	status fuse.Status
	apart  bool // a Read's data is not in the buffer given
	asked  []string
}

func (e *echoFS) ask(what string, in any) fuse.Status {
	e.asked = append(e.asked, fmt.Sprintf("%s %+v", what, in))
	return e.status
}

// fill copies the request's bytes into the reply's.
func fill[I, O any](in *I, out *O) {
	from := unsafe.Slice((*byte)(unsafe.Pointer(in)), size[I]())
	to := unsafe.Slice((*byte)(unsafe.Pointer(out)), size[O]())
	for i := range to {
		if to[i] != 0 {
			panic("the reply is not clear")
		}
		to[i] = from[i%len(from)]
	}
}

func (e *echoFS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	fill(in, out)
	return e.ask("lookup "+name, *in)
}

func (e *echoFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	fill(in, out)
	return e.ask("getattr", *in)
}

func (e *echoFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	fill(in, out)
	return e.ask("open", *in)
}

func (e *echoFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	data := buf[:len(buf)/2]
	if e.apart {
		data = make([]byte, len(buf)/2)
	}
	for i := range data {
		data[i] = byte(i)
	}
	return fuse.ReadResultData(data), e.ask(fmt.Sprint("read ", len(buf)), *in)
}

func (e *echoFS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { e.ask("release", *in) }

func (e *echoFS) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status { return e.ask("flush", *in) }

func (e *echoFS) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status { return e.ask("setlk", *in) }

func (e *echoFS) SetLkw(_ <-chan struct{}, in *fuse.LkIn) fuse.Status { return e.ask("setlkw", *in) }

// TestDirectAsGoFuse sends any requests of the kinds that are answered directly both ways: the file system is asked the
// same, and the reply is the same.
func TestDirectAsGoFuse(t *testing.T) {
	var ops []uint32
	for op, d := range directs {
		if d.call != nil {
			ops = append(ops, uint32(op))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		fsys := &echoFS{RawFileSystem: fuse.NewDefaultRawFileSystem()}
		fsys.status = fuse.Status(rapid.SampledFrom([]int{0, 0, 2, 11, 38}).Draw(t, "status"))
		fsys.apart = rapid.Bool().Draw(t, "apart")
		o, _ := Options{MountPoint: "/"}.withDefaults()
		l := NewLoop(&Conn{options: o, fd: -1}, fsys, nil)
		l.in, l.out = l.buffer(), l.buffer()
		for range 5 {
			op := rapid.SampledFrom(ops).Draw(t, "opcode")
			request := make([]byte, directs[op].size)
			for i := range request {
				request[i] = rapid.Byte().Draw(t, "byte")
			}
			if op == opLookup {
				request = append(request[:inHeaderSize], rapid.StringMatching(`[a-z]{1,255}`).Draw(t, "name")+"\x00"...)
			}
			if op == opRead {
				as[fuse.ReadIn](request).Size = uint32(rapid.IntRange(0, 128<<10).Draw(t, "size"))
			}
			h := header(request)
			h.Length, h.Opcode, h.TotalExtlen, h.Padding = uint32(len(request)), op, 0, 0
			h.NodeId |= 2 // neither the root, where go-fuse has a name of its own
			h.NodeId &^= 1 << 63

			f := l.enter(request)
			if directOf(f) == nil {
				t.Fatalf("opcode %d is not answered directly", op)
			}
			ours := bytes.Clone(l.handle(f))
			if !l.current.CompareAndSwap(f.unique, 0) {
				t.Fatal("the request is not current")
			}
			l.leave(f)
			out := *l.buffer()
			n, status := l.server.HandleRequest([][]byte{request}, [][]byte{out})
			if status != fuse.OK || !bytes.Equal(ours, out[:n]) {
				t.Fatalf("opcode %d: %d bytes, go-fuse %d (%v)\n%x\n%x", op, len(ours), n, status, ours, out[:n])
			}
			if last := len(fsys.asked) - 1; fsys.asked[last] != fsys.asked[last-1] {
				t.Fatalf("asked %s\ngo-fuse asks %s", fsys.asked[last-1], fsys.asked[last])
			}
		}
	})
}
