package cluster

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Record is what a restarted daemon needs to know of the runs before it: whether their sessions can be ended at once
// or must run out, because processes may still be working under their locks (DESIGN 1.8).
type Record struct {
	BootID string  `json:"boot_id"` // of the machine, see BootID
	Mounts []Mount `json:"mounts"`
}

// Mount is one mount of a run.
type Mount struct {
	Path   string `json:"path"`
	ID     uint64 `json:"id"`     // as in mountinfo; see MountOf
	Dev    uint64 `json:"dev"`    // st_dev of what is in it
	Others bool   `json:"others"` // other users may use it (allow_other)
}

// MountOf returns the mount that has path at its root. It does not open it, and asks the kernel only.
func MountOf(path string) (Mount, error) {
	var st unix.Statx_t
	flags := unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT | unix.AT_SYMLINK_NOFOLLOW
	if err := unix.Statx(unix.AT_FDCWD, path, flags, unix.STATX_MNT_ID, &st); err != nil {
		return Mount{}, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return Mount{Path: path, ID: st.Mnt_id, Dev: unix.Mkdev(st.Dev_major, st.Dev_minor)}, nil
}

// BootID returns the id of the machine's current boot.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// Use is who has files of a mount open.
type Use struct {
	PIDs   []int // have a file open
	Hidden int   // processes that could not be looked at and may have one
}

// String names the first process.
func (u Use) String() string {
	switch {
	case len(u.PIDs) > 0:
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", u.PIDs[0]))
		return fmt.Sprintf("pid %d (%s)", u.PIDs[0], bytes.TrimSpace(comm))
	case u.Hidden > 0:
		return fmt.Sprintf("%d processes that this one may not look at", u.Hidden)
	}
	return "nobody"
}

// inUse says who may still work in mounts of former runs. It takes the mounts away that no daemon serves and nobody uses,
// and asks the kernel whether they still exist: if not, that is that. Only else it looks for their files in all processes.
func inUse(mounts []Mount) (Use, error) {
	var left []Mount
	for _, m := range mounts {
		unmountDead(m)
		if exists(m.Dev) && !servedByOthers(m.Dev) {
			left = append(left, m)
		}
	}
	return OpenIn(left)
}

// OpenIn says which processes have files of these mounts open or mapped: an open descriptor keeps a mount that was
// detached (umount -l) or whose daemon died, and the locks of its run may be relied on. It knows the files by their device,
// in any mount namespace. Descriptors on their way through a socket, and those of a thread that shares no descriptors
// with its process, are not seen.
func OpenIn(mounts []Mount) (Use, error) {
	var use Use
	if len(mounts) == 0 {
		return use, nil
	}
	s := openScan{mounts: mounts}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return use, err
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		open, err := s.process(filepath.Join("/proc", p.Name()))
		switch {
		case open:
			use.PIDs = append(use.PIDs, pid)
		case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH): // or it ended meanwhile
		case s.concerned(p.Name()):
			use.Hidden++
		}
	}
	return use, nil
}

// unmountDead takes a mount away that no daemon serves any more, if nobody in this mount namespace uses it.
func unmountDead(m Mount) {
	now, err := MountOf(m.Path)
	if err != nil || now.ID != m.ID || now.Dev != m.Dev {
		return
	}
	err, answers := ask(m.Path)
	if !answers { // what is left of the daemon, which has let go of the data directory, waits for its own mount
		abort(m.Dev)
		err, _ = ask(m.Path)
	}
	if err == unix.ENOTCONN {
		unix.Unmount(m.Path, unix.UMOUNT_NOFOLLOW) // EBUSY if it is used, and EPERM for users
	}
}

// ask returns what statfs(2) says of a mount; answers is false if it says nothing within patience.
func ask(path string) (err error, answers bool) {
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(path, &st)
	}()
	select {
	case err := <-answer:
		return err, true
	case <-time.After(patience):
		return nil, false
	}
}

