package bench

import (
	"fmt"
	"path/filepath"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// workload is one kind of call. prepare makes what it needs below a directory, for one worker, and returns the call,
// which is made over and over on one thread and allocates nothing, and what undoes the preparation.
type workload struct {
	name    string
	what    string
	prepare func(dir string, worker int) (op func(i int) unix.Errno, undo func(), err error)
}

var workloads = []workload{
	{"open", "open(O_RDWR) and close of a lock last used here", prepareOpen},
	{"flock", "flock(LOCK_EX) and flock(LOCK_UN) of a lock last used here", prepareFlock},
	{"read", "pread of a value of 64 bytes", prepareRead},
	{"cat", "open(O_RDONLY), read and close of an unchanged value", prepareCat},
	{"stat", "stat of a lock", prepareStat},
	{"cold", "open(O_RDWR|O_CREAT) and close of a name never used: one commit", prepareCold},
}

func find(name string) (workload, bool) {
	for _, w := range workloads {
		if w.name == name {
			return w, true
		}
	}
	return workload{}, false
}

// makeFile makes a worker's own file with a value of 64 bytes.
func makeFile(dir string, worker int) (path string, undo func(), err error) {
	path = filepath.Join(dir, "worker"+strconv.Itoa(worker))
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return "", nil, fmt.Errorf("make %s: %w", path, err)
	}
	_, err = unix.Write(fd, make([]byte, 64))
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil {
		return "", nil, fmt.Errorf("write %s: %w", path, err)
	}
	return path, func() { unix.Unlink(path) }, nil
}

// The calls go past the runtime's scheduler (RawSyscall): a worker has nothing else to run meanwhile, and what is
// measured is the kernel and the daemon.

func open(path *byte, flags int) (fd uintptr, errno unix.Errno) {
	at := unix.AT_FDCWD
	fd, _, errno = unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(path)), uintptr(flags|unix.O_CLOEXEC), 0o666, 0, 0)
	return fd, errno
}

func closeFD(fd uintptr) { unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0) }

func prepareOpen(dir string, worker int) (func(int) unix.Errno, func(), error) {
	path, undo, err := makeFile(dir, worker)
	if err != nil {
		return nil, nil, err
	}
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return nil, nil, err
	}
	return func(int) unix.Errno {
		fd, errno := open(p, unix.O_RDWR)
		if errno == 0 {
			closeFD(fd)
		}
		return errno
	}, undo, nil
}

// onDescriptor prepares a workload that works on one descriptor without a lock.
func onDescriptor(dir string, worker int, op func(fd uintptr) unix.Errno) (func(int) unix.Errno, func(), error) {
	path, undo, err := makeFile(dir, worker)
	if err != nil {
		return nil, nil, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		undo()
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	return func(int) unix.Errno { return op(uintptr(fd)) }, func() { unix.Close(fd); undo() }, nil
}

func prepareFlock(dir string, worker int) (func(int) unix.Errno, func(), error) {
	return onDescriptor(dir, worker, func(fd uintptr) unix.Errno {
		if _, _, errno := unix.RawSyscall(unix.SYS_FLOCK, fd, unix.LOCK_EX, 0); errno != 0 {
			return errno
		}
		_, _, errno := unix.RawSyscall(unix.SYS_FLOCK, fd, unix.LOCK_UN, 0)
		return errno
	})
}

func prepareRead(dir string, worker int) (func(int) unix.Errno, func(), error) {
	buffer := make([]byte, 64)
	return onDescriptor(dir, worker, func(fd uintptr) unix.Errno {
		_, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, fd, uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)), 0, 0, 0)
		return errno
	})
}

func prepareCat(dir string, worker int) (func(int) unix.Errno, func(), error) {
	path, undo, err := makeFile(dir, worker)
	if err != nil {
		return nil, nil, err
	}
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return nil, nil, err
	}
	buffer := make([]byte, 64)
	return func(int) unix.Errno {
		fd, errno := open(p, unix.O_RDONLY)
		if errno != 0 {
			return errno
		}
		_, _, errno = unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)))
		closeFD(fd)
		return errno
	}, undo, nil
}

func prepareStat(dir string, worker int) (func(int) unix.Errno, func(), error) {
	path, undo, err := makeFile(dir, worker)
	if err != nil {
		return nil, nil, err
	}
	p, err := unix.BytePtrFromString(path)
	if err != nil {
		return nil, nil, err
	}
	var st unix.Stat_t
	return func(int) unix.Errno {
		at := unix.AT_FDCWD
		_, _, errno := unix.RawSyscall6(unix.SYS_NEWFSTATAT, uintptr(at), uintptr(unsafe.Pointer(p)), uintptr(unsafe.Pointer(&st)), 0, 0, 0)
		return errno
	}, undo, nil
}

// prepareCold uses names that have a number in them, which is written in place.
func prepareCold(dir string, worker int) (func(int) unix.Errno, func(), error) {
	const digits = 9
	own := filepath.Join(dir, "cold"+strconv.Itoa(worker))
	if err := unix.Mkdir(own, 0o777); err != nil {
		return nil, nil, fmt.Errorf("mkdir %s: %w", own, err)
	}
	name := append([]byte(own+"/"), make([]byte, digits+1)...)
	number := name[len(own)+1 : len(own)+1+digits]
	made := 0
	put := func(i int) {
		for k := digits - 1; k >= 0; k-- {
			number[k] = byte('0' + i%10)
			i /= 10
		}
	}
	op := func(i int) unix.Errno {
		put(i)
		fd, errno := open(&name[0], unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
		if errno == 0 {
			made = i + 1
			closeFD(fd)
		}
		return errno
	}
	undo := func() {
		for i := range made {
			put(i)
			unix.Unlink(string(name[:len(name)-1]))
		}
		unix.Rmdir(own)
	}
	return op, undo, nil
}
