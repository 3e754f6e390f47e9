package actor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/ioc"
)

// Program is the actor's side: it reads calls from standard input and writes results to standard output. It makes system calls
// only and never uses package os for files of a mount, since the runtime would poll them.
func Program(args []string) int {
	runtime.LockOSThread()
	p := &program{dir: args[0], fds: map[string]int{}}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		fmt.Println(p.do(words))
	}
	return 0
}

type program struct {
	dir string
	fds map[string]int
}

// call is a system call: what it does with its arguments, and how many it needs.
type call struct {
	args int
	do   func(p *program, a []string) (string, error)
}

var calls = map[string]call{
	"open":      {3, open},      // FD FLAGS PATH
	"dup":       {2, dup},       // FD NEW
	"close":     {1, closeFD},   // FD
	"read":      {2, read},      // FD N
	"pread":     {3, pread},     // FD OFFSET N
	"write":     {2, write},     // FD TEXT
	"pwrite":    {3, pwrite},    // FD OFFSET TEXT
	"fill":      {4, fill},      // FD OFFSET CHARACTER N: a pwrite of so many
	"seek":      {3, seek},      // FD OFFSET set|cur|end|data|hole
	"fsync":     {1, fsync},     // FD
	"ftruncate": {2, ftruncate}, // FD N
	"truncate":  {2, truncate},  // PATH N
	"size":      {1, size},      // PATH
	"fsize":     {1, fsize},     // FD
	"mmap":      {2, mapped},    // FD N: what a shared mapping of the beginning shows
	"unlink":    {1, unlink},    // PATH
	"rename":    {2, rename},    // PATH PATH
	"mkdir":     {1, mkdir},     // PATH
	"rmdir":     {1, rmdir},     // PATH
	"mknod":     {1, mknod},     // PATH
	"link":      {2, link},      // PATH PATH
	"chmod":     {2, chmod},     // MODE PATH
	"list":      {1, list},      // PATH
	"flock":     {2, flock},     // FD sh|ex|un[,nb]
	"lock":      {4, setlk},     // FD r|w|u START LENGTH: F_SETLK
	"lockw":     {4, setlkw},    // likewise F_SETLKW
	"test":      {4, getlk},     // likewise F_GETLK
	"olock":     {4, ofdSetlk},  // F_OFD_SETLK and so on
	"olockw":    {4, ofdSetlkw},
	"otest":     {4, ofdGetlk},
	"poll":      {3, poll},     // FD in,pri,out MILLISECONDS
	"select":    {3, selectFD}, // likewise select(2): readable, exceptional, writable
	"watch":     {3, watch},    // EP FD in,pri,out,et: adds to an epoll set, which is made
	"epoll":     {2, epoll},    // EP MILLISECONDS: what there is of its descriptors
	"request":   {3, request},  // FD MODE MILLISECONDS: a lock that is taken away after that
	"notice":    {1, notice},   // FD: the kind and the modes of the oldest notice
	"xattr":     {2, xattr},    // PATH NAME
	"token":     {1, token},    // FD
	"statfs":    {1, statfs},
}

// do makes a call and says what came of it.
func (p *program) do(words []string) string {
	c, ok := calls[words[0]]
	if !ok || len(words)-1 != c.args {
		return "no such call: " + strings.Join(words, " ")
	}
	got, err := c.do(p, words[1:])
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return unix.ErrnoName(errno)
	case err != nil:
		return err.Error()
	case got == "":
		return "ok"
	}
	return got
}

func (p *program) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(p.dir, name)
}

func (p *program) fd(name string) int {
	if fd, ok := p.fds[name]; ok {
		return fd
	}
	return -1
}

func num(s string) int64 {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, "actor:", err)
		os.Exit(2)
	}
	return n
}

var flags = map[string]int{
	"rdonly": unix.O_RDONLY, "wronly": unix.O_WRONLY, "rdwr": unix.O_RDWR, "creat": unix.O_CREAT, "excl": unix.O_EXCL,
	"trunc": unix.O_TRUNC, "append": unix.O_APPEND, "nonblock": unix.O_NONBLOCK, "sync": unix.O_SYNC, "directory": unix.O_DIRECTORY,
	"direct": unix.O_DIRECT,
}

