package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/harness"
)

// programs are what tests run as clients of a mount, where a shell cannot do it. They use system calls and not package
// os for files of the mount, since the runtime would poll them.
var programs = map[string]harness.Program{
	"write-twice": writeTwice,
	"one-two":     oneTwo,
	"open":        openOnce,
	"names":       names,
	"pri":         pri,
	"reclose":     reclose,
	"fcntl":       fcntl,
	"torn":        torn,
	"truncate":    truncate,
	"fsync":       fsync,
	"async":       async,
	"flockfd":     flockfd,
	"again":       again,
	"signalled":   signalled,
	"pollfd":      pollfd,
}

func must(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// retry calls f until it is not interrupted: the runtime's own signals interrupt a waiting OPEN.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func open(path string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Open(path, flags, 0o666)
		return err
	})
	return fd, err
}

// writeTwice PATH writes twice under EX and then waits to be killed.
func writeTwice(args []string) int {
	fd, err := open(args[0], unix.O_RDWR)
	must(err)
	for _, s := range []string{"lost", "too"} {
		_, err = unix.Write(fd, []byte(s))
		must(err)
	}
	fmt.Println("written")
	time.Sleep(time.Hour)
	return 0
}

// oneTwo PATH writes ONE under EX, runs a child that inherits the descriptor, waits for its standard input to end,
// writes TWO and closes.
func oneTwo(args []string) int {
	fd, err := open(args[0], unix.O_RDWR|unix.O_TRUNC)
	must(err)
	_, err = unix.Write(fd, []byte("ONE"))
	must(err)
	child := exec.Command("/bin/true")
	child.ExtraFiles = []*os.File{os.NewFile(uintptr(fd), "lock")}
	must(child.Run())
	fmt.Println("one")
	os.Stdin.Read(make([]byte, 1))
	_, err = unix.Write(fd, []byte("TWO"))
	must(err)
	must(unix.Close(fd))
	return 0
}

// openOnce PATH FLAGS opens and closes; the exit code is the errno.
func openOnce(args []string) int {
	flags, err := strconv.ParseInt(args[1], 0, 32)
	must(err)
	fd, err := open(args[0], int(flags))
	var errno unix.Errno
	if errors.As(err, &errno) {
		return int(errno)
	}
	must(err)
	must(unix.Close(fd))
	return 0
}

// names DIR makes, lists, looks at and removes names for half a second and prints the longest time that one took.
func names(args []string) int {
	var worst time.Duration
	step := func(f func() error) {
		begin := time.Now()
		must(retry(f))
		worst = max(worst, time.Since(begin))
	}
	for n, end := 0, time.Now().Add(500*time.Millisecond); time.Now().Before(end); n++ {
		name := fmt.Sprintf("%s/made%d", args[0], n)
		var st unix.Stat_t
		step(func() error { return unix.Mknod(name, unix.S_IFREG|0o644, 0) })
		step(func() error { return unix.Stat(name, &st) })
		step(func() error { return unix.Stat(args[0]+"/busy", &st) })
		step(func() error {
			fd, err := open(args[0], unix.O_RDONLY|unix.O_DIRECTORY)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			_, err = unix.Getdents(fd, make([]byte, 65536))
			return err
		})
		step(func() error { return unix.Unlink(name) })
	}
	fmt.Println(worst.Milliseconds())
	return 0
}

// pri PATH FLAGS opens and polls for POLLPRI.
func pri(args []string) int {
	fd, err := open(args[0], unix.O_RDWR|unix.O_CREAT)
	must(err)
	fmt.Println("held")
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	must(retry(func() error { _, err := unix.Poll(fds, -1); return err }))
	fmt.Printf("revents %#x\n", fds[0].Revents)
	return 0
}

// reclose PATH N opens for EX, closes, and tries at once by flock from another process N times.
func reclose(args []string) int {
	n, err := strconv.Atoi(args[1])
	must(err)
	other, err := open(args[0], unix.O_RDONLY)
	must(err)
	for i := range n {
		fd, err := open(args[0], unix.O_RDWR)
		must(err)
		must(unix.Close(fd))
		if err := retry(func() error { return unix.Flock(other, unix.LOCK_EX|unix.LOCK_NB) }); err != nil {
			fmt.Printf("try %d: %v\n", i, err)
			return 1
		}
		must(unix.Flock(other, unix.LOCK_UN))
	}
	return 0
}

// fcntl PATH KIND START LEN [hold] locks a range, KIND being r or w without waiting, R or W with, and with a leading o an
// OFD lock; the exit code is the errno. With hold it then prints "held" and waits to be killed.
func fcntl(args []string) int {
	fd, err := open(args[0], unix.O_RDWR)
	must(err)
	kind, cmd := args[1], unix.F_SETLK
	if kind[0] == 'o' {
		kind, cmd = kind[1:], unix.F_OFD_SETLK
	}
	if kind == "R" || kind == "W" {
		kind, cmd = strings.ToLower(kind), cmd+1 // F_SETLKW, F_OFD_SETLKW
	}
	start, err := strconv.ParseInt(args[2], 0, 64)
	must(err)
	length, err := strconv.ParseInt(args[3], 0, 64)
	must(err)
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: start, Len: length}
	if kind == "w" {
		lock.Type = unix.F_WRLCK
	}
	err = retry(func() error { return unix.FcntlFlock(uintptr(fd), cmd, &lock) })
	var errno unix.Errno
	if errors.As(err, &errno) {
		return int(errno)
	}
	if len(args) > 4 {
		fmt.Println("held")
		time.Sleep(time.Hour)
	}
	return 0
}

