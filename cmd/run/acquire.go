package run

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/queue"
)

// held is a lock that this process holds through a descriptor.
type held struct {
	fd    int
	path  string // absolute
	mode  queue.Mode
	token uint64
	slot  int // of --slots; 0: none
}

// acquire opens the path, making it if need be, and takes the lock.
func (o *options) acquire(path string) (held, error) {
	path, err := target(path)
	if err != nil {
		return held{}, err
	}
	began := time.Now()
	stop := o.sayWhom(path, func() string { return fmt.Sprintf("%v, %s", o.asked(), blockers(path)) })
	fd, granted, err := o.take(path)
	stop()
	if err != nil {
		return held{}, err
	}
	h := held{fd: fd, path: path, mode: queue.Mode(granted.Mode), token: granted.Token}
	if o.verbose {
		fmt.Fprintf(os.Stderr, "lockfs: run %s: %v after %.6f seconds\n", path, h.mode, time.Since(began).Seconds())
	}
	return h, nil
}

// target is the lock file that a path means.
func target(path string) (string, error) {
	abs, err := inMount(path)
	if err != nil {
		return "", err
	}
	if stat, err := os.Stat(abs); err == nil && stat.IsDir() {
		abs = filepath.Join(abs, ".lock")
	}
	return abs, nil
}

// inMount returns the absolute path of a name in a lockfs mount, not one that names a mode.
func inMount(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", exit.Of("run", path, err)
	}
	if _, _, err := client.Find("run", abs); err != nil {
		return "", err
	}
	base := filepath.Base(abs)
	if at := strings.LastIndexByte(base, '@'); at >= 0 {
		word, _, _ := strings.Cut(base[at+1:], ",")
		if _, ok := queue.ParseMode(word); ok && word == strings.ToLower(word) {
			return "", exit.Usagef("run", "%s names a mode: leave %s away and give -m %s", path, base[at:], word)
		}
	}
	return abs, nil
}

// take opens the file without a lock and asks for one with all the flags. A file that this user may write and not
// read cannot be opened so: its alias takes the modes that need write permission.
func (o *options) take(path string) (int, ioc.Request, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_NOCTTY|unix.O_CLOEXEC, 0o666)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, unix.EACCES) && o.asked().Writes() || errors.Is(err, unix.EACCES) && o.asked() == queue.CW {
		return o.takeAlias(path)
	}
	if err != nil {
		return 0, ioc.Request{}, openError(path, err)
	}
	info, err := ioc.InfoOf(fd)
	if err != nil {
		unix.Close(fd)
		return 0, ioc.Request{}, exit.Of("run", path, err)
	}
	act := ioc.Lock
	if info.State == ioc.Held {
		act = ioc.Convert // view dlmfs: every open locks
	}
	granted, err := Masked(func() (ioc.Request, error) { return act(fd, o.ioctl()) })
	if err != nil {
		unix.Close(fd)
		return 0, ioc.Request{}, o.waiting.Conflict("run", path, err)
	}
	return fd, granted, nil
}

// takeAlias opens PATH@MODE, which locks at the open.
func (o *options) takeAlias(path string) (int, ioc.Request, error) {
	if o.request.Bits() != 0 || o.ttl != 0 {
		return 0, ioc.Request{}, &exit.Error{Op: "run", Path: path, What: "no permission to read it, which request flags need",
			Do: "leave the flags away or ask for read permission", Code: exit.NoInput, Err: unix.EACCES}
	}
	name, flags := path+"@"+strings.ToLower(o.asked().String()), unix.O_RDONLY|unix.O_NOCTTY|unix.O_CLOEXEC
	switch {
	case o.waiting.Never:
		flags |= unix.O_NONBLOCK
	case o.waiting.Limit > 0:
		name += ",wait=" + o.waiting.Limit.String()
	}
	fd, err := Masked(func() (int, error) { return unix.Open(name, flags, 0) })
	if err != nil {
		if busy(err) {
			return 0, ioc.Request{}, o.waiting.Conflict("run", path, err)
		}
		return 0, ioc.Request{}, openError(path, err)
	}
	granted := ioc.Request{Mode: uint32(o.asked())}
	if t, err := ioc.TokenOf(fd); err == nil {
		granted.Token = t.Token
	}
	return fd, granted, nil
}

// openError gives the codes of flock(1) for an open.
func openError(path string, err error) error {
	e := &exit.Error{Op: "run", Path: path, Err: err, Code: exit.NoInput}
	switch {
	case errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		e.Code = exit.OS
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.ENOSPC):
		e.Code = exit.NoCreate
	case errors.Is(err, unix.ENOTCONN), errors.Is(err, unix.ECONNABORTED):
		e.Code = exit.Unavailable
	}
	return e
}

// sayWhom says on standard error whom the request is waiting for, after a second and then ever more rarely, when
// there is something new to say.
func (o *options) sayWhom(path string, whom func() string) (stop func()) {
	if o.quiet || o.waiting.Never {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		said := ""
		for pause := time.Second; ; pause = min(2*pause, time.Minute) {
			select {
			case <-done:
				return
			case <-time.After(pause):
			}
			if now := whom(); now != said {
				fmt.Fprintf(os.Stderr, "lockfs: run %s: waiting for %s\n", path, now)
				said = now
			}
		}
	}()
	return func() { close(done) }
}

// blockers names who holds a path or an ancestor of it.
func blockers(path string) string {
	m, rel, err := client.Find("run", path)
	if err != nil {
		return "and no daemon tells whom for"
	}
	var names []string
	name := func(locks []client.Lock, where string) {
		for _, l := range locks {
			names = append(names, fmt.Sprintf("held%s %v by %s", where, l.Mode, holder(l)))
		}
	}
	if locks, err := m.HeldHere(rel); err == nil {
		name(locks, "")
	}
	for up := rel; up != ""; {
		up = strings.TrimPrefix(filepath.Dir("/"+up), "/")
		if locks, err := m.HeldHere(filepath.Join(up, ".lock")); err == nil {
			name(locks, " above (/"+up+")")
		}
	}
	return several(names)
}

// holder names a lock's process.
func holder(l client.Lock) string {
	comm := l.Fields.Get("comm")
	if comm == "" {
		comm = l.Fields.Get("command")
	}
	return strings.TrimSpace(l.Who() + " " + client.Printable(comm))
}

// several joins what is said of each holder.
func several(names []string) string {
	if len(names) > 5 {
		names = append(names[:5], fmt.Sprintf("and %d more", len(names)-5))
	}
	if len(names) == 0 {
		return "behind others that wait"
	}
	return strings.Join(names, ", ")
}