func open(p *program, a []string) (string, error) {
	how := 0
	for _, f := range strings.Split(a[1], ",") {
		v, ok := flags[f]
		if !ok {
			return "", fmt.Errorf("no flag %s", f)
		}
		how |= v
	}
	fd, err := unix.Open(p.path(a[2]), how|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return "", err
	}
	p.fds[a[0]] = fd
	return "", nil
}

func dup(p *program, a []string) (string, error) {
	fd, err := unix.Dup(p.fd(a[0]))
	if err == nil {
		p.fds[a[1]] = fd
	}
	return "", err
}

func closeFD(p *program, a []string) (string, error) {
	err := unix.Close(p.fd(a[0]))
	delete(p.fds, a[0])
	return "", err
}

// shown is how what was read is said: text with runs of a character counted, no blanks.
func shown(b []byte) string {
	var s strings.Builder
	s.WriteByte('"')
	for i := 0; i < len(b); {
		n := 1
		for i+n < len(b) && b[i+n] == b[i] {
			n++
		}
		c := string(b[i])
		switch b[i] {
		case 0:
			c = "0"
		case '\n':
			c = `\n`
		}
		if n > 8 {
			fmt.Fprintf(&s, "{%s*%d}", c, n)
		} else {
			s.WriteString(strings.Repeat(c, n))
		}
		i += n
	}
	s.WriteByte('"')
	return s.String()
}

func read(p *program, a []string) (string, error) {
	b := make([]byte, num(a[1]))
	n, err := unix.Read(p.fd(a[0]), b)
	return shown(b[:max(n, 0)]), err
}

func pread(p *program, a []string) (string, error) {
	b := make([]byte, num(a[2]))
	n, err := unix.Pread(p.fd(a[0]), b, num(a[1]))
	return shown(b[:max(n, 0)]), err
}

// wrote says how many bytes were taken if not all were.
func wrote(n, all int, err error) (string, error) {
	if err == nil && n < all {
		return strconv.Itoa(n), nil
	}
	return "", err
}

func write(p *program, a []string) (string, error) {
	n, err := unix.Write(p.fd(a[0]), []byte(a[1]))
	return wrote(n, len(a[1]), err)
}

func pwrite(p *program, a []string) (string, error) {
	n, err := unix.Pwrite(p.fd(a[0]), []byte(a[2]), num(a[1]))
	return wrote(n, len(a[2]), err)
}

func fill(p *program, a []string) (string, error) {
	b := []byte(strings.Repeat(a[2], int(num(a[3]))))
	n, err := unix.Pwrite(p.fd(a[0]), b, num(a[1]))
	return wrote(n, len(b), err)
}

func seek(p *program, a []string) (string, error) {
	whence := slices.Index([]string{"set", "cur", "end", "data", "hole"}, a[2])
	n, err := unix.Seek(p.fd(a[0]), num(a[1]), whence)
	return strconv.FormatInt(n, 10), err
}

func fsync(p *program, a []string) (string, error) { return "", unix.Fsync(p.fd(a[0])) }
func ftruncate(p *program, a []string) (string, error) {
	return "", unix.Ftruncate(p.fd(a[0]), num(a[1]))
}
func truncate(p *program, a []string) (string, error) {
	return "", unix.Truncate(p.path(a[0]), num(a[1]))
}

func size(p *program, a []string) (string, error) {
	var st unix.Stat_t
	err := unix.Stat(p.path(a[0]), &st)
	return strconv.FormatInt(st.Size, 10), err
}

func fsize(p *program, a []string) (string, error) {
	var st unix.Stat_t
	err := unix.Fstat(p.fd(a[0]), &st)
	return strconv.FormatInt(st.Size, 10), err
}

func mapped(p *program, a []string) (string, error) {
	b, err := unix.Mmap(p.fd(a[0]), 0, int(num(a[1])), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return "", err
	}
	defer unix.Munmap(b)
	return shown(b), nil
}

