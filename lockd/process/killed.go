package process

const (
	pfSignaled = 0x400 // PF_SIGNALED, include/linux/sched.h: killed by a signal
	sigMask    = 0x7f  // the signal's number in an exit code, wait(2)
)

// Killed reports whether a thread is dying of a signal: its FLUSH is the kernel's close of what a
// killed process left open, not a close(2) of its own. Both marks are needed: a thread that another
// one ends by exit_group(2) is signalled as well, but its process's exit code names no signal.
//
// It is asked at every close of a descriptor that holds PW or EX: it allocates nothing, takes two
// microseconds and never blocks. A dying thread has given up its memory before it closes its descriptors,
// so one that still has memory is told apart by the short /proc/TID/statm, at half the cost of stat. A thread that is gone or not visible was not killed as far as one
// can tell.
func Killed(tid uint32) bool {
	if tid == 0 || hasMemory(tid) {
		return false
	}
	var st stat
	if st.read(tid) != nil {
		return false
	}
	return st.flags&pfSignaled != 0 && st.exitCode&sigMask != 0
}

// hasMemory reports whether a thread has an address space. Its size is the first number of statm.
func hasMemory(tid uint32) bool {
	var path pathBuf
	var first [1]byte
	n, err := readFile(path.of(tid, "/statm"), first[:])
	return err == nil && n == 1 && first[0] != '0'
}
