package cli

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
)

func ls() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [PATH]",
		Short: "list who holds and who waits",
		Long: `ls lists the locks that are held and asked for at PATH and below it, on all hosts: one line a lock, the queue of each
resource behind its holders. Without PATH it lists all. It shows what the caller could stat; command lines go to
the owner and root.`,
		Args: arguments(0, 1, "PATH"),
		Annotations: exits("0   listed, even if there was nothing", "64  several mounts and no PATH",
			"66  PATH cannot be opened", "69  PATH is not in a lockfs mount, or its daemon is gone"),
	}
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		locks, err := list("ls", first(args))
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), locks)
		}
		return printLocks(cmd.OutOrStdout(), locks, time.Now())
	}
	return cmd
}

// list returns the holders and the waiters at and below a path given by the user.
func list(op, path string) ([]client.Lock, error) {
	m, rel, err := client.Find(op, path)
	if err != nil {
		return nil, err
	}
	if err := m.Stat(rel); err != nil {
		return nil, exit.Of(op, path, err)
	}
	held, err := m.Held(rel)
	if err != nil {
		return nil, exit.Of(op, path, err)
	}
	waiting, err := m.Waiting(rel)
	if err != nil {
		return nil, exit.Of(op, path, err)
	}
	return client.Merge(held, waiting), nil
}

func printLocks(w io.Writer, locks []client.Lock, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PATH\tMODE\tSTATE\tFOR\tPROCESS\tUSER\tCOMMAND")
	for _, l := range locks {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", client.Printable(l.Path), l.Asks(), l.State(), client.Age(now, l.Since), l.Who(), l.User(),
			l.Command())
	}
	return t.Flush()
}
