package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/cmd/run"
	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/queue"
)

func convert() *cobra.Command {
	var (
		w     run.Waiting
		flags run.RequestFlags
	)
	cmd := &cobra.Command{
		Use:   "convert FD MODE [-w SECONDS|-n]",
		Short: "change the mode of a descriptor's lock",
		Long: `convert changes the mode of the lock on a descriptor that the calling shell holds. MODE is nl, cr, cw, pr, pw or ex.
The lock stays as it is while the conversion waits, which it does ahead of all new requests. A conversion to a lower
mode is granted at once. Giving up PW or EX commits what was written.`,
		Example: `  exec 9<>/locks/a              # EX
  lockfs convert 9 pr           # others may read now
  lockfs convert 9 ex -w 5      # back, or give up after 5 s and keep PR`,
		Args: arguments(2, 2, "FD MODE"),
		Annotations: exits("0   converted", "1   not granted in time, the lock is as it was (or the code of -E)",
			"64  wrong usage, or FD is not open", "65  it would be a deadlock, or no permission", "69  FD is not a file of a lockfs mount",
			"74  the lock was lost"),
		RunE: func(cmd *cobra.Command, args []string) error {
			mode, ok := queue.ParseMode(args[1])
			if !ok {
				return exit.Usagef("convert", "%q is no mode: nl cr cw pr pw ex", args[1])
			}
			fd, _, err := client.Descriptor("convert", args[0])
			if err != nil {
				return err
			}
			r := ioc.Request{Mode: uint32(mode), Flags: flags.Bits(), Wait: w.Limit}
			if w.Never {
				r.Flags |= ioc.NoQueue
			}
			if r, err = run.Masked(func() (ioc.Request, error) { return ioc.Convert(fd, r) }); err != nil {
				return w.Conflict("convert", exit.FD(fd), err)
			}
			if got := queue.Mode(r.Mode); got != mode {
				fmt.Fprintf(cmd.OutOrStdout(), "%v\n", got)
			}
			return nil
		},
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 1 {
			return run.Modes, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	w.Register(cmd.Flags())
	flags.Register(cmd.Flags(), true)
	return cmd
}
