package process

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone is returned for a process or thread that does not exist (any more), or that the pid
// namespace of this daemon does not show.
var ErrGone = errors.New("no such process")

// maxCmdline is how much of a command line is kept, in bytes.
const maxCmdline = 4096

// clockTick is the unit of the start time in /proc/PID/stat: USER_HZ is 100 on every Linux port.
const clockTick = time.Second / 100

// Info is what a listing shows of a process.
type Info struct {
	PID     uint32        // the thread that was asked for
	Tgid    uint32        // its process
	PPID    uint32        // its parent's process, 0 for none
	UID     uint32        // effective user
	GID     uint32        // effective group
	Comm    string        // the thread's name, at most 15 bytes, any bytes
	Started time.Duration // since boot, in steps of 10 ms
}

// Tgid returns the process (thread group) of a thread, or 0 if there is none. For a thread that
// leads its group, as in every process with one thread, it is one system call.
func Tgid(tid uint32) uint32 {
	if tid == 0 {
		return 0
	}
	if inGroup(tid, tid) {
		return tid
	}
	id, _ := statusField(tid, "Tgid:")
	return id
}

// inGroup reports whether thread tid exists and belongs to thread group tgid. tgkill(2) with signal
// 0 checks exactly that: ESRCH says no, EPERM says yes (it is only not ours to signal).
func inGroup(tgid, tid uint32) bool {
	if tgid == 0 || tid == 0 {
		return false
	}
	err := unix.Tgkill(int(tgid), int(tid), 0)
	return err == nil || err == unix.EPERM
}

// ForeignNS reports whether a caller is not visible in this daemon's pid namespace: the kernel
// gives 0 as its id. Nothing can be looked up for such a caller.
func ForeignNS(tid uint32) bool { return tid == 0 }

// Groups returns the supplementary groups of a thread.
func Groups(tid uint32) ([]uint32, error) {
	var path pathBuf
	var buf [4096]byte
	text, err := readAll(path.of(tid, "/status"), buf[:])
	if err != nil {
		return nil, err
	}
	line, ok := fieldOf(text, "Groups:")
	if !ok {
		return nil, nil
	}
	var groups []uint32
	for len(line) > 0 {
		var word []byte
		word, line = nextWord(line)
		if len(word) == 0 {
			break
		}
		if g, ok := number(word); ok {
			groups = append(groups, uint32(g))
		}
	}
	return groups, nil
}

// Comm returns the name of a thread, empty if it is gone.
func Comm(tid uint32) string {
	var path pathBuf
	var buf [64]byte
	n, err := readFile(path.of(tid, "/comm"), buf[:])
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(buf[:n]), "\n")
}

