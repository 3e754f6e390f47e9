package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
)

func notices() *cobra.Command {
	var (
		wait   float64
		follow bool
	)
	cmd := &cobra.Command{
		Use:   "notices FD [-f] [-w SECONDS]",
		Short: "take the notices that wait on a descriptor",
		Long: `notices takes what was told to the lock of a descriptor and nobody took yet, oldest first, one a line: that another is
blocked by it (the blocking AST of VMS), that it was granted, lost, chosen to break a deadlock, or that the value
changed. A lock that holds up nobody any more has no blocking notices left. What one process takes, another that shares the descriptor does not see.`,
		Example: `  exec 9<>/locks/a
  lockfs notices 9 -w 60 && exec 9>&-    # let go as soon as somebody asks`,
		Args: arguments(1, 1, "FD"),
		Annotations: exits("0   at least one notice was taken", "1   there was none", "64  wrong usage, or FD is not open",
			"69  FD is not a file of a lockfs mount", "74  the lock was lost, and all notices are taken"),
	}
	cmd.Flags().Float64VarP(&wait, "wait", "w", 0, "wait so many `SECONDS` for the first notice")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more until the lock is lost")
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if wait < 0 {
			return exit.Usagef("notices", "-w %v is negative", wait)
		}
		fd, _, err := client.Descriptor("notices", args[0])
		if err != nil {
			return err
		}
		limit := time.Duration(wait * float64(time.Second))
		if follow {
			limit = -1
		}
		for taken := 0; ; {
			n, err := takeNotices(cmd.OutOrStdout(), fd, *asJSON)
			taken += n
			switch {
			case err != nil:
				return exit.Of("notices", exit.FD(fd), err)
			case taken > 0 && !follow:
				return nil
			}
			if ready, err := waitNotice(fd, limit); err != nil {
				return exit.Of("notices", exit.FD(fd), err)
			} else if !ready {
				return exit.Status(exit.Busy)
			}
		}
	}
	return cmd
}

// takeNotices prints all that wait and returns how many.
func takeNotices(w io.Writer, fd int, asJSON bool) (n int, err error) {
	for ; ; n++ {
		notice, err := ioc.TakeNotice(fd)
		if errors.Is(err, unix.EAGAIN) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if asJSON {
			err = printJSON(w, noticeObject(notice.Line))
		} else {
			_, err = fmt.Fprintln(w, notice.Line)
		}
		if err != nil {
			return n, err
		}
	}
}

// noticeObject is a line of notices as one object: its kind and its words.
func noticeObject(line string) client.Fields {
	kind, fields := client.ParseWords(line)
	return append(client.Fields{{Key: "kind", Value: kind}}, fields...)
}

// waitNotice waits for a notice, at most for the limit, for ever if that is negative. A lost lock ends it with EIO
// when there is nothing more to take.
func waitNotice(fd int, limit time.Duration) (ready bool, err error) {
	millis := -1
	if limit >= 0 {
		millis = int(limit.Milliseconds())
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
	for {
		n, err := unix.Poll(poll, millis)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return false, err
		}
		if poll[0].Revents&unix.POLLPRI == 0 {
			return false, unix.EIO
		}
		return true, nil
	}
}
