package client

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
)

// Descriptor parses an argument that names a descriptor inherited from the calling shell, and finds out what it is.
func Descriptor(op, arg string) (fd int, info ioc.Info, err error) {
	fd, err = strconv.Atoi(arg)
	if err != nil || fd < 0 {
		return 0, info, exit.Usagef(op, "%q is not the number of a descriptor", arg)
	}
	if info, err = ioc.InfoOf(fd); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			err = unix.ENOTTY // what a file of another system answers
		}
		return 0, info, exit.Of(op, exit.FD(fd), err)
	}
	return fd, info, nil
}
