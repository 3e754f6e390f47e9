package conn

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// mountHelped mounts by fusermount3, which is setuid root. It opens the device and sends the descriptor back through a
// socket. allow_other is asked for only where fuse.conf permits it.
func (c *Conn) mountHelped() error {
	helper, err := findHelper()
	if err != nil {
		return fmt.Errorf("mount %s: %w", c.mountPoint, err)
	}
	allow := c.options.AllowOther && (os.Geteuid() == 0 || userAllowOther("/etc/fuse.conf"))
	fd, err := runHelper(helper, c.mountPoint, c.helperOptions(allow))
	if err != nil && allow {
		allow = false
		fd, err = runHelper(helper, c.mountPoint, c.helperOptions(false))
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", c.mountPoint, err)
	}
	c.fd, c.helper, c.allowOther = fd, helper, allow
	return nil
}

// helperOptions is fusermount3's -o. A comma or backslash in a value is escaped: it would start another option.
func (c *Conn) helperOptions(allowOther bool) string {
	options := []string{
		"nosuid", "nodev", "default_permissions",
		fmt.Sprintf("max_read=%d", c.options.MaxWrite),
		"subtype=" + c.options.Subtype,
		"fsname=" + strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(c.options.FSName),
	}
	if allowOther {
		options = append(options, "allow_other")
	}
	return strings.Join(options, ",")
}

// runHelper runs fusermount3 and receives the device.
func runHelper(helper, mountPoint, options string) (fd int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "fusermount")
	defer unix.Close(pair[0])

	var stderr bytes.Buffer
	cmd := exec.Command(helper, "-o", options, "--", mountPoint)
	cmd.Env = []string{"_FUSE_COMMFD=3", "LC_ALL=C"}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &stderr
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return -1, helperError(helper, err, &stderr)
	}
	return receive(pair[0])
}

// receive takes the descriptor that fusermount3 has sent.
func receive(socket int) (fd int, err error) {
	var data [1]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data[:], control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return -1, fmt.Errorf("receiving the device from fusermount3: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("fusermount3 sent no device: %w", errors.Join(err, unix.EPROTO))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("fusermount3 sent no device: %w", errors.Join(err, unix.EPROTO))
	}
	return fds[0], nil
}

func helperError(helper string, err error, stderr *bytes.Buffer) error {
	if said := strings.TrimSpace(stderr.String()); said != "" {
		return fmt.Errorf("%s: %s", helper, said)
	}
	return fmt.Errorf("%s: %w", helper, err)
}

// findHelper finds fusermount3, in the places where distributions put it before the search path.
func findHelper() (string, error) {
	for _, path := range []string{"/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3",
		"/run/wrappers/bin/fusermount3"} {
		if unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	if path, err := exec.LookPath("fusermount3"); err == nil {
		return path, nil
	}
	return "", errors.New("no fusermount3 found: install fuse3, or mount as root")
}

// userAllowOther reports whether a fuse.conf lets ordinary users mount for others.
func userAllowOther(path string) bool {
	conf, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(conf)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}

// detach unmounts lazily what is mounted at a path. helper "": mount(2)'s counterpart, or fusermount3 where that is not
// permitted.
func detach(path, helper string) error {
	if helper == "" {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, unix.EPERM) {
			return err
		}
		if helper, err = findHelper(); err != nil {
			return err
		}
	}
	var stderr bytes.Buffer
	cmd := exec.Command(helper, "-u", "-z", "-q", "--", path)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return helperError(helper, err, &stderr)
	}
	return nil
}
