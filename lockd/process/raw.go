package process

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pathBuf holds "/proc/TID/name" with its end mark, on the caller's stack.
type pathBuf [48]byte

// of writes the path of a file of thread tid; name begins with a slash and has at most 20 bytes.
func (p *pathBuf) of(tid uint32, name string) *byte {
	n := copy(p[:], "/proc/")
	var digits [10]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + tid%10)
		tid /= 10
		if tid == 0 {
			break
		}
	}
	n += copy(p[n:], digits[i:])
	n += copy(p[n:], name)
	p[n] = 0
	return &p[0]
}

// readFile reads a small file of /proc with one read(2) into buf, by raw system calls: no allocation
// and no hand-over of the processor, since these reads take microseconds and cannot block.
func readFile(path *byte, buf []byte) (int, error) {
	fd, err := rawOpen(path)
	if err != nil {
		return 0, err
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
	if errno != 0 {
		return 0, goneOr(errno)
	}
	return int(n), nil
}

// readAll reads a whole file of /proc: into buf if it fits, else into a larger one.
func readAll(path *byte, buf []byte) ([]byte, error) {
	fd, err := rawOpen(path)
	if err != nil {
		return nil, err
	}
	defer syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
	got := 0
	for {
		if got == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&buf[got])), uintptr(len(buf)-got))
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return nil, goneOr(errno)
		}
		if n == 0 {
			return buf[:got], nil
		}
		got += int(n)
	}
}

func rawOpen(path *byte) (uintptr, error) {
	const atFdcwd = ^uintptr(99) // AT_FDCWD, -100
	fd, _, errno := syscall.RawSyscall6(syscall.SYS_OPENAT, atFdcwd, uintptr(unsafe.Pointer(path)), syscall.O_RDONLY|syscall.O_CLOEXEC, 0, 0, 0)
	if errno != 0 {
		return 0, goneOr(errno)
	}
	return fd, nil
}

func goneOr(errno syscall.Errno) error {
	if errno == syscall.ENOENT || errno == syscall.ESRCH {
		return ErrGone
	}
	return errno
}

// readNumbers returns the entries of a directory of /proc that are numbers.
func readNumbers(path string) ([]uint32, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return numbersIn(fd)
}

// numbersIn reads the rest of an open directory.
func numbersIn(fd int) ([]uint32, error) {
	var numbers []uint32
	buf := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return numbers, nil
		}
		numbers = appendNumbers(numbers, buf[:n])
	}
}

// appendNumbers adds the names in a block of directory entries (struct linux_dirent64) that are numbers.
func appendNumbers(numbers []uint32, block []byte) []uint32 {
	const nameOffset = 19
	for len(block) > nameOffset {
		size := int(block[16]) | int(block[17])<<8
		if size <= nameOffset || size > len(block) {
			return numbers
		}
		name := block[nameOffset:size]
		if n, ok := number(name); ok && name[0] != '-' {
			numbers = append(numbers, uint32(n))
		}
		block = block[size:]
	}
	return numbers
}
