package thread

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestThread has calls made by a thread that has no descriptors of the process, nor the process of its.
func TestThread(t *testing.T) {
	file, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	thread, err := New()
	if err != nil {
		t.Fatal(err)
	}
	own := -1
	thread.Do(func() {
		var st unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &st); err != unix.EBADF {
			t.Errorf("the process's descriptor: %v, want EBADF", err)
		}
		if id := uint32(unix.Gettid()); id != thread.ID() || int(id) == unix.Getpid() {
			t.Errorf("thread %d of process %d, said to be %d", id, unix.Getpid(), thread.ID())
		}
		own, err = unix.Open("/proc", unix.O_PATH|unix.O_CLOEXEC, 0)
		fired := make(chan struct{})
		time.AfterFunc(time.Millisecond, func() { close(fired) }) // its poller is woken
		<-fired
	})
	if err != nil {
		t.Fatal(err)
	}
	var here, there unix.Stat_t
	thread.Do(func() { err = unix.Fstat(own, &there) })
	if unix.Fstat(own, &here) == nil && here.Ino == there.Ino && here.Dev == there.Dev || err != nil {
		t.Errorf("the thread's descriptor %d is the process's, or %v", own, err)
	}
	thread.Close()
	<-thread.Gone()
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", thread.ID())); err != nil {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatal("the thread does not end")
		}
	}
}
