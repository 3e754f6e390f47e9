package cli

import (
	"cmp"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
)

func hosts() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hosts [PATH]",
		Short: "list the hosts of the cluster",
		Long: `hosts lists the hosts of the cluster as the daemon of the mount that PATH is in knows them, from .lockfs/hosts.

  ROLE      leader, voter, nonvoter: whether it has a vote in what is committed
  STATE     alive; suspect: no longer heard of, but its session goes on; failed: neither; left: it was stopped
  SESSION   under which it holds locks, - for none
  LOG       where its copy of the log is: on disk, or in memory, which a voter's never is`,
		Args: arguments(0, 1, "PATH"),
		Annotations: exits("0   listed", "64  several mounts and no PATH",
			"69  PATH is not in a lockfs mount, or its daemon is gone"),
	}
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, _, err := client.Find("hosts", first(args))
		if err != nil {
			return err
		}
		list, err := m.Hosts("hosts")
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tROLE\tSTATE\tADDRESS\tSESSION\tLOG\tVERSION")
		for _, h := range list {
			for i, key := range []string{"host", "role", "state", "address", "session", "log", "version"} {
				if i > 0 {
					fmt.Fprint(t, "\t")
				}
				fmt.Fprint(t, cmp.Or(client.Printable(h.Get(key)), "-"))
			}
			fmt.Fprintln(t)
		}
		return t.Flush()
	}
	return cmd
}
