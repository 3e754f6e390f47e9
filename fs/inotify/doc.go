// Package inotify raises on one mount the inotify events of what was done elsewhere: on other hosts, through other mounts of this
// daemon, or by the log itself (DESIGN 3.7). The kernel makes such events of system calls only, so a [Raiser] makes harmless ones
// through its own mount, whose requests the file system answers without doing anything:
//
//	changes of the log ──► Raiser: what watchers have not been shown yet, each name and node once
//	                          │ a goroutine, when the kernel has been told what is stale
//	                          ▼
//	          thread.Thread: mknod mkdir unlink rmdir rename utimensat ──► kernel: IN_CREATE, IN_DELETE, …
//	                                                                               │ LOOKUP MKNOD UNLINK RENAME SETATTR
//	                       Raiser.Shown, Raiser.Permits ◄── package fs ◄───────────┘ of that very thread
//
// # The world that watchers were shown
//
// A mknod(2) takes a name that is not there, an unlink(2) one that is. So the Raiser's thread, and it alone, sees the tree as
// watchers have been shown it so far ([World]): what was made is not there yet, what was removed still is, also on the way to what
// lies below. Each call moves that world one step, until it is the tree. All others are told the truth all the time; they wait for
// the directory for as long as a call lasts.
//
// # What it costs
//
// Whether anybody watches the kernel does not tell. Nothing is done for directories and nodes that it does not have (a watch
// keeps its node). What comes while the Raiser rests is joined: it rests after its work, five milliseconds and four times as long as the
// work took. Of more than 16,384 changes of names at once, the rest becomes one IN_ATTRIB for each directory.
//
// # Not hanging
//
// A thread in a request to its own process cannot be killed, and would keep the device open for ever if the process is: see
// package thread. The call of a name waits as any client's does for the lock of the directory, at most for the operations of others
// there. Nobody waits for the Raiser.
package inotify
