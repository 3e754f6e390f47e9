package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
)

func check() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check SEQUENCER",
		Short: "ask whether a sequencer still stands",
		Long: `check asks, through the log and the host that holds the lock, whether the lock that a sequencer names is still held with
that token. The sequencer is what lockfs token FD --sequencer prints, or what is read from NAME@sequencer.`,
		Example: `  lockfs check "$sequencer" && apply_change`,
		Args:    arguments(1, 1, "SEQUENCER"),
		Annotations: exits("0   it stands", "1   it does not stand (any more)", "64  not a sequencer", "69  no daemon answers",
			"74  the host has no contact with its cluster"),
	}
	mount := mountFlag(cmd.Flags())
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, _, err := client.Find("check", *mount)
		if err != nil {
			return err
		}
		fd, err := unix.Open(m.Control("status"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return exit.Of("check", m.Point, err)
		}
		defer unix.Close(fd)
		answer, err := ioc.CheckSequencer(fd, args[0])
		if errors.Is(err, unix.EINVAL) {
			return exit.Usagef("check", "%q is not a sequencer", args[0])
		}
		if err != nil {
			return exit.Of("check", m.Point, err)
		}
		stands := answer.Verdict == ioc.Stands
		switch {
		case *asJSON:
			err = printJSON(cmd.OutOrStdout(), struct {
				Stands bool   `json:"stands"`
				Token  uint64 `json:"token"`
			}{stands, answer.Token})
		case stands:
			fmt.Fprintln(cmd.OutOrStdout(), "stands")
		case answer.Token > tokenOf(args[0]):
			fmt.Fprintf(cmd.OutOrStdout(), "does not stand: there is a newer token, %d\n", answer.Token)
		default:
			fmt.Fprintln(cmd.OutOrStdout(), "does not stand: it is not held any more")
		}
		if err == nil && !stands {
			err = exit.Status(exit.Busy)
		}
		return err
	}
	return cmd
}

// tokenOf is the token in a sequencer (lockfs1:EX:TOKEN:/path) that the daemon could read.
func tokenOf(sequencer string) uint64 {
	fields := strings.SplitN(sequencer, ":", 4)
	if len(fields) < 4 {
		return 0
	}
	token, _ := strconv.ParseUint(fields[2], 10, 64)
	return token
}
