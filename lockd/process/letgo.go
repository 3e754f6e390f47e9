package process

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CanLetGo reports whether somebody could still let go of one of these descriptors: whether any
// thread of any process that has one of them is neither waiting in a request to this daemon (waiting says so of a
// thread) nor in wait(2) or vfork(2) for a process of which the same is true.
//
// What cannot be looked at (gone meanwhile, no permission) counts as able to let go, so that no verdict
// is passed on a guess. It looks at every process of the host, which takes milliseconds, but only if those
// that are known to have the descriptors are all stuck. Must not be called by the goroutine that reads the
// FUSE device (package comment).
func CanLetGo(descriptors []Descriptor, waiting func(tid uint32) bool) bool {
	s := search{waiting: waiting, stuck: map[uint32]bool{}}
	for _, d := range descriptors {
		opener := d.process()
		if opener == 0 || !s.isStuck(opener) {
			return true
		}
	}
	return s.anyHeirFree(descriptors)
}

// search remembers what it found out about each process.
type search struct {
	waiting func(tid uint32) bool
	stuck   map[uint32]bool
}

// anyHeirFree looks for a process that has one of the descriptors and is not stuck.
func (s *search) anyHeirFree(wanted []Descriptor) bool {
	pids, err := readNumbers("/proc")
	if err != nil {
		return true
	}
	for _, pid := range pids {
		if stuck, known := s.stuck[pid]; known && stuck {
			continue
		}
		if has(pid, wanted) && !s.isStuck(pid) {
			return true
		}
	}
	return false
}

// has reports whether a process has one of the descriptors.
func has(pid uint32, wanted []Descriptor) bool {
	files := descriptors(pid)
	for _, d := range wanted {
		if fds := files[d.File]; len(fds) > 0 && anyShared(pid, fds, d) {
			return true
		}
	}
	return false
}

// isStuck reports whether no thread of a process can act before this daemon answers a request.
func (s *search) isStuck(pid uint32) bool {
	if known, ok := s.stuck[pid]; ok {
		return known
	}
	s.stuck[pid] = false // a loop of parents does not exist; a reused id must not recurse
	tids, err := readNumbers("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/task")
	if err != nil || len(tids) == 0 {
		return false
	}
	for _, tid := range tids {
		if !s.isThreadStuck(pid, tid) {
			return false
		}
	}
	s.stuck[pid] = true
	return true
}

func (s *search) isThreadStuck(pid, tid uint32) bool {
	if s.waiting(tid) {
		return true
	}
	var path pathBuf
	var st stat
	if st.read(tid) != nil {
		return false
	}
	switch st.state {
	case 'Z', 'X': // a thread that has ended holds nothing up
		return true
	case 'S', 'D':
	default:
		return false
	}
	var buf [64]byte
	n, err := readFile(path.of(tid, "/wchan"), buf[:])
	if err != nil {
		return false
	}
	switch place := string(buf[:n]); place {
	case "do_wait":
		return s.waitsForStuck(pid, tid)
	case "kernel_clone", "_do_fork", "wait_for_vfork_done":
		return s.vforkStuck(pid)
	}
	return false
}

const waitidPid = 1 // P_PID, waitid(2)

// waitsForStuck reports whether every child that would end a thread's wait(2) is stuck.
func (s *search) waitsForStuck(pid, tid uint32) bool {
	children := childrenOf(pid)
	if only := waitedFor(tid); only != 0 {
		children = []uint32{only}
	}
	if len(children) == 0 {
		return false // it is about to return ECHILD, or its children are not known
	}
	for _, child := range children {
		if isZombie(child) || !s.isStuck(child) {
			return false // a child that has ended ends the wait
		}
	}
	return true
}

func isZombie(pid uint32) bool {
	var st stat
	return st.read(pid) != nil || st.state == 'Z'
}

// vforkStuck reports whether the child that has borrowed this process's memory is stuck.
func (s *search) vforkStuck(pid uint32) bool {
	found := false
	for _, child := range childrenOf(pid) {
		if !sameMemory(pid, child) {
			continue
		}
		if !s.isStuck(child) {
			return false
		}
		found = true
	}
	return found
}

// waitedFor returns the one process that a thread's wait4 or waitid names, 0 if it is any or not known.
func waitedFor(tid uint32) uint32 {
	nr, first, second := systemCall(tid)
	switch {
	case nr == unix.SYS_WAIT4 && int32(first) > 0:
		return uint32(first)
	case nr == unix.SYS_WAITID && first == waitidPid:
		return uint32(second)
	}
	return 0
}

// WaitsForOFD reports whether a thread waits in fcntl(2) for a lock of an open file description (F_OFD_SETLKW), as
// opposed to one of its process: a request to a FUSE daemon does not tell. False if it cannot be looked at. Must
// not be called by the goroutine that reads the FUSE device (package comment).
func WaitsForOFD(tid uint32) bool {
	if tid == 0 {
		return false
	}
	nr, _, cmd := systemCall(tid)
	return nr == unix.SYS_FCNTL && cmd == unix.F_OFD_SETLKW
}

// systemCall returns the system call that a thread is blocked in and its first two arguments; a number of -1 if it is in
// none or may not be looked at.
func systemCall(tid uint32) (nr int64, first, second uint64) {
	text, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(tid), 10) + "/syscall") // may block: exec_update_lock
	if err != nil {
		return -1, 0, 0
	}
	fields := bytes.Fields(text)
	if len(fields) < 3 {
		return -1, 0, 0
	}
	n, ok := number(fields[0])
	if !ok {
		return -1, 0, 0
	}
	return int64(n), hexArg(fields[1]), hexArg(fields[2])
}

func hexArg(word []byte) uint64 {
	n, err := strconv.ParseUint(string(bytes.TrimPrefix(word, []byte("0x"))), 16, 64)
	if err != nil {
		return 0
	}
	return n
}

// childrenOf returns the children of all threads of a process.
func childrenOf(pid uint32) []uint32 {
	tids, err := readNumbers("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/task")
	if err != nil {
		return nil
	}
	var children []uint32
	for _, tid := range tids {
		path := append([]byte(threadPath(pid, tid, "/children")), 0)
		text, err := readAll(&path[0], make([]byte, 256))
		if err != nil {
			continue
		}
		for len(text) > 0 {
			var word []byte
			word, text = nextWord(text)
			if n, ok := number(word); ok {
				children = append(children, uint32(n))
			}
		}
	}
	return children
}
