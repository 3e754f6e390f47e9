package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// Ioctl answers the requests of package ioc. What it tells of a lock waits for invalidations, as OPEN does.
func (f *FS) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, out *fuse.IoctlOut, outbuf []byte) fuse.Status {
	st := f.ioctl(cancel, in, inbuf, out, outbuf)
	if st == fuse.OK {
		f.settle(&in.InHeader, cancel)
	}
	return st
}
