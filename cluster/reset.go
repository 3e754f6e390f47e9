package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// oldPrefix begins the names of directories with what Config.Reset moved aside.
const oldPrefix = "old-"

// moveAside moves what a data directory holds to old-TIME in it. A crash leaves some of it moved: what is left is moved by
// the next reset, lockfs.db last of all, so that a directory without it is whole again or new.
func moveAside(dir string) (to string, err error) {
	var all []string
	for _, name := range []string{logName, snapsName, storeName + tmpSuffix, storeName} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			all = append(all, name)
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	if len(all) == 0 {
		return "", nil
	}
	to = filepath.Join(dir, oldPrefix+time.Now().UTC().Format("20060102T150405.000000"))
	if err := os.Mkdir(to, 0o700); err != nil {
		return "", err
	}
	for _, name := range all {
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(to, name)); err != nil {
			return "", fmt.Errorf("move the old data aside: %w", err)
		}
	}
	return to, errors.Join(syncDir(to), syncDir(dir))
}

// isOld says whether a name in a data directory is of what was moved aside.
func isOld(name string) bool { return strings.HasPrefix(name, oldPrefix) }
