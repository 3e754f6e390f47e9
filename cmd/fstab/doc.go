// Package fstab is mount.lockfs, which mount(8) runs for file systems of type lockfs: it starts a daemon in the
// background, waits until its mounts answer, and returns. It is the same binary, under another name.
//
//	/etc/fstab ─► mount(8) ─► mount.lockfs SOURCE DIR -o OPTIONS
//	                            │ starts  lockfs mount FLAGS DIR   in a session of its own, its log in a file or the journal
//	                            ◄─ "ready", or what is wrong       through a pipe that is the daemon's standard output
//
// umount(8) needs no such program: the daemon ends when the last of its mounts is gone.
package fstab
