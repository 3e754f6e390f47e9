package bench

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
)

// heldFigures is what many locks held at once cost.
type heldFigures struct {
	Locks        int           `json:"locks"`
	Processes    int           `json:"processes"`
	Elapsed      time.Duration `json:"elapsed_ns"`
	BytesPerLock float64       `json:"bytes_per_lock"` // of the daemon's heap, or its resident memory if it does not tell
	Measure      string        `json:"measure"`
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
	before, measure, err := memory(m)
	if err != nil {
		return nil, err
	}
	outcomes, err := c.each(workers, func(i int) any {
		return round{Dir: dir, Worker: i, Held: max(1, min(each, n-i*each))}
	})
	if err != nil {
		return nil, err
	}
	h := &heldFigures{Processes: workers, Measure: measure}
	for _, o := range outcomes {
		h.Locks += o.Held
		h.Elapsed = max(h.Elapsed, o.Elapsed)
	}
	after, _, err := memory(m)
	if err != nil {
		return nil, err
	}
	h.BytesPerLock = float64(after-before) / float64(h.Locks)
	_, err = c.each(workers, func(int) any { return "clear up" })
	return h, err
}

// memory is what the daemon of a mount uses: its live heap, which .lockfs/status tells after a collection, else the
// resident memory of its process.
func memory(m client.Mount) (bytes int64, measure string, err error) {
	status, err := m.Status("bench")
	if err != nil {
		return 0, "", err
	}
	if n, err := strconv.ParseInt(status.Get("heap"), 10, 64); err == nil {
		return n, "heap", nil
	}
	f, err := os.Open("/proc/" + status.Get("pid") + "/status")
	if err != nil {
		return 0, "", fmt.Errorf("the daemon's memory: %w", err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, "resident", err
		}
	}
	return 0, "", fmt.Errorf("the daemon's memory: no VmRSS in %s", f.Name())
}

func (h *heldFigures) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%d locks held at once by %d processes after %.1f s: %.0f bytes a lock (%s)\n",
		h.Locks, h.Processes, h.Elapsed.Seconds(), h.BytesPerLock, h.Measure)
	return err
}
