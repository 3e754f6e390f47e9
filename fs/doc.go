// Package fs is the file system that lockfs shows: a fuse.RawFileSystem over one host's lockd.Host. One [FS] is one
// mount point, in one of three views; several serve one tree.
//
//	kernel ──requests──► conn.Loop ──► FS methods ──► lockd.Host        lock, convert, commit, make, remove
//	   ▲                                  │  ▲
//	   │                                  │  └── handle (one open file description: lock, rights, batch, notices)
//	   └── INVAL_*, NOTIFY_POLL ◄─────────┴── notifier ◄── Host.OnChange (what the log brought)
//
// # Nouns
//
// A node id is the inode number of the replicated tree, with the highest bits set aside: see ino.go. A view is a table
// of rules ([View], policy). An alias is a name that carries a mode, db/orders@pr. A handle is an open file
// description; it owns at most one lock, which flock(2), the ioctls and conversions change. A batch gathers the
// writes of a handle until they commit as one whole. Rights are what the opener may do, found at OPEN.
//
// # What may wait
//
// OPEN, SETLKW, IOCTL, uncached READ, FLUSH, FSYNC and the commits of namespace operations may wait; before it waits a
// handler lets the loop's next reader go on (call.park). RELEASE never waits: what it has to commit goes on in a
// goroutine, and whoever comes later waits for that one (pending.go). No mutex here is held while anything waits.
//
// # Kernel caches
//
// Names, listings and attributes are cached by the kernel for as long as the lease lasts at most. Values are not: a
// read through the page cache takes the size from the attributes and the bytes from a page, so that one which meets a
// change could see the length of one value with the bytes of another. That is so for a value of a single page too: the
// kernel takes no lock that would keep the size from changing between the two, a WRITE to another descriptor's batch and an
// open with O_TRUNC move it at once, and who reads until the end, as cat(1) does, would append the rest of a longer new value.
// Every descriptor is FOPEN_DIRECT_IO (a mapping has pages all the same).
//
// Every change that the log brings is told to the kernel by the notifier, in order; the replies to OPEN, SETLK(W) and
// IOCTL wait, with a bound, until it has told all that this host has applied. Requests that the kernel sends under a
// directory's lock (LOOKUP MKNOD MKDIR UNLINK RMDIR RENAME SETATTR) must never wait for it: the notifier may be waiting
// for that lock.
//
// # inotify
//
// The kernel raises inotify events of what is done through the mount itself. What is done elsewhere package inotify has it raise by
// calls in the mount whose requests (raise.go) do nothing.
//
// # Errno
//
// errno.go holds the one table that turns an error of the layers below into an errno.
package fs