func unlink(p *program, a []string) (string, error) { return "", unix.Unlink(p.path(a[0])) }
func mkdir(p *program, a []string) (string, error)  { return "", unix.Mkdir(p.path(a[0]), 0o755) }
func rmdir(p *program, a []string) (string, error)  { return "", unix.Rmdir(p.path(a[0])) }
func rename(p *program, a []string) (string, error) {
	return "", unix.Rename(p.path(a[0]), p.path(a[1]))
}
func mknod(p *program, a []string) (string, error) {
	return "", unix.Mknod(p.path(a[0]), unix.S_IFREG|0o644, 0)
}
func link(p *program, a []string) (string, error) {
	return "", unix.Link(p.path(a[0]), p.path(a[1]))
}
func chmod(p *program, a []string) (string, error) {
	return "", unix.Chmod(p.path(a[1]), uint32(num("0"+a[0])))
}

func list(p *program, a []string) (string, error) {
	fd, err := unix.Open(p.path(a[0]), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var names []string
	for buf := make([]byte, 1<<16); ; {
		n, err := unix.Getdents(fd, buf)
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	return "[" + strings.Join(names, " ") + "]", nil
}

func flock(p *program, a []string) (string, error) {
	how, try := strings.CutSuffix(a[1], ",nb")
	op := map[string]int{"sh": unix.LOCK_SH, "ex": unix.LOCK_EX, "un": unix.LOCK_UN}[how]
	if try {
		op |= unix.LOCK_NB
	}
	return "", unix.Flock(p.fd(a[0]), op)
}

var lockTypes = map[string]int16{"r": unix.F_RDLCK, "w": unix.F_WRLCK, "u": unix.F_UNLCK}

// fcntl makes a lock call. START may be end-N or cur: relative to the end of the file or the descriptor's offset.
func (p *program) fcntl(cmd int, a []string) (unix.Flock_t, error) {
	lk := unix.Flock_t{Type: lockTypes[a[1]], Len: num(a[3])}
	switch rest, end := strings.CutPrefix(a[2], "end"); {
	case end:
		lk.Whence = io.SeekEnd
		if rest != "" {
			lk.Start = num(rest)
		}
	case a[2] == "cur":
		lk.Whence = io.SeekCurrent
	default:
		lk.Start = num(a[2])
	}
	err := unix.FcntlFlock(uintptr(p.fd(a[0])), cmd, &lk)
	return lk, err
}

func setlk(p *program, a []string) (string, error) {
	_, err := p.fcntl(unix.F_SETLK, a)
	return "", err
}

func setlkw(p *program, a []string) (string, error) {
	_, err := p.fcntl(unix.F_SETLKW, a)
	return "", err
}

func ofdSetlk(p *program, a []string) (string, error) {
	_, err := p.fcntl(unix.F_OFD_SETLK, a)
	return "", err
}

func ofdSetlkw(p *program, a []string) (string, error) {
	_, err := p.fcntl(unix.F_OFD_SETLKW, a)
	return "", err
}

func getlk(p *program, a []string) (string, error)    { return p.testLock(unix.F_GETLK, a) }
func ofdGetlk(p *program, a []string) (string, error) { return p.testLock(unix.F_OFD_GETLK, a) }

func (p *program) testLock(cmd int, a []string) (string, error) {
	lk, err := p.fcntl(cmd, a)
	if err != nil {
		return "", err
	}
	switch lk.Type {
	case unix.F_UNLCK:
		return "free", nil
	case unix.F_RDLCK:
		return fmt.Sprintf("r %d %d pid=%d", lk.Start, lk.Len, lk.Pid), nil
	}
	return fmt.Sprintf("w %d %d pid=%d", lk.Start, lk.Len, lk.Pid), nil
}

func xattr(p *program, a []string) (string, error) {
	b := make([]byte, 4096)
	n, err := unix.Getxattr(p.path(a[0]), a[1], b)
	return string(b[:max(n, 0)]), err
}

func token(p *program, a []string) (string, error) {
	t, err := ioc.TokenOf(p.fd(a[0]))
	return strconv.FormatUint(t.Token, 10), err
}

func statfs(p *program, a []string) (string, error) {
	var st unix.Statfs_t
	return "", unix.Statfs(p.path(a[0]), &st)
}
