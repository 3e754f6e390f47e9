package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
)

// places are one directory, made for the bench, as several mounts of one tree show it.
type places struct {
	mounts []client.Mount
	dirs   []string
}

// seenWithin bounds how long a directory made on one host may take to be seen on another.
const seenWithin = 10 * time.Second

// find makes a directory below the first of dirs, "" if there is none, and finds it below the others.
func find(dirs []string) (places, error) {
	var p places
	if len(dirs) == 0 {
		dirs = []string{""}
	}
	for _, dir := range dirs {
		m, rel, err := client.Find("bench", dir)
		if err != nil {
			p.remove()
			return p, err
		}
		below := m.Below(rel)
		if len(p.dirs) == 0 {
			if below, err = os.MkdirTemp(below, "bench."); err != nil {
				return p, exit.Of("bench", dir, err)
			}
		} else {
			below = filepath.Join(below, filepath.Base(p.dirs[0]))
			if err := p.same(below); err != nil {
				p.remove()
				return p, err
			}
		}
		p.mounts, p.dirs = append(p.mounts, m), append(p.dirs, below)
	}
	return p, nil
}

// same waits until a directory is there which is the first of the places.
func (p places) same(dir string) error {
	first, err := os.Stat(p.dirs[0])
	if err != nil {
		return exit.Of("bench", p.dirs[0], err)
	}
	for began := time.Now(); time.Since(began) < seenWithin; time.Sleep(10 * time.Millisecond) {
		if other, err := os.Stat(dir); err == nil && inode(other) == inode(first) {
			return nil
		}
	}
	return &exit.Error{Op: "bench", Path: filepath.Dir(dir), What: "not the same place as " + filepath.Dir(p.dirs[0]),
		Do: "name the same directory on mounts of one cluster", Code: exit.Usage}
}

func inode(i os.FileInfo) uint64 { return i.Sys().(*syscall.Stat_t).Ino }

func (p places) remove() {
	if len(p.dirs) > 0 {
		os.RemoveAll(p.dirs[0])
	}
}

// addresses are the places as package load has them.
func (p places) addresses() (all []string) {
	for _, dir := range p.dirs {
		all = append(all, "open:"+dir)
	}
	return all
}

// settleFor bounds how long memory waits for a daemon's collector.
const settleFor = 30 * time.Second

// memory is the live heap of all daemons.
func (p places) memory() (bytes int64, err error) {
	var seen []string
	for _, m := range p.mounts {
		status, err := m.Status("bench")
		if err != nil {
			return 0, err
		}
		if pid := status.Get("pid"); slices.Contains(seen, pid) {
			continue
		} else {
			seen = append(seen, pid)
		}
		heap, err := heapOf(m)
		if err != nil {
			return 0, err
		}
		bytes += heap
	}
	return bytes, nil
}

// heapOf is a daemon's live heap, as .lockfs/status tells it after a collection that began after the call: listing
// what is held makes the daemon allocate, which makes it collect.
func heapOf(m client.Mount) (bytes int64, err error) {
	first := int64(-1)
	for began := time.Now(); time.Since(began) < settleFor; {
		status, err := m.Status("bench")
		if err != nil {
			return 0, err
		}
		heap, err1 := strconv.ParseInt(status.Get("heap"), 10, 64)
		cycles, err2 := strconv.ParseInt(status.Get("gc"), 10, 64)
		if err1 != nil || err2 != nil {
			return 0, fmt.Errorf("%s: heap=%q, gc=%q", m.Control("status"), status.Get("heap"), status.Get("gc"))
		}
		if first < 0 {
			first = cycles
		}
		if cycles >= first+2 {
			return heap, nil
		}
		if _, err := os.ReadDir(m.Control("held")); err != nil {
			return 0, err
		}
	}
	return 0, fmt.Errorf("the daemon's memory: no collection within %v", settleFor)
}

// shell runs a command of the user's.
func shell(command string) error {
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return nil
}
