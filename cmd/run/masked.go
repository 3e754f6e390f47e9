package run

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Masked runs f on a thread that takes no signals, so that none but a deadly one interrupts a wait in the kernel
// and costs its place in the queue. Signals go to the other threads; the thread ends with f.
func Masked[T any](f func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread goes with the goroutine
		var all unix.Sigset_t
		for i := range all.Val {
			all.Val[i] = ^all.Val[i]
		}
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
			done <- result{err: err}
			return
		}
		v, err := f()
		done <- result{v, err}
	}()
	r := <-done
	return r.v, r.err
}
