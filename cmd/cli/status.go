package cli

import (
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
)

func status() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [PATH]",
		Short: "show how this host and its cluster are",
		Long: `status shows what .lockfs/status of a mount says: the host, its session and lease, what the log has applied, how many
nodes, values and locks there are, and the limits.`,
		Args: arguments(0, 1, "PATH"),
		Annotations: exits("0   shown", "64  several mounts and no PATH",
			"69  PATH is not in a lockfs mount, or its daemon is gone"),
	}
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, _, err := client.Find("status", first(args))
		if err != nil {
			return err
		}
		fields, err := m.Status("status")
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), fields)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		for _, f := range fields {
			fmt.Fprintf(t, "%s\t%s\n", f.Key, f.Value)
		}
		return t.Flush()
	}
	return cmd
}
