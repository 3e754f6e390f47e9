package load

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// arena is the memory that the workers of a round share. What is about the lock that all contend for is written under
// that lock alone; it is atomic so that a lock that does not exclude shows as a wrong count, not as a fault.
type arena struct {
	holder   atomic.Int64 // worker+1 of whoever holds the lock, 0 for nobody
	last     atomic.Int64 // worker+1 of who held it last
	released atomic.Int64 // when it began to release (clock)
	grants   atomic.Int64 // counted by load and store, which only the lock makes right

	outage  [2]atomic.Int64 // W5: clock before and after the leader was taken down; [1] is set last
	renewed atomic.Int64    // W5: clock when the first new lock was granted whose request began later
}

// arenaSize is a page: what mmap gives.
const arenaSize = 4096

// makeArena makes the file that the workers map, and maps it.
func makeArena() (a *arena, path string, drop func(), err error) {
	f, err := os.CreateTemp("", "lockfs-bench-")
	if err != nil {
		return nil, "", nil, err
	}
	defer f.Close()
	if err := f.Truncate(arenaSize); err != nil {
		os.Remove(f.Name())
		return nil, "", nil, err
	}
	a, unmap, err := mapArena(f.Name())
	if err != nil {
		os.Remove(f.Name())
		return nil, "", nil, err
	}
	return a, f.Name(), func() { unmap(); os.Remove(f.Name()) }, nil
}

func mapArena(path string) (a *arena, unmap func(), err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	page, err := unix.Mmap(fd, 0, arenaSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map %s: %w", path, err)
	}
	return (*arena)(unsafe.Pointer(&page[0])), func() { unix.Munmap(page) }, nil
}

// enter says that a worker was granted the lock. It returns how long ago the one before began to release it, and
// whether that was another worker.
func (a *arena) enter(worker int, now int64) (since int64, handOff bool, err error) {
	me := int64(worker) + 1
	if !a.holder.CompareAndSwap(0, me) {
		return 0, false, fmt.Errorf("the lock does not exclude: client %d was granted it while client %d held it", worker, a.holder.Load()-1)
	}
	last := a.last.Swap(me)
	a.grants.Store(a.grants.Load() + 1)
	return now - a.released.Load(), last != 0 && last != me, nil
}

// leave says that a worker is about to release the lock.
func (a *arena) leave(worker int, now int64) error {
	a.released.Store(now)
	if me := int64(worker) + 1; !a.holder.CompareAndSwap(me, 0) {
		return fmt.Errorf("the lock does not exclude: client %d was granted it while client %d held it", a.holder.Load()-1, worker)
	}
	return nil
}

// clock is the time in nanoseconds on a clock that all processes of the machine share.
func clock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}
