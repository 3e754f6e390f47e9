package process

const (
	pfSignaled = 0x400 // PF_SIGNALED, include/linux/sched.h: killed by a signal
	sigMask    = 0x7f  // the signal's number in an exit code, wait(2)
)

// Killed reports whether a thread is dying of a signal: its FLUSH is the kernel's close of what a
// killed process left open, not a close(2) of its own. Both marks are needed: a thread that another
// one ends by exit_group(2) is signalled as well, but its process's exit code names no signal.
//
// It is asked at every close of a descriptor that holds PW or EX: it allocates nothing, takes a few
// microseconds and never blocks. A thread that is gone or not visible was not killed as far as one
// can tell.
func Killed(tid uint32) bool {
	if tid == 0 {
		return false
	}
	var st stat
	if st.read(tid) != nil {
		return false
	}
	return st.flags&pfSignaled != 0 && st.exitCode&sigMask != 0
}