// abort ends the connection of a FUSE file system: all that waits for its daemon gets ECONNABORTED.
func abort(dev uint64) {
	dir, err := connections()
	if err != nil {
		return
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, strconv.Itoa(int(unix.Minor(dev)))+"/abort", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	unix.Write(fd, []byte("1"))
}

// exists says whether the kernel still has the FUSE file system of a device: it has until the last mount is gone
// and the last file closed, in any process. Where that cannot be asked, it says yes.
func exists(dev uint64) bool {
	dir, err := connections()
	if err != nil {
		return true
	}
	defer unix.Close(dir)
	var st unix.Statx_t
	return unix.Statx(dir, strconv.Itoa(int(unix.Minor(dev))), 0, 0, &st) != unix.ENOENT
}

// connections opens fusectl, the kernel's directory of FUSE connections, by device: where it is mounted, or else a
// mount of it that nobody else sees, for which one must be root.
func connections() (dir int, err error) {
	var st unix.Statfs_t
	const path, magic = "/sys/fs/fuse/connections", 0x65735543
	if err := unix.Statfs(path, &st); err == nil && st.Type == magic {
		return unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	fs, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}

// servedByOthers says whether the device number of a former mount has gone to another, living one: the number was free,
// so nothing was open in the former any more.
func servedByOthers(dev uint64) bool {
	for _, path := range mountedAt(dev) {
		if err, answers := ask(path); answers && err == nil { // else served by somebody who hangs, or not at all
			return true
		}
	}
	return false
}

// patience is how long a living mount may take to answer.
const patience = time.Second

type openScan struct{ mounts []Mount }

// process says whether a process has a file of the mounts open.
func (s *openScan) process(dir string) (bool, error) {
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		var st unix.Statx_t
		flags := unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT // follows to the file, and asks nobody
		err := unix.Statx(unix.AT_FDCWD, filepath.Join(dir, "fd", fd.Name()), flags, 0, &st)
		switch {
		case errors.Is(err, unix.ENOENT): // closed meanwhile
		case err != nil:
			return false, err
		case s.device(unix.Mkdev(st.Dev_major, st.Dev_minor)):
			return true, nil
		}
	}
	return s.maps(dir)
}

// mountedAt returns where a device is mounted.
func mountedAt(dev uint64) (paths []string) {
	h, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer h.Close()
	for lines := bufio.NewScanner(h); lines.Scan(); {
		var id, parent uint64
		var major, minor uint32
		var root, path string
		n, _ := fmt.Sscanf(lines.Text(), "%d %d %d:%d %s %s", &id, &parent, &major, &minor, &root, &path)
		if n == 6 && unix.Mkdev(major, minor) == dev {
			paths = append(paths, unescape.Replace(path))
		}
	}
	return paths
}

// unescape undoes what /proc writes for the characters that end a field.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func (s *openScan) device(dev uint64) bool {
	return slices.ContainsFunc(s.mounts, func(m Mount) bool { return m.Dev == dev })
}

// maps says whether a process has a file of the mounts mapped; a mapping keeps a file that was closed.
func (s *openScan) maps(dir string) (bool, error) {
	h, err := os.Open(filepath.Join(dir, "maps"))
	if err != nil {
		return false, err
	}
	defer h.Close()
	var devices [][]byte
	for _, m := range s.mounts {
		devices = append(devices, fmt.Appendf(nil, " %02x:%02x ", unix.Major(m.Dev), unix.Minor(m.Dev)))
	}
	lines := bufio.NewScanner(h)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() { // address perms offset major:minor inode path
		if slices.ContainsFunc(devices, func(d []byte) bool { return bytes.Contains(lines.Bytes(), d) }) {
			return true, nil
		}
	}
	return false, lines.Err()
}

// concerned says whether a process that could not be looked at may have a file of the mounts open: not if it is
// another user's and the mounts served this one's user alone.
func (s *openScan) concerned(pid string) bool {
	if slices.ContainsFunc(s.mounts, func(m Mount) bool { return m.Others }) {
		return true
	}
	var st unix.Stat_t
	return unix.Stat(filepath.Join("/proc", pid), &st) == nil && int(st.Uid) == os.Geteuid()
}

// former is what is known of the runs before this one.
type former struct {
	record Record
	once   sync.Once
	gone   bool
	why    string
	stay   []Mount // still in use
}

// FormerGone says whether nobody can be working any more under the locks of a former run of this host's daemon, and
// why or why not, in words: then that run's session can be ended at once, else it must run out. It looks at all
// processes, once; it must be called before this run mounts anything.
func (n *Node) FormerGone() (gone bool, why string) {
	f := &n.former
	f.once.Do(func() { f.gone, f.why, f.stay = restartRule(f.record, n.config.bootID, n.config.openIn) })
	return f.gone, f.why
}

// Remember records the mounts of this run, all of them. It returns when they are on disk. A mount must be recorded before a
// process can open anything in it; FormerGone of the next run goes by it. The mounts of former runs that were
// still in use at the start are kept beside them.
func (n *Node) Remember(mounts []Mount) error {
	n.FormerGone()
	r := Record{BootID: n.config.bootID, Mounts: slices.Concat(n.former.stay, mounts)}
	if err := n.store.putJSON(bucketDaemon, keyMounts, r); err != nil {
		return fmt.Errorf("lockfs: record the mounts in %s: %w", n.config.Dir, err)
	}
	return nil
}

// restartRule decides whether the sessions of the runs before end at once, and says why or why not. stay are the
// mounts that are still in use.
func restartRule(r Record, bootID string, openIn func([]Mount) (Use, error)) (atOnce bool, why string, stay []Mount) {
	if r.BootID == "" {
		return true, "it had no mount yet", nil
	}
	if r.BootID != bootID {
		return true, "the machine was booted since", nil
	}
	for _, m := range r.Mounts {
		use, err := openIn([]Mount{m})
		switch {
		case err != nil:
			why = fmt.Sprintf("who has %s open is unknown (%v)", m.Path, err)
		case len(use.PIDs)+use.Hidden > 0:
			why = fmt.Sprintf("%s may still work in the old mount of %s", use, m.Path)
		default:
			continue
		}
		stay = append(stay, m)
	}
	if len(stay) > 0 {
		return false, why, stay
	}
	return true, "nobody has its mounts open", nil
}
