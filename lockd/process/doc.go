// Package process answers what lockfs must know of the processes on this host: which thread group a
// thread belongs to, whether it dies of a signal, what it is called, whether a descriptor of one
// process is the same open file as another's, and whether anybody could still let a descriptor go.
//
//	FUSE header ──► thread id ──► Tgid, Killed, Groups, Look
//	                   │
//	lock's opener ─────┴──► SameOwner   (thread group, or kcmp(2) on the descriptors of one inode)
//	                   └──► CanLetGo    (every thread of every process that has the descriptor)
//
// All of it is read from /proc, kcmp(2) and tgkill(2) with signal 0; nothing is cached here, and
// every answer can be old by the time it is used. A process that vanishes meanwhile is no error.
//
// Who may call from where matters. Killed, Tgid, Groups, Comm and Look take no lock of the process they
// look at and do not touch its memory. Cmdline reads its memory, which may be mapped from a file that we serve. SameOwner and CanLetGo use kcmp(2) and /proc/TID/syscall, for which the kernel takes the
// target's exec_update_lock; a process in the middle of execve(2) holds it while it closes its
// close-on-exec descriptors, and such a close may itself be waiting for us (FLUSH). So these three must
// never be called by the goroutine that reads the FUSE device, nor under a mutex.
//
// No function here sends a request to a FUSE mount: descriptors are looked at by statx(2) with
// AT_STATX_DONT_SYNC through the links of /proc/PID/fd, which the kernel answers from its inode.
package process
