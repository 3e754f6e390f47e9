// Package conn is a connection to the kernel's FUSE device: it mounts, reads the requests of one mount, has them
// answered by a fuse.RawFileSystem, and writes notifications. It knows nothing of locks.
//
// go-fuse's own server refuses FUSE_POLL and hands requests to several readers, so that a RELEASE may be overtaken
// by what was sent after it. lockfs needs both, hence this loop around go-fuse's ProtocolServer:
//
//	/dev/fuse ──read──► Loop ──POLL────────────────► Poller
//	    ▲                 │ ──INTERRUPT─► cancel channel of its target
//	    │                 └ ──all else──► fuse.ProtocolServer ──► fuse.RawFileSystem
//	    ├──reply───────────────────────────────────────┘
//	    └──notification── Loop.NotifyPoll, and a Notifier (invalidations, in the order of the log)
//
// # One reader
//
// One goroutine holds the reading role. It reads a request, calls the handler and writes the reply, all by itself:
// nothing is handed over, which is what makes a request cheap. So a handler must not block. One that is about to
// wait calls Loop.Park first: a successor takes the role over, the handler may then block as long as it likes, and
// its reply is written when it returns. Since only the role's holder reads, a handler that does not park is over
// before the next request is read. RELEASE relies on it: close(2) does not wait for it, and a try-lock right after a
// close must not meet the lock that was closed. So a handler of RELEASE must not park. LOOKUP and GETATTR have a nil
// cancel channel: they are answered from what is here, and must not wait either.
//
// # Waiting for invalidations
//
// Some notifications block: INVAL_ENTRY as long as the kernel holds the directory for a request of ours, INVAL_INODE
// of pages as long as a cached READ is unanswered. They are queued to a Notifier, whose one goroutine may hang
// without holding anybody up. A reply that must not overtake the invalidations of what it has seen waits for them,
// with a bound, by Notifier.Wait. Those of names are written by a thread with a device of its own, so that a daemon can be
// killed meanwhile: see aside.
//
// # Ending
//
// Serve returns when the mount is gone or after Close; all goroutines have ended then and every handler has
// returned. The kernel sends no RELEASE for what was open when a connection ends: RawFileSystem.OnUnmount, called
// last, is where a file system lets go of its handles. An OPEN whose reply cannot be delivered has no RELEASE either:
// see OpenFailer.
package conn
