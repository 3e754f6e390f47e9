package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
)

func leave() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave [NAME] [FLAGS]",
		Short: "take this host, or a dead one, out of the cluster",
		Long: `leave takes this host out of its cluster for good: its holders have --drain to let go, another host leads if this one did, the
voters become fewer, and the daemon ends. Its data directory is of no more use; to join again it starts with
lockfs mount --reset. To stop a host for a while, stop its daemon: it stays a member and comes back.

With NAME it takes out another host, one that is dead and will not come back; if it does come back it is refused. A host
that is alive is to leave by itself, unless --force is given.`,
		Example: `  lockfs leave
  lockfs leave host3`,
		Args: arguments(0, 1, "NAME"),
		Annotations: exits("0   it is no member any more", "64  the command line is wrong",
			"65  refused: the cluster would be without a quorum or has none, the host is alive, or there is no such host",
			"69  no daemon answers"),
	}
	cmd.Flags().SortFlags = false
	force := cmd.Flags().Bool("force", false, "take NAME out even if it seems to be alive: what it holds is lost")
	mount := mountFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, _, err := client.Find("leave", *mount)
		if err != nil {
			return err
		}
		status, err := m.Status("leave")
		if err != nil {
			return err
		}
		if len(args) == 0 || args[0] == status.Get("host") {
			return leaveSelf(m, status)
		}
		line := "remove " + args[0]
		if *force {
			line += " force"
		}
		if _, err := m.Command("leave", line); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s is no host of the cluster any more\n", args[0])
		return nil
	}
	return cmd
}

// leaveSelf has this host leave, and returns when its daemon is gone.
func leaveSelf(m client.Mount, status client.Fields) error {
	daemon := -1
	if pid, err := strconv.Atoi(status.Get("pid")); err == nil {
		daemon, _ = unix.PidfdOpen(pid, 0) // one of another pid namespace cannot be waited for
	}
	if daemon >= 0 {
		defer unix.Close(daemon)
	}
	if _, err := m.Command("leave", "leave"); err != nil {
		return err
	}
	if daemon >= 0 && !ends(daemon, 30*time.Second) {
		return &exit.Error{Op: "leave", What: "it left, but its daemon has not ended", Do: "see its log", Code: exit.Software}
	}
	return nil
}

// ends waits for the process behind a pidfd.
func ends(pidfd int, limit time.Duration) bool {
	for end := time.Now().Add(limit); ; {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(end)).Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		return n > 0
	}
}
