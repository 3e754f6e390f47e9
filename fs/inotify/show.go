package inotify

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// errAway says that the mount is not at its place, or a directory not where it was shown.
var errAway = errors.New("not to be reached")

// directory is the way from the root to a directory as it was shown.
type directory struct {
	names []string
	lies  []Name // those of them that lead elsewhere now
}

// where returns the name that a node was shown under. Called with mu held.
func (r *Raiser) where(node uint64) (Name, bool) {
	if n, ok := r.world.Where(node); ok {
		return n, true
	}
	return r.tree.Where(node)
}

// maxDepth is more than any tree has.
const maxDepth = 1024

// way returns the way to a directory.
func (r *Raiser) way(dir uint64) (d directory, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for range maxDepth {
		if dir == r.tree.Root() {
			return d, nil
		}
		n, ok := r.where(dir)
		if !ok {
			return d, errAway
		}
		if _, differs := r.world.Shown(n); differs {
			d.lies = append(d.lies, n)
		}
		d.names = append(d.names, n.Name)
		dir = n.Parent
	}
	return d, errAway
}

// expire has names that lead elsewhere now looked up again on the way.
func (r *Raiser) expire(names ...Name) {
	for _, n := range names {
		r.mount.Expire(n.Parent, n.Name)
	}
}

// attempts is how often a step is tried: others may look at the same names in between.
const attempts = 3

// show takes a step. What is removed or replaced must be gone, since the kernel takes it for that.
func (r *Raiser) show(s *Step) error {
	if !s.Made && !s.Move() && !r.tree.Gone(s.Entry.Ino) || !s.Over.none() && !r.tree.Gone(s.Over.Ino) {
		return unix.EBUSY
	}
	from, err := r.way(s.Name.Parent)
	if err != nil {
		return err
	}
	to := from
	if s.Move() {
		if to, err = r.way(s.To.Parent); err != nil {
			return err
		}
	}
	for range attempts {
		r.expire(from.lies...)
		r.expire(to.lies...)
		if !s.Made {
			r.expire(s.Name)
		}
		r.thread.Do(func() { err = r.take(s, from, to) })
		if err == nil || r.stopped() {
			return nil
		}
		if err != unix.ENOENT && err != unix.EEXIST && err != unix.ESTALE {
			break
		}
	}
	return err
}

// take makes the call of a step. The thread does it.
func (r *Raiser) take(s *Step, from, to directory) error {
	root, ok := r.mount.OpenRoot()
	if !ok {
		return errAway
	}
	defer unix.Close(root)
	dir, err := from.open(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	switch {
	case s.Move():
		target, err := to.open(root)
		if err != nil {
			return err
		}
		defer unix.Close(target)
		err = unix.Renameat(dir, s.Name.Name, target, s.To.Name)
		if err == unix.ESTALE { // a directory that somebody has found at its new place: it goes back first
			var st unix.Stat_t
			unix.Fstatat(dir, s.Name.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
		}
		return err
	case s.Made && s.Entry.Dir:
		return unix.Mkdirat(dir, s.Name.Name, 0o700)
	case s.Made:
		return unix.Mknodat(dir, s.Name.Name, unix.S_IFREG|0o600, 0)
	case s.Entry.Dir:
		return unix.Unlinkat(dir, s.Name.Name, unix.AT_REMOVEDIR)
	}
	return unix.Unlinkat(dir, s.Name.Name, 0)
}

// touch raises events of a node.
func (r *Raiser) touch(node uint64, events Event) (err error) {
	r.mu.Lock()
	n, named := r.where(node)
	r.mu.Unlock()
	dir := n.Parent
	if !named {
		if node != r.tree.Root() {
			return unix.ENOENT
		}
		dir, n.Name = node, "."
	}
	way, err := r.way(dir)
	if err != nil {
		return unix.ENOENT
	}
	r.expire(way.lies...)
	r.thread.Do(func() { err = r.setTimes(way, n.Name, events) })
	return err
}

// setTimes makes the calls. The thread does it. Of both times it is IN_ATTRIB, of the time of the last change alone IN_MODIFY
// (fsnotify_change).
func (r *Raiser) setTimes(way directory, name string, events Event) error {
	root, ok := r.mount.OpenRoot()
	if !ok {
		return nil
	}
	defer unix.Close(root)
	dir, err := way.open(root)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	now, omit := unix.Timespec{Nsec: unix.UTIME_NOW}, unix.Timespec{Nsec: unix.UTIME_OMIT}
	if events&Attrib != 0 {
		err = unix.UtimesNanoAt(dir, name, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW)
	}
	if events&Modify != 0 && err == nil {
		err = unix.UtimesNanoAt(dir, name, []unix.Timespec{omit, now}, unix.AT_SYMLINK_NOFOLLOW)
	}
	return err
}

// open opens the directory with O_PATH, below the root.
func (d directory) open(root int) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	fd = root
	paths := d.paths()
	for i, path := range paths {
		next, err := unix.Openat2(fd, path, &how)
		if i > 0 {
			unix.Close(fd)
		}
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// paths returns the way in pieces that a call takes.
func (d directory) paths() (list []string) {
	if len(d.names) == 0 {
		return []string{"."}
	}
	var b strings.Builder
	for i := len(d.names) - 1; i >= 0; i-- {
		if b.Len()+1+len(d.names[i]) >= unix.PathMax {
			list = append(list, b.String())
			b.Reset()
		}
		if b.Len() > 0 {
			b.WriteByte('/')
		}
		b.WriteString(d.names[i])
	}
	return append(list, b.String())
}
