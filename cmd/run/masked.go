package run

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Masked runs f on a thread that takes no signals meanwhile, so that none but a deadly one interrupts a wait in the kernel
// and costs its place in the queue. Signals go to the other threads. The thread stays: the lock is shown as taken by it.
func Masked[T any](f func() (T, error)) (v T, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var all, before unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^all.Val[i]
		}
		if err = unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before); err != nil {
			return
		}
		v, err = f()
		unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil) // cannot fail: it is what was set before
	}()
	<-done
	return v, err
}
