package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cluster"
	"github.com/lockfs/lockfs/cmd/daemon"
	"github.com/lockfs/lockfs/cmd/exit"
)

func initialize() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init [FLAGS]",
		Short: "found a cluster, once, on one of its hosts",
		Long: `init has the daemon of this host, which was started with --join and waits to be admitted, found the cluster that the others
then join. It is for clusters whose hosts all have the same configuration; it is run once, on one host, ever. (The
other way: start the first host without --join.) It finds the daemon by its data directory.`,
		Example: `  lockfs init
  lockfs init --config /etc/lockfs.toml`,
		Args: arguments(0, 0, ""),
		Annotations: exits("0   founded", "64  the command line, the environment or the file is wrong",
			"69  no daemon waits there, or there is a cluster already"),
	}
	data := daemon.DataDirFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir, err := data()
		if err != nil {
			return err
		}
		if err := cluster.RequestInit(dir); err != nil {
			return &exit.Error{Op: "init", What: strings.TrimPrefix(err.Error(), "lockfs: "), Code: exit.Unavailable}
		}
		fmt.Fprintln(cmd.OutOrStdout(), "founded")
		return nil
	}
	return cmd
}
