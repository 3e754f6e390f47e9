package posix

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// differ SEED STEPS DIR DIR makes the same random calls in two directories and prints the first that came out
// differently, with those before it.
func differ(args []string) int {
	seed, _ := strconv.ParseUint(args[0], 10, 64)
	steps, _ := strconv.Atoi(args[1])
	rnd := rand.New(rand.NewPCG(seed, 0))
	sides := [2]*side{{root: args[2]}, {root: args[3]}}
	var trace []string
	for n := range steps {
		if n == steps/2 {
			time.Sleep(1100 * time.Millisecond) // values that have stood for a second are read through the page cache
		}
		c := draw(rnd)
		var got [2]string
		for i, s := range sides {
			got[i] = s.do(c)
		}
		trace = append(trace, fmt.Sprintf("%d %v: %.120s", n, c, got[0]))
		if got[0] != got[1] {
			fmt.Printf("%s\nthe other: %.200s\n", strings.Join(trace[max(0, len(trace)-40):], "\n"), got[1])
			return 1
		}
	}
	for _, s := range sides {
		for _, fd := range s.fds {
			unix.Close(fd)
		}
	}
	return 0
}

// random is one call, with all that it may need.
type random struct {
	op     string
	fd     int // which of the open ones
	a, b   string
	flags  int
	off    int64
	size   int
	letter byte
}

func (c random) String() string {
	return fmt.Sprintf("%s fd=%d %s %s flags=%#x off=%d size=%d %c", c.op, c.fd, c.a, c.b, c.flags, c.off, c.size, c.letter)
}

// weights are how often each call is made.
var weights = []struct {
	op string
	n  int
}{
	{"open", 14}, {"close", 8}, {"read", 8}, {"pread", 8}, {"write", 8}, {"pwrite", 8}, {"seek", 4}, {"ftruncate", 3}, {"truncate", 2},
	{"stat", 6}, {"fstat", 6}, {"unlink", 5}, {"rename", 6}, {"mkdir", 2}, {"rmdir", 2}, {"list", 3}, {"chmod", 1}, {"mmap", 3},
	{"flock", 6}, {"ofd", 6}, {"same", 3}, {"utimes", 1}, {"fsync", 1}, {"noreplace", 2},
}

var names = []string{"a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", ".", "a/x"}

func draw(rnd *rand.Rand) random {
	total := 0
	for _, w := range weights {
		total += w.n
	}
	n := rnd.IntN(total)
	c := random{fd: rnd.IntN(6), a: names[rnd.IntN(len(names))], b: names[rnd.IntN(len(names))], letter: byte('a' + rnd.IntN(26))}
	for _, w := range weights {
		if n -= w.n; n < 0 {
			c.op = w.op
			break
		}
	}
	c.size = 1 + rnd.IntN(40)
	if rnd.IntN(6) == 0 {
		c.size = rnd.IntN(9000)
	}
	c.off = rnd.Int64N(60)
	if rnd.IntN(6) == 0 {
		c.off = rnd.Int64N(12000)
	}
	c.flags = []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR, unix.O_RDWR}[rnd.IntN(4)]
	for _, f := range []int{unix.O_CREAT, unix.O_CREAT, unix.O_TRUNC, unix.O_APPEND, unix.O_EXCL} {
		if rnd.IntN(4) == 0 {
			c.flags |= f
		}
	}
	return c
}

// side is one of the two directories.
type side struct {
	root string
	fds  []int
}

func outcome(err error, what ...any) string {
	if err != nil {
		return fmt.Sprint("error: ", err)
	}
	return strings.TrimSpace(fmt.Sprintln(what...))
}

func (s *side) path(name string) string { return filepath.Join(s.root, name) }

