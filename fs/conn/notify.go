package conn

import (
	"errors"

	"golang.org/x/sys/unix"
)

// NotifyPoll tells everybody who polls the open file kh that its events have changed. It is one write(2) of a few µs
// which never blocks on anything of ours, so any goroutine may call it, though not under a lock (Notifier.Poll may).
// A kh that is closed by now is not an error.
func (l *Loop) NotifyPoll(kh uint64) {
	var b [outHeaderSize + 8]byte
	native.PutUint64(b[outHeaderSize:], kh)
	l.notify(codePoll, b[:])
}

// InvalInode drops what the kernel has cached of an inode: its attributes, and its pages from offset off for length
// bytes (0: to the end); off -1: only the attributes. With pages it blocks while a cached READ of the inode is
// unanswered: use the Notifier but where that cannot be. An inode unknown to the kernel is not an error.
func (l *Loop) InvalInode(ino uint64, off, length int64) error {
	var b [outHeaderSize + 24]byte
	return l.notify(codeInvalInode, invalInode(b[:], ino, off, length))
}

// invalInode fills the body of an InvalInode.
func invalInode(message []byte, ino uint64, off, length int64) []byte {
	body := message[outHeaderSize:]
	native.PutUint64(body[0:], ino)
	native.PutUint64(body[8:], uint64(off))
	native.PutUint64(body[16:], uint64(length))
	return message
}

// Known reports whether the kernel has an inode, whose attributes it drops.
func (l *Loop) Known(ino uint64) bool {
	var b [outHeaderSize + 24]byte
	message := invalInode(b[:], ino, -1, 0)
	putOutHeader(message, len(message), codeInvalInode, 0)
	return l.conn.notify(message) == nil
}

// InvalEntry drops a name from the kernel's cache, whether cached as present or as absent; flags may be ExpireOnly.
// It blocks while the kernel holds the directory for a request that is unanswered (LOOKUP of a new name, MKNOD,
// UNLINK, …): use the Notifier. A name or directory unknown to the kernel is not an error.
func (l *Loop) InvalEntry(parent uint64, name string, flags uint32) error {
	b := make([]byte, outHeaderSize+16+len(name)+1)
	body := b[outHeaderSize:]
	native.PutUint64(body[0:], parent)
	native.PutUint32(body[8:], uint32(len(name)))
	native.PutUint32(body[12:], flags)
	copy(body[16:], name)
	return l.notifyAside(codeInvalEntry, b)
}

// Delete is InvalEntry for a name that is gone: it also tells inotify watches of the child itself (IN_DELETE_SELF).
func (l *Loop) Delete(parent, child uint64, name string) error {
	b := make([]byte, outHeaderSize+24+len(name)+1)
	body := b[outHeaderSize:]
	native.PutUint64(body[0:], parent)
	native.PutUint64(body[8:], child)
	native.PutUint32(body[16:], uint32(len(name)))
	copy(body[24:], name)
	return l.notifyAside(codeDelete, b)
}

// notify writes a notification whose body is in place behind the room for the header. What the kernel does not know
// or cannot drop is nothing to it; a connection that has ended is an error.
func (l *Loop) notify(code int32, message []byte) error {
	putOutHeader(message, len(message), code, 0)
	return refused(l.conn.notify(message))
}

// notifyAside is notify for what waits for a directory.
func (l *Loop) notifyAside(code int32, message []byte) error {
	if l.aside == nil {
		return l.notify(code, message)
	}
	putOutHeader(message, len(message), code, 0)
	return refused(l.aside.notify(message))
}

// refused returns the error of a notification, nil if it is only that the kernel does not have what it is of.
func refused(err error) error {
	switch {
	case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EBUSY),
		errors.Is(err, unix.ENOTDIR):
		return nil
	}
	return err
}

// invalidate writes what the Notifier has queued. An error means that the connection has ended, and with it whatever
// the kernel had cached.
func (l *Loop) invalidate(v *invalidation) {
	var err error
	switch v.kind {
	case inode:
		err = l.InvalInode(v.ino, v.off, v.length)
	case entry:
		err = l.InvalEntry(v.ino, v.name, v.flags)
	case del:
		err = l.Delete(v.ino, v.child, v.name)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		l.logger.Error("invalidation refused by the kernel", "node", v.ino, "name", v.name, "error", err)
	}
}
