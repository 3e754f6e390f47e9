package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/ioc"
)

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
	if h, ok := f.handles.get(in.Fh).(*handle); ok && st == fuse.OK && countsOnLock(in.Cmd) && h.lost(0) {
		return fuse.EIO // all that may have taken long
	}
	return st
}

// countsOnLock reports whether the answer to a request is worth nothing once the lock is lost.
func countsOnLock(cmd uint32) bool {
	switch cmd {
	case ioc.CmdInfo, ioc.CmdNotice, ioc.CmdCheck:
		return false
	}
	return true
}
