package run

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// A semaphore of N slots is a directory: slot k is EX on DIR/k, and who waits stands in line for EX on DIR/.queue. Only the
// first in line asks for slots, for all of them at once, and the first that is granted is his; then he leaves the line.
//
//	run ──► DIR/.queue EX ──► DIR/1 … DIR/N EX, asynchronous ──► poll(2) ──► one is granted ──► the others and the line
//	        first come,       never counted for a deadlock:                  no other counts    are let go of
//	        first served      any one of N will do
//
// So a slot that becomes free wakes one waiter and no more, N slots and W waiters cost N+W requests and not N·W, and nobody
// overtakes the line: a slot that its first one waits for is not to be had by a try. Whoever dies closes his descriptors, and
// with them goes what he held or asked for. That at most N are held needs no line: it is the slots' own exclusion.
const lineName = ".queue"

// maxSlots is the limit of the state for user.lockfs.slots.
const maxSlots = 1 << 20

// acquireSlot takes one of the slots of a directory, making it if need be. With -n it does not stand in line and fails if
// each of them was busy at one moment.
func (o *options) acquireSlot(dir string) (held, error) {
	dir, err := o.semaphore(dir)
	if err != nil {
		return held{}, err
	}
	order := without(slotOrder(dir, o.slots), slotsHad(dir)) // who waits for himself waits for ever
	if len(order) == 0 && !o.waiting.Never {
		return held{}, exit.Of("run", dir, unix.EDEADLK)
	}
	began := time.Now()
	stop := o.sayWhom(dir, func() string { return fmt.Sprintf("one of %d slots, %s", o.slots, slotHolders(dir)) })
	defer stop()
	if !o.waiting.Never {
		line, err := o.standInLine(filepath.Join(dir, lineName))
		if err != nil {
			return held{}, err
		}
		defer unix.Close(line)
	}
	taken := slotsTaken(dir)
	asks := asks{o: o, dir: dir, idle: without(order, taken)}
	asks.taken = without(order, asks.idle)
	h, err := asks.first(began)
	asks.withdraw()
	if err != nil {
		return held{}, err
	}
	if n, err := slotsOf(dir); err != nil || n != o.slots { // set anew while this one waited
		unix.Close(h.fd)
		return held{}, otherSlots(dir, o.slots, n, err)
	}
	if o.verbose {
		fmt.Fprintf(os.Stderr, "lockfs: run %s: slot %d of %d after %.6f seconds\n", dir, h.slot, o.slots, time.Since(began).Seconds())
	}
	return h, nil
}

// semaphore finds or makes the directory, with that many slots.
func (o *options) semaphore(dir string) (string, error) {
	dir, err := inMount(dir)
	if err != nil {
		return "", err
	}
	if err := unix.Mkdir(dir, 0o777); err != nil && !errors.Is(err, unix.EEXIST) {
		if _, statErr := os.Stat(dir); statErr != nil { // it is there for whoever may not make it
			return "", openError(dir, err)
		}
	}
	for {
		n, err := slotsOf(dir)
		if !errors.Is(err, unix.ENODATA) {
			if err != nil || n != o.slots {
				return "", otherSlots(dir, o.slots, n, err)
			}
			return dir, nil
		}
		err = unix.Setxattr(dir, state.XattrSlots, []byte(strconv.Itoa(o.slots)), unix.XATTR_CREATE)
		switch {
		case errors.Is(err, unix.EEXIST): // by another, at the same time
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
			return "", &exit.Error{Op: "run", Path: dir, What: "how many slots it has is not set, and its owner or root alone may",
				Do: fmt.Sprintf("have it set: setfattr -n %s -v %d %s", state.XattrSlots, o.slots, dir), Code: exit.Refused, Err: err}
		case errors.Is(err, unix.EINVAL):
			return "", openError(dir, unix.ENOTDIR) // a file has no slots
		case err != nil:
			return "", openError(dir, err)
		}
	}
}

// slotsOf reads how many slots a directory has; ENODATA if that is not set.
func slotsOf(dir string) (int, error) {
	var b [16]byte
	n, err := unix.Getxattr(dir, state.XattrSlots, b[:])
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(b[:n]))
}

// otherSlots says that a directory has not as many slots as were asked for.
func otherSlots(dir string, asked, has int, err error) error {
	if err != nil {
		return openError(dir, err)
	}
	return &exit.Error{Op: "run", Path: dir, What: fmt.Sprintf("it has %d slots, not %d", has, asked),
		Do:   fmt.Sprintf("give --slots %d, or have its owner change it: setfattr -n %s -v %d %s", has, state.XattrSlots, asked, dir),
		Code: exit.Usage}
}

