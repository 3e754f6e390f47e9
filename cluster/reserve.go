package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// reserve is a file of allocated room that gives way when the disk is full: the log can then still start that many
// segments, for the renewals and releases that must go on while growth is refused.
type reserve struct {
	path string
	size int64

	mu   sync.Mutex
	have int64
}

// reserveSegments is how many: with one renewal a second, of 64 bytes, two of 4 MiB are a day and a half.
const reserveSegments = 2

func newReserve(dir string, segment int64) *reserve {
	r := &reserve{path: filepath.Join(dir, reserveName), size: reserveSegments * segment}
	if fi, err := os.Stat(r.path); err == nil {
		r.have = min(fi.Size(), r.size)
	}
	return r
}

// giveUp frees at least n bytes of the reserve and says whether there were any.
func (r *reserve) giveUp(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == 0 {
		return false
	}
	r.have = max(0, r.have-n)
	if err := os.Truncate(r.path, r.have); err != nil {
		return false
	}
	return true
}

// refill allocates the whole reserve again.
func (r *reserve) refill() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == r.size {
		return nil
	}
	h, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err = allocate(h, r.size); err != nil {
		err = errors.Join(err, h.Truncate(r.have))
	} else {
		r.have = r.size
	}
	return errors.Join(err, h.Close())
}

// missing is how much refill would need.
func (r *reserve) missing() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.size - r.have
}

// full says whether an error means that the disk is full, or the user's share of it.
func full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// free returns the bytes that can still be written to the file system of dir.
func free(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil // for root too: what the file system keeps for it is for better uses
}
