package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// Ioctl answers the requests of package ioc. What it tells of a lock or value waits for the last commit of whoever
// closed the file just now, and for invalidations, as OPEN does.
func (f *FS) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	if h, ok := f.handles.get(in.Fh).(*handle); ok {
		if st := f.await(&in.InHeader, cancel, f.shared.of(h.ino)); st != fuse.OK {
			return st
		}
	}
	st := f.ioctl(cancel, in, inbuf, out, outbuf)
	if st == fuse.OK {
		f.settle(&in.InHeader, cancel)
	}
	return st
}