// slotOrder is the order in which the slots are asked for. Each host begins with another, and so finds one that it had before.
func slotOrder(dir string, n int) []int {
	sum := fnv.New32a()
	host, _ := os.Hostname()
	fmt.Fprint(sum, host, dir)
	order := make([]int, n)
	for i := range order {
		order[i] = int((uint64(sum.Sum32())+uint64(i))%uint64(n)) + 1
	}
	return order
}

// without leaves out some of the slots.
func without(order, some []int) []int {
	return slices.DeleteFunc(slices.Clone(order), func(slot int) bool { return slices.Contains(some, slot) })
}

// standInLine waits until this one is the first in line and returns the descriptor that holds the place.
func (o *options) standInLine(path string) (int, error) {
	request := ioc.Request{Mode: uint32(queue.EX), Flags: o.request.Bits() & ioc.HeadQue, Wait: o.waiting.Limit}
	for {
		fd, err := openSlot(path)
		if err != nil {
			return 0, err
		}
		_, err = Masked(func() (ioc.Request, error) { return ioc.Lock(fd, request) })
		if err == nil {
			return fd, nil
		}
		unix.Close(fd)
		if !errors.Is(err, unix.ESTALE) { // removed before it was asked for
			return 0, o.waiting.Conflict("run", filepath.Dir(path), err)
		}
	}
}

// openSlot opens a file of the semaphore without a lock, and makes it, with the permissions that its directory gives.
func openSlot(path string) (int, error) {
	perm := uint32(0o666)
	if stat, err := os.Stat(filepath.Dir(path)); err == nil {
		perm &= uint32(stat.Mode().Perm())
	}
	for {
		fd, view, err := tryOpen(path, perm)
		switch {
		case errors.Is(err, unix.ESTALE), errors.Is(err, unix.EINTR): // removed at this moment
		case view == ioc.ViewDlmfs:
			unix.Close(fd)
			return 0, exit.Usagef("run", "--slots needs a mount of view lock or posix, and %s is in one of view dlmfs", path)
		case err != nil:
			return 0, openError(path, err)
		default:
			return fd, nil
		}
	}
}

func tryOpen(path string, perm uint32) (fd int, view ioc.View, err error) {
	const flags = unix.O_RDONLY | unix.O_NOCTTY | unix.O_CLOEXEC | unix.O_NONBLOCK
	mask := unix.Umask(0)
	fd, err = unix.Open(path, flags|unix.O_CREAT, perm)
	unix.Umask(mask)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
		fd, err = unix.Open(path, flags, 0)
	}
	if errors.Is(err, unix.ETXTBSY) { // there every open locks
		return -1, ioc.ViewDlmfs, nil
	}
	if err != nil {
		return -1, 0, err
	}
	info, err := ioc.InfoOf(fd)
	if err != nil {
		unix.Close(fd)
	}
	return fd, info.View, err
}

// slotsHad are the slots of a directory that this process has by inherited descriptors: those of an outer run.
func slotsHad(dir string) (had []int) {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range fds {
		name, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err != nil || filepath.Dir(name) != dir {
			continue
		}
		slot, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		fd, _ := strconv.Atoi(entry.Name())
		if info, err := ioc.InfoOf(fd); err == nil && info.State == ioc.Held {
			had = append(had, slot)
		}
	}
	return had
}

// slotsTaken are the slots of a directory that somebody holds, as far as this host was told.
func slotsTaken(dir string) (taken []int) {
	m, rel, err := client.Find("run", dir)
	if err != nil {
		return nil
	}
	entries, _ := os.ReadDir(m.Control("held", rel))
	for _, entry := range entries {
		if slot, err := strconv.Atoi(entry.Name()); err == nil {
			taken = append(taken, slot)
		}
	}
	return taken
}

// slotHolders names who has the slots of a directory.
func slotHolders(dir string) string {
	m, rel, err := client.Find("run", dir)
	if err != nil {
		return "and no daemon tells whom for"
	}
	locks, err := m.Held(rel)
	if err != nil {
		return err.Error()
	}
	var names []string
	for _, l := range locks {
		slot, below := strings.CutPrefix(l.Path, strings.TrimSuffix("/"+rel, "/")+"/")
		if n, err := strconv.Atoi(slot); below && err == nil && n > 0 {
			names = append(names, fmt.Sprintf("%s held by %s", slot, holder(l)))
		}
	}
	return several(names)
}
