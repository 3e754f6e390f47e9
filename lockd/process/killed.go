package process

import "syscall"

const (
	pfSignaled = 0x400 // PF_SIGNALED, include/linux/sched.h: killed by a signal
	sigMask    = 0x7f  // the signal's number in an exit code, wait(2)
)

// Killed reports whether a thread is dying of a signal: its FLUSH is the kernel's close of what a
// killed process left open, not a close(2) of its own. Both marks are needed: a thread that another
// one ends by exit_group(2) is signalled as well, but its process's exit code names no signal.
//
// It is asked at every close of a descriptor that holds PW or EX: it allocates nothing, takes a third of a microsecond
// and never blocks. A dying thread has given up its memory before it closes its descriptors, so one that still has
// memory is told apart without a look at /proc. A thread that is gone or not visible was not killed as far as one can
// tell.
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

// hasMemory reports whether a thread has an address space. move_pages(2) of no pages says so at a tenth of the cost of
// /proc: EINVAL if it has none (find_mm_struct in the kernel's mm/migrate.c). Where it may not be asked of that thread,
// or is not there, /proc/TID/statm begins with the size.
func hasMemory(tid uint32) bool {
	switch _, _, errno := syscall.RawSyscall6(syscall.SYS_MOVE_PAGES, uintptr(tid), 0, 0, 0, 0, 0); errno {
	case 0:
		return true
	case syscall.EINVAL:
		return false
	}
	var path pathBuf
	var first [1]byte
	n, err := readFile(path.of(tid, "/statm"), first[:])
	return err == nil && n == 1 && first[0] != '0'
}
