// Package thread has calls made by a thread that a killed daemon does not leave behind.
package thread

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Thread is a thread of this process with a table of descriptors of its own, in which are none of the process's but those that it was
// given.
//
// A thread that waits in the kernel for the answer to a request of a FUSE file system, or for a lock that somebody has who waits for one,
// cannot be killed. If the answer is to come from its own process, and that is killed, it never comes; and while the thread is there
// with the process's descriptors, the device stays open, so that the connection, which would end the request, does not end
// either: nothing but an abort from outside helps. A Thread has not got the device: that is closed with the other threads, the
// requests that they were to answer end, and with them the thread.
type Thread struct {
	id   uint32
	jobs chan func()
	done chan struct{} // a token for each job that is over
	gone chan struct{} // closed when the thread has nothing more to do
}

// New starts a thread, which Close ends. It gets these descriptors, under the same numbers; they are still the process's too.
func New(descriptors ...int) (*Thread, error) {
	// Go's own: any thread of it may have to wake its poller, which is there from the first timer on.
	time.AfterFunc(time.Hour, func() {}).Stop()
	own, err := pollerDescriptors()
	if err != nil {
		return nil, err
	}
	for _, fd := range descriptors {
		own = append(own, uint(fd))
	}
	slices.Sort(own)
	t := &Thread{jobs: make(chan func()), done: make(chan struct{}), gone: make(chan struct{})}
	began := make(chan error, 1)
	go t.run(own, began)
	if err := <-began; err != nil {
		return nil, err
	}
	return t, nil
}

// ID is the thread's, as requests that it makes have it.
func (t *Thread) ID() uint32 { return t.id }

// Do has a function called by the thread, and returns when it has returned. It may use raw calls of package unix and descriptors
// that it opened itself. One caller at a time.
func (t *Thread) Do(f func()) {
	t.jobs <- f
	<-t.done
}

// Close ends the thread, after the call under way, and does not wait. Nobody may call Do any more.
func (t *Thread) Close() { close(t.jobs) }

// Gone is closed when the thread has ended after Close.
func (t *Thread) Gone() <-chan struct{} { return t.gone }

// run is the thread. It is never unlocked, so it ends with this goroutine, and Go makes no others of it.
func (t *Thread) run(own []uint, began chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The first thread cannot end, and its table is what /proc shows as the process's. While it is locked another one is it.
		inner := make(chan error, 1)
		go t.run(own, inner)
		began <- <-inner
		runtime.UnlockOSThread()
		return
	}
	defer close(t.gone)
	if err := unshareDescriptors(own); err != nil {
		began <- err
		return
	}
	t.id = uint32(unix.Gettid())
	began <- nil
	for f := range t.jobs {
		f()
		t.done <- struct{}{}
	}
}

// firstOwned is the first descriptor that is not a standard one.
const firstOwned = 3

// unshareDescriptors gives the calling thread a table of its own, with the standard ones and those to keep, in rising order.
func unshareDescriptors(keep []uint) error {
	first, flags := uint(firstOwned), uint(unix.CLOSE_RANGE_UNSHARE)
	for _, fd := range append(keep, ^uint(0)>>32) {
		if fd > first {
			if err := unix.CloseRange(first, fd-1, flags); err != nil {
				return fmt.Errorf("close_range: %w", err)
			}
			flags = 0
		}
		first = fd + 1
	}
	return nil
}

// pollerDescriptors returns the descriptors of Go's poller.
func pollerDescriptors() (list []uint, err error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		fd, err := strconv.ParseUint(e.Name(), 10, 31)
		if err != nil || fd < firstOwned {
			continue
		}
		what, err := os.Readlink(dir + "/" + e.Name())
		if err == nil && (strings.HasSuffix(what, "[eventpoll]") || strings.HasSuffix(what, "[eventfd]")) {
			list = append(list, uint(fd))
		}
	}
	return list, nil
}
