package client

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/lockfs/lockfs/cmd/exit"
)

// Type is the file system type of lockfs mounts in /proc/mounts.
const Type = "fuse.lockfs"

// Mount is one mount point of a daemon.
type Mount struct {
	Point string
	root  string // what of the tree is mounted there; "/" but for bind mounts
}

// Control returns the path of a file under .lockfs; elem is joined.
func (m Mount) Control(elem ...string) string {
	return filepath.Join(append([]string{m.Point, ".lockfs"}, elem...)...)
}

// Below returns the place under the mount point of a path in the tree.
func (m Mount) Below(path string) string { return filepath.Join(m.Point, path) }

// Mounts returns all lockfs mount points that this process sees, in the order they were mounted.
func Mounts() ([]Mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parseMounts(f)
}

// parseMounts reads the lines of mountinfo; see proc_pid_mountinfo(5).
func parseMounts(r io.Reader) ([]Mount, error) {
	var mounts []Mount
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		left, right, found := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(left)
		kind, _, _ := strings.Cut(right, " ")
		if found && len(fields) >= 5 && kind == Type {
			mounts = append(mounts, Mount{Point: unescape(fields[4]), root: unescape(fields[3])})
		}
	}
	return mounts, lines.Err()
}

// Find returns the mount that path is in and the path within the tree, "" for its root. An empty path means
// LOCKFS_MOUNT, without it the working directory if that is in a mount, else the only mount that there is.
func Find(op, path string) (Mount, string, error) {
	mounts, err := Mounts()
	if err != nil {
		return Mount{}, "", exit.Of(op, path, err)
	}
	if path == "" {
		path = os.Getenv("LOCKFS_MOUNT")
	}
	if path == "" {
		if cwd, err := os.Getwd(); err == nil {
			if m, _, ok := within(mounts, cwd); ok {
				return m, "", nil
			}
		}
		switch len(mounts) {
		case 0:
			return Mount{}, "", &exit.Error{Op: op, What: "no lockfs mount on this host",
				Do: "start one with lockfs mount DIR", Code: exit.Unavailable}
		case 1:
			return mounts[0], "", nil
		}
		return Mount{}, "", &exit.Error{Op: op, What: "several lockfs mounts on this host",
			Do: "name a path in one of them or set LOCKFS_MOUNT", Code: exit.Usage}
	}
	real, err := resolve(path)
	if err != nil {
		return Mount{}, "", exit.Of(op, path, err)
	}
	if m, rel, ok := within(mounts, real); ok {
		return m, rel, nil
	}
	return Mount{}, "", &exit.Error{Op: op, Path: path, What: "not in a lockfs mount",
		Do: "name a path below the mount point of lockfs mount, or set LOCKFS_MOUNT", Code: exit.Unavailable}
}

// resolve makes a path absolute and follows symbolic links in as much of it as there is.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	rest := ""
	for dir := abs; ; dir = filepath.Dir(dir) {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if errors.Is(err, syscall.ENOTCONN) || dir == "/" {
			return abs, nil // a mount whose daemon is gone: the name will do
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

// within finds the innermost mount above an absolute path; of two on one point the later one.
func within(mounts []Mount, path string) (m Mount, rel string, ok bool) {
	for _, c := range mounts {
		r, err := filepath.Rel(c.Point, path)
		if err != nil || r == ".." || strings.HasPrefix(r, "../") || ok && len(c.Point) < len(m.Point) {
			continue
		}
		m, ok = c, true
		rel = strings.TrimPrefix(filepath.Join(c.root, r), "/")
	}
	return m, rel, ok
}
