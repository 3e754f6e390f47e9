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
	ID     uint64 `json:"id"`     // as in /proc/PID/fdinfo and mountinfo; see MountOf
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

// OpenIn says which processes have files of these mounts open or mapped: an open descriptor keeps a mount that was
// detached (umount -l) or whose daemon died, and the locks of its run may be relied on. It looks at the mounts' ids in
// /proc/PID/fdinfo, in other mount namespaces by device too, and at mapped files. Descriptors on their way through
// a socket, and those of a thread that shares no descriptors with its process, are not seen.
func OpenIn(mounts []Mount) (Use, error) {
	var use Use
	if len(mounts) == 0 {
		return use, nil
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return use, err
	}
	s := openScan{mounts: mounts, ids: map[string][]uint64{}}
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

type openScan struct {
	mounts []Mount
	ids    map[string][]uint64 // by mount namespace: the ids that the mounts have there
}

// process says whether a process has a file of the mounts open.
func (s *openScan) process(dir string) (bool, error) {
	fds, err := os.ReadDir(filepath.Join(dir, "fdinfo"))
	if err != nil {
		return false, err
	}
	ids, err := s.idsFor(dir)
	if err != nil {
		return false, err
	}
	for _, fd := range fds {
		b, err := os.ReadFile(filepath.Join(dir, "fdinfo", fd.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if id, ok := mountID(b); ok && slices.Contains(ids, id) {
			return true, nil
		}
	}
	return s.maps(dir)
}

// mountID finds the mnt_id line of an fdinfo file.
func mountID(b []byte) (uint64, bool) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
			id, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 10, 64)
			return id, err == nil
		}
	}
	return 0, false
}

// idsFor returns the ids of the mounts as the process sees them: a copy of a mount in another namespace has another id.
func (s *openScan) idsFor(dir string) ([]uint64, error) {
	ns, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
	if err != nil {
		return nil, err
	}
	if ids, ok := s.ids[ns]; ok {
		return ids, nil
	}
	var ids []uint64
	for _, m := range s.mounts {
		ids = append(ids, m.ID)
	}
	h, err := os.Open(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return nil, err
	}
	defer h.Close()
	for lines := bufio.NewScanner(h); lines.Scan(); {
		var id, parent uint64
		var major, minor uint32
		if n, _ := fmt.Sscanf(lines.Text(), "%d %d %d:%d", &id, &parent, &major, &minor); n == 4 && s.device(unix.Mkdev(major, minor)) {
			ids = append(ids, id)
		}
	}
	s.ids[ns] = ids
	return ids, nil
}

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
	lines := bufio.NewScanner(h)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f := strings.Fields(lines.Text()) // address perms offset dev inode path
		if len(f) < 5 || f[4] == "0" {
			continue
		}
		var major, minor uint32
		if n, _ := fmt.Sscanf(f[3], "%x:%x", &major, &minor); n == 2 && s.device(unix.Mkdev(major, minor)) {
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