// torn PATH [keep] reads a value again and again, each time through a new descriptor unless it is to be kept, until it is interrupted by SIGINT, and
// complains if one read gives something that is not one character repeated up to the length that it stands for.
func torn(args []string) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT)
	reads := 0
	kept, err := open(args[0], unix.O_RDONLY)
	must(err)
	buf := make([]byte, 1<<20)
	for {
		select {
		case <-stop:
			fmt.Println(reads, "reads")
			return 0
		default:
		}
		fd := kept
		if len(args) == 1 {
			fd, err = open(args[0], unix.O_RDONLY)
			must(err)
		}
		n := 0
		must(retry(func() (err error) { n, err = unix.Pread(fd, buf, 0); return err }))
		if fd != kept {
			unix.Close(fd)
		}
		reads++
		v := buf[:n]
		if n == 0 {
			continue
		}
		if want := int(v[0]-'a'+1) * 100; n != want {
			fmt.Printf("%d bytes of %q, want %d\n", n, v[0], want)
			return 1
		}
		for _, c := range v {
			if c != v[0] {
				fmt.Printf("value of %q has a %q in it\n", v[0], c)
				return 1
			}
		}
	}
}

// truncate PATH ERRNO shortens a file by its path and wants that errno.
func truncate(args []string) int {
	err := unix.Truncate(args[0], 0)
	if want, _ := strconv.Atoi(args[1]); err != unix.Errno(want) {
		fmt.Println("truncate:", err)
		return 1
	}
	return 0
}

// fsync PATH GO writes under EX, makes the file GO, waits until that is gone, and syncs; the exit code is the errno.
func fsync(args []string) int {
	fd, err := open(args[0], unix.O_RDWR)
	must(err)
	_, err = unix.Write(fd, []byte("mine"))
	must(err)
	must(os.WriteFile(args[1], nil, 0o666))
	for {
		if _, err := os.Stat(args[1]); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	var errno unix.Errno
	if errors.As(unix.Fsync(fd), &errno) {
		return int(errno)
	}
	return 0
}

// async PATH opens an alias with async, reads (which must be EAGAIN), polls until it is granted, and writes.
func async(args []string) int {
	fd, err := open(args[0], unix.O_RDWR)
	must(err)
	if _, err := unix.Pread(fd, make([]byte, 10), 0); err != unix.EAGAIN {
		fmt.Println("read before the grant:", err)
		return 1
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		fmt.Printf("poll before the grant: %v, revents %#x\n", err, fds[0].Revents)
		return 1
	}
	must(retry(func() error { _, err := unix.Poll(fds, -1); return err }))
	fmt.Printf("granted, revents %#x\n", fds[0].Revents)
	_, err = unix.Write(fd, []byte("new"))
	must(err)
	must(unix.Close(fd))
	return 0
}

// flockfd FD HOW calls flock(2) on an inherited descriptor; HOW is share, exclusive, try (exclusive) or unlock. The exit
// code is the errno.
func flockfd(args []string) int {
	fd, err := strconv.Atoi(args[0])
	must(err)
	how := map[string]int{
		"share": unix.LOCK_SH, "exclusive": unix.LOCK_EX, "try": unix.LOCK_EX | unix.LOCK_NB, "unlock": unix.LOCK_UN,
	}[args[1]]
	var errno unix.Errno
	if errors.As(retry(func() error { return unix.Flock(fd, how) }), &errno) {
		return int(errno)
	}
	return 0
}

// pollfd FD polls an inherited descriptor for an error.
func pollfd(args []string) int {
	fd, err := strconv.Atoi(args[0])
	must(err)
	fds := []unix.PollFd{{Fd: int32(fd)}}
	must(retry(func() error { _, err := unix.Poll(fds, -1); return err }))
	if fds[0].Revents == unix.POLLERR|unix.POLLHUP {
		fmt.Println("lost")
		return 0
	}
	fmt.Printf("revents %#x\n", fds[0].Revents)
	return 1
}

// again PATH N WHAT does the same N times: stat, read (through one descriptor), cat (open, read, close) or list.
func again(args []string) int {
	n, err := strconv.Atoi(args[1])
	must(err)
	fd, err := open(args[0], unix.O_RDONLY)
	must(err)
	buf := make([]byte, 65536)
	once := map[string]func() error{
		"stat": func() error { return unix.Stat(args[0], new(unix.Stat_t)) },
		"read": func() error { _, err := unix.Pread(fd, buf, 0); return err },
		"cat": func() error {
			fd, err := unix.Open(args[0], unix.O_RDONLY, 0)
			if err == nil {
				_, err = unix.Pread(fd, buf, 0)
				unix.Close(fd)
			}
			return err
		},
		"list": func() error {
			if _, err := unix.Seek(fd, 0, 0); err != nil {
				return err
			}
			_, err := unix.Getdents(fd, buf)
			return err
		},
	}[args[2]]
	for range n {
		must(retry(once))
	}
	return 0
}

// signalled PATH gets a signal every few milliseconds while it waits for a flock, and prints when it has it. The
// runtime installs its handlers with SA_RESTART, so the kernel restarts the call each time.
func signalled(args []string) int {
	runtime.LockOSThread()
	signal.Notify(make(chan os.Signal, 1), unix.SIGUSR1)
	fd, err := open(args[0], unix.O_RDONLY)
	must(err)
	tid := unix.Gettid()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				unix.Tgkill(unix.Getpid(), tid, unix.SIGUSR1)
			}
		}
	}()
	fmt.Println("waiting")
	must(retry(func() error { return unix.Flock(fd, unix.LOCK_EX) }))
	close(done)
	fmt.Println("granted")
	return 0
}
