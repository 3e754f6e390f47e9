package process

import (
	"iter"
	"maps"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// File names an inode as the kernel shows it in every process: the device number of the mount's super
// block (st_dev) and the inode number that FUSE reported.
type File struct {
	Dev, Ino uint64
}

// Descriptor is an open file by a thread whose process has it, such as that which opened it, and the inode that it opened.
type Descriptor struct {
	Opener uint32
	Heir   uint32 // another one, which stands for that once it is gone; 0: not known
	File   File
	Opened time.Duration // when it was opened, since boot; 0: not known
}

// process returns the process that is known to have it, 0 if there is none any more.
func (d Descriptor) process() uint32 {
	for _, tid := range [...]uint32{d.Opener, d.Heir} {
		if pid := Tgid(tid); pid != 0 && !isZombie(pid) {
			return pid
		}
	}
	return 0
}

// SameOwner reports whether the descriptor d counts as the requester's own: it was opened by a thread
// of the requester's process, or the requester's process has the very same open file (it inherited
// it), which kcmp(2) tells.
//
// Once the opener is gone, and who stands for it, there is nothing to compare with: the answer is then false, and their
// other heirs count as strangers. Must not be called by the goroutine that reads the FUSE device (package comment).
func SameOwner(requester uint32, d Descriptor) bool { return OwnerOf(requester).Has(d) }

// Owner looks up which of many descriptors are one process's own. It reads the descriptors of that process once, at
// the first question that needs them, so it is to be used for one decision and then forgotten.
type Owner struct {
	thread uint32
	pid    uint32            // its process, 0: gone or not visible
	known  map[uint32]bool   // opener → of the same process
	files  map[File][]uint32 // its descriptors by inode; nil: not read yet
	born   time.Duration     // when it may have begun at the latest, since boot; 0: not looked up yet
}

// OwnerOf returns the look-up for the process of a thread.
func OwnerOf(thread uint32) *Owner { return &Owner{thread: thread, pid: Tgid(thread)} }

// Has is [SameOwner] for one more descriptor. It costs under 1 µs for most strangers.
func (o *Owner) Has(d Descriptor) bool {
	if o.pid == 0 || d.Opener == 0 {
		return false
	}
	if o.opened(d.Opener) || d.Heir != 0 && o.opened(d.Heir) && d.process() == o.pid {
		return true
	}
	if o.olderThan(d) {
		return false
	}
	o.read()
	fds := o.files[d.File]
	return len(fds) > 0 && anyShared(o.pid, fds, d)
}

// bornMargin is more than what the process's time of birth is rounded by, and the clocks may differ.
const bornMargin = 2 * clockTick

// olderThan reports whether the process began before the file was opened: then it cannot have inherited it. For most who
// contend for a lock this one look replaces one at each of their descriptors. (Descriptors that were sent through a socket are
// not inherited.)
func (o *Owner) olderThan(d Descriptor) bool {
	if d.Opened == 0 {
		return false
	}
	if o.born == 0 {
		var st stat
		if st.read(o.pid) != nil {
			return false
		}
		o.born = time.Duration(st.start)*clockTick + bornMargin
	}
	return o.born < d.Opened
}

// Files returns what the process has open.
func (o *Owner) Files() iter.Seq[File] {
	if o.pid != 0 {
		o.read()
	}
	return maps.Keys(o.files)
}

// read reads the descriptors.
func (o *Owner) read() {
	if o.files == nil {
		o.files = descriptors(o.pid)
	}
}

// opened reports whether a thread belongs to the process.
func (o *Owner) opened(thread uint32) bool {
	if thread == o.thread {
		return true
	}
	same, ok := o.known[thread]
	if !ok {
		if o.known == nil {
			o.known = make(map[uint32]bool)
		}
		same = inGroup(o.pid, thread)
		o.known[thread] = same
	}
	return same
}

// hasDescriptor reports whether process pid has the open file d.
func hasDescriptor(pid uint32, d Descriptor) bool {
	fds := openOn(pid, d.File)
	return len(fds) > 0 && anyShared(pid, fds, d)
}

// anyShared reports whether one of a process's descriptors is the open file d.
func anyShared(pid uint32, fds []uint32, d Descriptor) bool {
	opener := d.process()
	if opener == 0 {
		return false
	}
	for _, theirs := range openOn(opener, d.File) {
		for _, ours := range fds {
			if sameOpenFile(pid, ours, opener, theirs) {
				return true
			}
		}
	}
	return false
}

// sameOpenFile compares two descriptors by kcmp(2).
func sameOpenFile(pidA, fdA, pidB, fdB uint32) bool {
	const kcmpFile = 0
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pidA), uintptr(pidB), kcmpFile, uintptr(fdA), uintptr(fdB), 0)
	return errno == 0 && r == 0
}

// sameMemory reports whether two processes share their memory, as a vfork(2) child and its parent do.
func sameMemory(pidA, pidB uint32) bool {
	const kcmpVM = 1
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pidA), uintptr(pidB), kcmpVM, 0, 0, 0)
	return errno == 0 && r == 0
}

// openOn returns the descriptors that a process has on an inode, nil if it has none, is gone or
// may not be looked at.
func openOn(pid uint32, file File) []uint32 { return descriptors(pid)[file] }

// descriptors returns the descriptors of a process by what they have open.
func descriptors(pid uint32) map[File][]uint32 {
	found := map[File][]uint32{}
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10) + "/fd"
	dirfd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return found
	}
	defer unix.Close(dirfd)
	all, err := numbersIn(dirfd)
	if err != nil {
		return found
	}
	var st unix.Statx_t
	for _, fd := range all {
		if unix.Statx(dirfd, strconv.FormatUint(uint64(fd), 10), unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st) != nil {
			continue
		}
		f := File{Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino}
		found[f] = append(found[f], fd)
	}
	return found
}
