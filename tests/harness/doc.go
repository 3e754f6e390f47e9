// Package harness runs a lockfs daemon for tests on real mounts, and shells that use them.
//
//	test process ──► daemon process: Host, FS, mounts in a temporary directory
//	      │                 ▲
//	      └──► shells ──────┘ (through the kernel)
//
// The test process itself never touches a mount: a process that serves one, or waits for the one that does, could hang
// for good. So the daemon is a process of its own, this test binary started again (see Main), or the program named by
// LOCKFS_TEST_BINARY; and all that is done on the mount is done by shells, each with a hard limit of time. When a limit is
// passed the daemon is killed, which ends the connection and frees whoever hangs in it.
//
// A [Cluster] is several daemons of the program, each with an address of its own on loopback or, where links are to be cut, in
// a namespace of a [Network].
package harness
