package daemon

import (
	"fmt"
	"os"
	"strconv"
)

// monitorSlack is how late the runtime's monitor may wake up, in nanoseconds.
const monitorSlack = 1_000_000

// calm makes Go's monitor thread wake up more seldom. That thread looks every 20 µs, while anything runs, whether a
// goroutine sits in a system call that another one's processor could be taken from; in a daemon that does little at a time,
// but often, its waking up and going to sleep was a quarter of all CPU time, and more than that of an idle one. The kernel may now
// join its wake-ups with others. What depends on it are goroutines that wait for a processor while every one is in a system
// call: for at most a millisecond instead of some 50 µs.
//
// The monitor is the first thread that the runtime makes, before main. The kernel lists threads in the order in which they
// were made. It lets only root change another thread's slack: an error says that all is as it was.
func calm() error {
	threads, err := os.Open("/proc/self/task")
	if err != nil {
		return err
	}
	defer threads.Close()
	names, err := threads.Readdirnames(2)
	if err != nil {
		return err
	}
	if len(names) < 2 || names[0] != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("threads are listed as %q", names)
	}
	return os.WriteFile("/proc/"+names[1]+"/timerslack_ns", []byte(strconv.Itoa(monitorSlack)), 0)
}
