package conn

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// place is what is mounted at a path, found without a request to the file system that is mounted there.
type place struct {
	path    string // absolute, without symbolic links
	mountID uint64
	mounted string // where that mount is mounted, as mountinfo has it
	fstype  string
	minor   uint32 // of the device
}

// root reports whether the path is where the mount is mounted.
func (p place) root() bool { return p.path == p.mounted }

// look finds what is mounted at a path. It opens with O_PATH, of which a FUSE daemon learns nothing.
func look(path string) (place, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return place{}, err
	}
	defer unix.Close(fd)
	return lookAt(fd)
}

// lookAt finds what is mounted where a directory is open.
func lookAt(fd int) (p place, err error) {
	if p.path, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
		return place{}, err
	}
	fdinfo, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return place{}, err
	}
	for line := range strings.Lines(string(fdinfo)) {
		if rest, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			p.mountID, err = strconv.ParseUint(strings.TrimSpace(rest), 10, 64)
		}
	}
	if err != nil || p.mountID == 0 {
		return place{}, fmt.Errorf("no mnt_id in /proc/self/fdinfo: %w", errors.Join(err, unix.EINVAL))
	}
	return p, p.describe()
}

// describe completes a place from /proc/self/mountinfo.
func (p *place) describe() error {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()
	prefix := strconv.FormatUint(p.mountID, 10) + " "
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), prefix) {
			continue
		}
		// id parent major:minor root mountpoint options [tags…] - type source options
		mount, filesystem, found := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(mount)
		if !found || len(fields) < 5 {
			break
		}
		_, minor, _ := strings.Cut(fields[2], ":")
		n, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			return fmt.Errorf("/proc/self/mountinfo: device %q: %w", fields[2], err)
		}
		p.minor, p.mounted = uint32(n), unescape(fields[4])
		p.fstype, _, _ = strings.Cut(filesystem, " ")
		return nil
	}
	return fmt.Errorf("mount %d not in /proc/self/mountinfo: %w", p.mountID, errors.Join(lines.Err(), unix.ENOENT))
}

// unescape undoes the octal escapes (\040 for a blank) of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// prepare finds the mount point's true path and takes dead mounts of ours off it.
func prepare(o Options) (string, error) {
	for range 16 { // dead ones may be stacked
		p, err := look(o.MountPoint)
		if err != nil {
			return "", fmt.Errorf("mount %s: %w", o.MountPoint, err)
		}
		if p.fstype != "fuse."+o.Subtype {
			return p.path, nil
		}
		if !p.root() {
			return "", fmt.Errorf("mount %s: it lies inside the %s mount %s; choose a directory outside", o.MountPoint,
				o.Subtype, p.mounted)
		}
		switch err := probe(p.path); {
		case errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED):
			o.Logger.Warn("unmounting what a dead daemon left", "mountpoint", p.path)
			if err := detach(p.path, ""); err != nil {
				return "", fmt.Errorf("mount %s: a dead %s mount is there, and unmounting it: %w; try umount -l %s",
					o.MountPoint, o.Subtype, err, p.path)
			}
		default:
			return "", fmt.Errorf("mount %s: a living %s is mounted there; stop its daemon or choose another directory: %w",
				o.MountPoint, o.Subtype, unix.EBUSY)
		}
	}
	return "", fmt.Errorf("mount %s: too many dead mounts there", o.MountPoint)
}

// probeTime is how long a daemon may take to say that it lives.
const probeTime = 2 * time.Second

// probe asks the daemon of a FUSE mount for the root's attributes; ENOTCONN says that there is none. A daemon that does
// not answer counts as living.
func probe(path string) error {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statx_t
		answer <- unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	}()
	select {
	case err := <-answer:
		return err
	case <-time.After(probeTime):
		return unix.ETIMEDOUT
	}
}

// identify notes which mount it is that was made.
func (c *Conn) identify() error {
	p, err := look(c.mountPoint)
	if err != nil {
		return fmt.Errorf("mount %s: looking at what was mounted: %w", c.mountPoint, err)
	}
	if p.fstype != "fuse."+c.options.Subtype || !p.root() {
		return fmt.Errorf("mount %s: something else has been mounted over it at once: %s", c.mountPoint, p.fstype)
	}
	c.mountID, c.number = p.mountID, p.minor
	return nil
}