// do makes a call and says all of what came of it that must be the same everywhere.
func (s *side) do(c random) string {
	fd := -1
	if len(s.fds) > 0 {
		fd = s.fds[c.fd%len(s.fds)]
	}
	text := bytes.Repeat([]byte{c.letter}, c.size)
	var st unix.Stat_t
	switch c.op {
	case "open":
		if len(s.fds) >= 6 {
			return s.do(random{op: "close", fd: c.fd})
		}
		new, err := unix.Open(s.path(c.a), c.flags|unix.O_CLOEXEC, 0o640)
		switch {
		case err != nil:
		case isDir(new): // one that is removed while it is open is gone here
			unix.Close(new)
		default:
			s.fds = append(s.fds, new)
		}
		return outcome(err)
	case "close":
		if fd >= 0 {
			s.fds = slices.DeleteFunc(s.fds, func(x int) bool { return x == fd })
		}
		return outcome(unix.Close(fd))
	case "read":
		n, err := unix.Read(fd, text)
		return outcome(err, n, string(text[:max(n, 0)]))
	case "pread":
		n, err := unix.Pread(fd, text, c.off)
		return outcome(err, n, string(text[:max(n, 0)]))
	case "write":
		n, err := unix.Write(fd, text)
		return outcome(err, n)
	case "pwrite":
		n, err := unix.Pwrite(fd, text, c.off)
		return outcome(err, n)
	case "seek":
		n, err := unix.Seek(fd, c.off, c.size%3)
		return outcome(err, n)
	case "ftruncate":
		return outcome(unix.Ftruncate(fd, c.off))
	case "truncate":
		return outcome(unix.Truncate(s.path(c.a), c.off))
	case "stat":
		err := unix.Lstat(s.path(c.a), &st)
		return outcome(err, shown(&st))
	case "fstat":
		err := unix.Fstat(fd, &st)
		return outcome(err, shown(&st))
	case "unlink":
		return outcome(unix.Unlink(s.path(c.a)))
	case "rename":
		return outcome(unix.Rename(s.path(c.a), s.path(c.b)))
	case "noreplace":
		return outcome(unix.Renameat2(unix.AT_FDCWD, s.path(c.a), unix.AT_FDCWD, s.path(c.b), unix.RENAME_NOREPLACE))
	case "mkdir":
		return outcome(unix.Mkdir(s.path(c.a), 0o755))
	case "rmdir":
		return outcome(unix.Rmdir(s.path(c.a)))
	case "list":
		return s.list(c.a)
	case "chmod":
		return outcome(unix.Chmod(s.path(c.a), uint32([]int{0o600, 0o644, 0o750}[c.size%3])))
	case "mmap":
		return mapped(fd)
	case "flock":
		return outcome(unix.Flock(fd, []int{unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN}[c.size%3]|unix.LOCK_NB))
	case "ofd":
		lk := unix.Flock_t{Type: int16([]int{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK}[c.size%3]), Start: c.off, Len: int64(c.size)}
		return outcome(unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lk))
	case "same":
		var other unix.Stat_t
		if unix.Fstat(fd, &st) != nil || unix.Stat(s.path(c.a), &other) != nil {
			return "none"
		}
		return outcome(nil, st.Ino == other.Ino)
	case "utimes":
		ts := []unix.Timespec{{Sec: c.off}, {Sec: c.off + 1}}
		err := unix.UtimesNanoAt(unix.AT_FDCWD, s.path(c.a), ts, 0)
		if err == nil {
			err = unix.Stat(s.path(c.a), &st)
		}
		return outcome(err, st.Mtim.Sec)
	case "fsync":
		return outcome(unix.Fsync(fd))
	}
	panic(c.op)
}

func isDir(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// shown is what of a file's attributes is the same everywhere.
func shown(st *unix.Stat_t) string {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Sprintf("dir %o", st.Mode)
	}
	return fmt.Sprintf("file %o %d", st.Mode, st.Size)
}

func (s *side) list(name string) string {
	fd, err := unix.Open(s.path(name), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return outcome(err)
	}
	defer unix.Close(fd)
	var found []string
	for buf := make([]byte, 1<<16); ; {
		n, err := unix.Getdents(fd, buf)
		if err != nil || n == 0 {
			slices.Sort(found)
			return outcome(err, found)
		}
		_, _, found = unix.ParseDirent(buf[:n], -1, found)
	}
}

// mapped is what a shared mapping of a file's first bytes shows.
func mapped(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return outcome(err)
	}
	if st.Size == 0 || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "nothing to map"
	}
	b, err := unix.Mmap(fd, 0, int(st.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return outcome(err)
	}
	defer unix.Munmap(b)
	return outcome(nil, string(b))
}