// Cmdline returns the arguments of a process, joined by spaces and cut at 4096 bytes; empty if it is
// gone, a zombie or a kernel thread. The bytes are the process's own: escape them before showing.
//
// The kernel reads them out of the process's memory, and a process can have pages of a file of our own mount there:
// Cmdline then waits until we have served the page. So it must not be called by the goroutine that reads the FUSE device,
// nor under a mutex, and it is a system call that the Go scheduler knows of.
func Cmdline(pid uint32) string {
	fd, err := unix.Open("/proc/"+strconv.FormatUint(uint64(pid), 10)+"/cmdline", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	buf := make([]byte, maxCmdline)
	n, err := unix.Read(fd, buf)
	if err != nil {
		return ""
	}
	return string(bytes.ReplaceAll(bytes.TrimRight(buf[:n], "\x00"), []byte{0}, []byte{' '}))
}

// Look returns what a listing shows of a thread, but for its command line. It costs some 15 µs.
func Look(tid uint32) (Info, error) {
	if tid == 0 {
		return Info{}, ErrGone
	}
	var path pathBuf
	var buf [4096]byte
	text, err := readAll(path.of(tid, "/status"), buf[:])
	if err != nil {
		return Info{}, err
	}
	info := Info{PID: tid, Comm: Comm(tid)}
	info.Tgid = firstNumber(text, "Tgid:", 0)
	info.PPID = firstNumber(text, "PPid:", 0)
	info.UID = firstNumber(text, "Uid:", 1)
	info.GID = firstNumber(text, "Gid:", 1)
	var st stat
	if err := st.read(tid); err == nil {
		info.Started = time.Duration(st.start) * clockTick
	}
	return info, nil
}

// stat is the part of /proc/TID/stat that is used here.
type stat struct {
	state    byte
	ppid     uint32
	flags    uint64
	start    uint64 // clock ticks since boot
	exitCode uint64
}

// Positions in /proc/TID/stat counted from the field after the name, proc_pid_stat(5).
const (
	fieldState    = 3
	fieldPPID     = 4
	fieldFlags    = 9
	fieldStart    = 22
	fieldExitCode = 52
)

// read fills st from /proc/TID/stat without allocating.
func (st *stat) read(tid uint32) error {
	var path pathBuf
	return st.readPath(path.of(tid, "/stat"))
}

func (st *stat) readPath(path *byte) error {
	var buf [1024]byte
	n, err := readFile(path, buf[:])
	if err != nil {
		return err
	}
	return st.parse(buf[:n])
}

// parse reads the fields behind the last ')': the name between the parentheses may hold anything.
func (st *stat) parse(text []byte) error {
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return unix.EINVAL
	}
	rest := text[end+1:]
	*st = stat{}
	field := fieldState
	for ; len(rest) > 1 && rest[1] != ' '; field++ {
		word := rest[1:] // behind the blank
		rest = nil
		if i := bytes.IndexByte(word, ' '); i >= 0 {
			word, rest = word[:i], word[i:]
		}
		switch field {
		case fieldState:
			st.state = word[0]
		case fieldPPID:
			n, _ := number(word)
			st.ppid = uint32(n)
		case fieldFlags:
			st.flags, _ = number(word)
		case fieldStart:
			st.start, _ = number(word)
		case fieldExitCode:
			st.exitCode, _ = number(word)
		}
	}
	if field <= fieldStart {
		return unix.EINVAL
	}
	return nil
}

// statusField returns the first number of a line of /proc/TID/status.
func statusField(tid uint32, name string) (uint32, error) {
	var path pathBuf
	var buf [4096]byte
	text, err := readAll(path.of(tid, "/status"), buf[:])
	if err != nil {
		return 0, err
	}
	return firstNumber(text, name, 0), nil
}

// firstNumber returns the number at position skip of the line that starts with name.
func firstNumber(text []byte, name string, skip int) uint32 {
	line, ok := fieldOf(text, name)
	if !ok {
		return 0
	}
	var word []byte
	for i := 0; i <= skip; i++ {
		word, line = nextWord(line)
	}
	n, _ := number(word)
	return uint32(n)
}

// fieldOf returns what follows name at the start of a line.
func fieldOf(text []byte, name string) ([]byte, bool) {
	for len(text) > 0 {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		if len(line) >= len(name) && string(line[:len(name)]) == name {
			return line[len(name):], true
		}
	}
	return nil, false
}

// nextWord cuts the next word off a line of words separated by blanks.
func nextWord(line []byte) (word, rest []byte) {
	i := 0
	for i < len(line) && isBlank(line[i]) {
		i++
	}
	j := i
	for j < len(line) && !isBlank(line[j]) {
		j++
	}
	return line[i:j], line[j:]
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\n' }

// number reads a decimal number; a sign is skipped, what is not a digit ends it.
func number(word []byte) (uint64, bool) {
	if len(word) > 0 && word[0] == '-' {
		word = word[1:]
	}
	var n uint64
	i := 0
	for ; i < len(word) && word[i] >= '0' && word[i] <= '9'; i++ {
		n = n*10 + uint64(word[i]-'0')
	}
	return n, i > 0
}

// threadPath names a file of a thread inside its process's directory.
func threadPath(tgid, tid uint32, file string) string {
	return "/proc/" + strconv.FormatUint(uint64(tgid), 10) + "/task/" + strconv.FormatUint(uint64(tid), 10) + file
}
