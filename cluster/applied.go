package cluster

import (
	"context"
	"sync"
	"sync/atomic"
)

// awaited wakes those who wait until an entry was applied here.
type awaited struct {
	any atomic.Bool // somebody waits

	mu    sync.Mutex
	wakes map[chan struct{}]uint64
}

// reached is called after each batch, by the applying goroutine.
func (a *awaited) reached(index uint64) {
	if !a.any.Load() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for wake, at := range a.wakes {
		if at <= index {
			close(wake)
			delete(a.wakes, wake)
		}
	}
	a.any.Store(len(a.wakes) > 0)
}

// wait waits until now() is at least index.
func (a *awaited) wait(ctx context.Context, index uint64, now func() uint64) error {
	wake := make(chan struct{})
	a.mu.Lock()
	if a.wakes == nil {
		a.wakes = map[chan struct{}]uint64{}
	}
	a.wakes[wake] = index
	a.any.Store(true)
	a.mu.Unlock()
	a.reached(now()) // it may have been so before
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		a.mu.Lock()
		delete(a.wakes, wake)
		a.mu.Unlock()
		return ctx.Err()
	}
}
