package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dirLock is the flock on a data directory's lock file, held as long as the daemon runs.
type dirLock struct {
	h    *os.File
	made bool // by this call
}

// lockDir takes the lock of a data directory. Nothing is written yet, see sign; the file is made if it is missing.
func lockDir(dir string) (*dirLock, error) {
	path := filepath.Join(dir, lockName)
	_, missing := os.Lstat(path)
	h, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open its lock file: %w", err)
	}
	err = unix.Flock(int(h.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return &dirLock{h, errors.Is(missing, os.ErrNotExist)}, nil
	}
	defer h.Close()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, &refusal{ErrInUse, fmt.Sprintf("another lockfs daemon is using it%s; use its mount, or stop it first, "+
		"or give this one a directory of its own with --data-dir (and --bind)", holder(h))}
}

// holder says which process wrote its pid to the lock file.
func holder(h *os.File) string {
	b := make([]byte, 32)
	n, _ := h.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return ""
	}
	cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if line := strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " ")); line != "" {
		return fmt.Sprintf(" (pid %d: %s)", pid, line)
	}
	return fmt.Sprintf(" (pid %d)", pid)
}

// sign writes the pid for others to read.
func (l *dirLock) sign() error {
	if err := l.h.Truncate(0); err != nil {
		return err
	}
	_, err := l.h.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	if full(err) {
		return nil
	}
	return err
}

func (l *dirLock) Close() error { return l.h.Close() }

// drop gives the lock back after a start that was refused, as if it had never been taken.
func (l *dirLock) drop() error {
	if l.made {
		os.Remove(l.h.Name())
	}
	return l.Close()
}

// checkRights says what is wrong with the owner or mode of a data directory or of anything in it. Values may be
// secret, so nobody else may look into log and snapshots, and whoever can write here can forge the log. The modes of files
// further inside are as the umask makes them.
func checkRights(dir string) error {
	uid := uint32(os.Geteuid())
	return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &fs.PathError{Op: "stat", Path: path, Err: err}
		}
		if path != dir && !ours(dir, path) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		need, kind := uint32(0o600), uint32(unix.S_IFREG)
		if e.IsDir() {
			need, kind = 0o700, unix.S_IFDIR
		}
		perm, inside := st.Mode&0o777, filepath.Dir(path) != filepath.Clean(dir) && path != dir
		switch {
		case st.Mode&unix.S_IFMT != kind:
			return fmt.Errorf("%s is neither a file nor a directory; remove it", path)
		case st.Uid != uid:
			return fmt.Errorf("%s belongs to uid %d and this daemon runs as uid %d; run it as that user, or chown -R %d %s",
				path, st.Uid, uid, uid, dir)
		case perm&need != need:
			return fmt.Errorf("%s has mode %04o and its owner may not read and write it; chmod u+rwX %s", path, perm, path)
		case e.IsDir() && path != dir && !inside && perm&0o077 != 0:
			return fmt.Errorf("%s has mode %04o, so others may read what is stored; chmod go-rwx %s", path, perm, path)
		case !inside && perm&0o022 != 0:
			return fmt.Errorf("%s has mode %04o, so others may write to it; check who did, then chmod go-w %s", path, perm, path)
		}
		return nil
	})
}

// ours says whether a path in a data directory is of lockfs's making.
func ours(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		return false
	}
	top, _, _ := strings.Cut(rel, string(filepath.Separator))
	switch top {
	case lockName, storeName, storeName + tmpSuffix, logName, snapsName, initName, initAnswerName:
		return true
	}
	return isOld(top)
}

// isNew says whether a data directory has yet to be made; an error if lockfs.db is missing from one that was used,
// or if the directory is something else's.
func isNew(dir string) (bool, error) {
	if _, err := os.Lstat(filepath.Join(dir, storeName)); err == nil {
		return false, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return false, err
	}
	if _, err := os.Lstat(filepath.Join(dir, restoreName)); err == nil {
		return false, errors.New("a snapshot was being restored to it and that was cut off; restore it again, " +
			"or remove what is in the directory to start afresh")
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range list {
		switch name := e.Name(); {
		case slices.Contains([]string{lockName, storeName + tmpSuffix, initName, initAnswerName, "lost+found"}, name), isOld(name):
		case name == logName, name == snapsName:
			below, err := os.ReadDir(filepath.Join(dir, e.Name()))
			if err != nil {
				return false, err
			}
			if len(below) > 0 {
				return false, fmt.Errorf("%s is missing, but %s is not empty; restore the directory from a backup as a whole, "+
					"or move it away to start afresh", storeName, filepath.Join(dir, e.Name()))
			}
		default:
			return false, fmt.Errorf("it is no data directory of lockfs: there is %q in it; name another one with --data-dir", e.Name())
		}
	}
	return true, nil
}
