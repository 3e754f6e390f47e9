package load

import (
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Files are clients of locks that are files: "open:DIR" opens and closes the file, as lockfs has it, "flock:DIR" calls
// flock(2) on a descriptor that stays open.
func Files(address string) (Client, error) {
	by, dir, _ := strings.Cut(address, ":")
	switch by {
	case "open":
		return &files{dir: dir}, nil
	case "flock":
		return &files{dir: dir, flock: true}, nil
	}
	return nil, fmt.Errorf("%q: want open:DIR or flock:DIR", address)
}

// Settle makes a process fit to be a worker of Files: the calls go past the runtime's scheduler (RawSyscall), since
// a worker has nothing else to run meanwhile, and what is measured is the kernel and the daemon. The collector runs
// between the rounds (Rest).
func Settle() {
	debug.SetGCPercent(-1)
	runtime.LockOSThread()
}

// Rest is what a settled worker does between rounds.
func Rest() { runtime.GC() }

type files struct {
	dir   string
	flock bool
	open  []uintptr // descriptors that live as long as the client
	made  []string  // directories of names that have one, gone with the client if they are empty
}

func (f *files) Close() error {
	for _, fd := range f.open {
		closeFD(fd)
	}
	for _, dir := range f.made {
		unix.Rmdir(dir)
	}
	return nil
}

// fileMode and dirMode are those of all that is made.
const (
	fileMode = 0o666
	dirMode  = 0o777
)

func (f *files) Lock(name string) (Lock, error) {
	l, err := f.fresh(name)
	if err != nil {
		return nil, err
	}
	// A plain O_RDONLY open makes the file and takes no lock.
	fd, errno := openFile(l.path, unix.O_RDONLY|unix.O_CREAT)
	if errno != 0 {
		return nil, fmt.Errorf("make %s: %w", l.name, errno)
	}
	if f.flock {
		f.open = append(f.open, fd)
		return &flockLock{fileName: l, fd: fd}, nil
	}
	closeFD(fd)
	return &openLock{fileName: l, flags: unix.O_RDWR}, nil
}

func (f *files) Fresh(name string) (Lock, error) {
	l, err := f.fresh(name)
	if err != nil {
		return nil, err
	}
	if f.flock {
		return &flockLock{fileName: l, fd: noFD, fresh: true}, nil
	}
	return &openLock{fileName: l, flags: unix.O_RDWR | unix.O_CREAT, fd: noFD}, nil
}

func (f *files) fresh(name string) (fileName, error) {
	full := filepath.Join(f.dir, name)
	if dir := filepath.Dir(full); dir != f.dir && !slices.Contains(f.made, dir) {
		if err := unix.Mkdir(dir, dirMode); err != nil && err != unix.EEXIST {
			return fileName{}, fmt.Errorf("mkdir %s: %w", dir, err)
		}
		f.made = append(f.made, dir)
	}
	path, err := unix.BytePtrFromString(full)
	return fileName{path, full}, err
}

// fileName is a path, as the kernel and as a message has it.
type fileName struct {
	path *byte
	name string
}

func (n fileName) Remove() error { return unix.Unlink(n.name) }

// noFD is no descriptor.
const noFD = ^uintptr(0)

// openLock is a lock that an open takes and a close releases.
type openLock struct {
	fileName
	flags int
	fd    uintptr
}

func (l *openLock) Acquire() error {
	fd, errno := openFile(l.path, l.flags)
	if errno != 0 {
		return fmt.Errorf("open %s: %w", l.name, errno)
	}
	l.fd = fd
	return nil
}

func (l *openLock) Try() (bool, error) {
	fd, errno := openFile(l.path, l.flags|unix.O_NONBLOCK)
	if errno == unix.EAGAIN {
		return false, nil
	}
	if errno != 0 {
		return false, fmt.Errorf("open %s: %w", l.name, errno)
	}
	l.fd = fd
	return true, nil
}

func (l *openLock) Release() error {
	if errno := closeFD(l.fd); errno != 0 {
		return fmt.Errorf("close %s: %w", l.name, errno)
	}
	return nil
}

// flockLock is a lock that flock takes and releases. A fresh one opens its descriptor to acquire and closes it to release.
type flockLock struct {
	fileName
	fd    uintptr
	fresh bool
}

func (l *flockLock) Acquire() error {
	_, err := l.lock(unix.LOCK_EX)
	return err
}

func (l *flockLock) Try() (bool, error) { return l.lock(unix.LOCK_EX | unix.LOCK_NB) }

func (l *flockLock) lock(how uintptr) (bool, error) {
	if l.fd == noFD {
		fd, errno := openFile(l.path, unix.O_RDONLY|unix.O_CREAT)
		if errno != 0 {
			return false, fmt.Errorf("open %s: %w", l.name, errno)
		}
		l.fd = fd
	}
	_, _, errno := unix.RawSyscall(unix.SYS_FLOCK, l.fd, how, 0)
	if errno == 0 {
		return true, nil
	}
	if l.fresh {
		l.shut()
	}
	if errno == unix.EAGAIN {
		return false, nil
	}
	return false, fmt.Errorf("flock %s: %w", l.name, errno)
}

func (l *flockLock) shut() {
	if l.fd != noFD {
		closeFD(l.fd)
		l.fd = noFD
	}
}

func (l *flockLock) Release() error {
	if l.fresh {
		l.shut()
		return nil
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_FLOCK, l.fd, unix.LOCK_UN, 0); errno != 0 {
		return fmt.Errorf("unlock %s: %w", l.name, errno)
	}
	return nil
}

// Value opens the file for reading, once; each write opens it for writing, which takes the lock.
func (f *files) Value(name string) (Value, error) {
	n, err := f.fresh(name)
	if err != nil {
		return nil, err
	}
	fd, errno := openFile(n.path, unix.O_RDONLY|unix.O_CREAT)
	if errno != 0 {
		return nil, fmt.Errorf("open %s: %w", n.name, errno)
	}
	f.open = append(f.open, fd)
	return &fileValue{n, fd}, nil
}

type fileValue struct {
	fileName
	fd uintptr
}

func (v *fileValue) Read(p []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, v.fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), 0, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("read %s: %w", v.name, errno)
	}
	return int(n), nil
}

func (v *fileValue) Write(p []byte) error {
	fd, errno := openFile(v.path, unix.O_WRONLY)
	if errno != 0 {
		return fmt.Errorf("open %s: %w", v.name, errno)
	}
	_, _, errno = unix.RawSyscall(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if e := closeFD(fd); errno == 0 {
		errno = e
	}
	if errno != 0 {
		return fmt.Errorf("write %s: %w", v.name, errno)
	}
	return nil
}

func openFile(path *byte, flags int) (fd uintptr, errno unix.Errno) {
	at := unix.AT_FDCWD
	fd, _, errno = unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(path)), uintptr(flags|unix.O_CLOEXEC), fileMode, 0, 0)
	return fd, errno
}

func closeFD(fd uintptr) unix.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
	return errno
}
