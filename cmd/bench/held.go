package bench

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
)

// heldFigures is what many locks held at once cost.
type heldFigures struct {
	Locks        int           `json:"locks"`
	Processes    int           `json:"processes"`
	Elapsed      time.Duration `json:"elapsed_ns"`
	BytesPerLock float64       `json:"bytes_per_lock"` // of the daemon's live heap
}

// spareFDs are a worker's descriptors beside its locks.
const spareFDs = 64

// hold lets as many workers as it takes hold n locks on names never used before, and looks at the daemon.
func hold(m client.Mount, dir string, n int) (*heldFigures, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	each := int(min(limit.Max, 1<<20)) - spareFDs
	workers := min(maxProcesses, max(4, (n+each-1)/each))
	each = min(each, (n+workers-1)/workers)
	c, err := hire(workers)
	if err != nil {
		return nil, err
	}
	defer c.dismiss()
	before, err := memory(m)
	if err != nil {
		return nil, err
	}
	outcomes, err := c.each(workers, func(i int) any {
		return round{Dir: dir, Worker: i, Held: max(1, min(each, n-i*each))}
	})
	if err != nil {
		return nil, err
	}
	h := &heldFigures{Processes: workers}
	for _, o := range outcomes {
		h.Locks += o.Held
		h.Elapsed = max(h.Elapsed, o.Elapsed)
	}
	after, err := memory(m)
	if err != nil {
		return nil, err
	}
	h.BytesPerLock = float64(after-before) / float64(h.Locks)
	_, err = c.each(workers, func(int) any { return "clear up" })
	return h, err
}

// settleFor bounds how long memory waits for the daemon's collector.
const settleFor = 30 * time.Second

// memory is the daemon's live heap, as .lockfs/status tells it after a collection that began after the call: listing
// what is held makes the daemon allocate, which makes it collect.
func memory(m client.Mount) (bytes int64, err error) {
	first, err := collections(m)
	if err != nil {
		return 0, err
	}
	for began := time.Now(); time.Since(began) < settleFor; {
		now, err := collections(m)
		if err != nil {
			return 0, err
		}
		if now.cycles >= first.cycles+2 {
			return now.heap, nil
		}
		if _, err := os.ReadDir(m.Control("held")); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the daemon's memory: no collection within %v", settleFor)
}

type collection struct{ heap, cycles int64 }

func collections(m client.Mount) (c collection, err error) {
	status, err := m.Status("bench")
	if err != nil {
		return c, err
	}
	heap, err1 := strconv.ParseInt(status.Get("heap"), 10, 64)
	cycles, err2 := strconv.ParseInt(status.Get("gc"), 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return c, fmt.Errorf("the daemon's memory: %s: %w", m.Control("status"), err)
	}
	return collection{heap, cycles}, nil
}

func (h *heldFigures) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%d locks held at once by %d processes after %.1f s: %.0f bytes of the daemon's memory a lock\n",
		h.Locks, h.Processes, h.Elapsed.Seconds(), h.BytesPerLock)
	return err
}
