package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
)

func deadlocks() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deadlocks [PATH]",
		Short: "list the deadlocks that were found",
		Long: `deadlocks lists the last deadlocks that were found in the cluster, the newest last: whose request was ended for it, and
the whole cycle, who waited for what, held up by whom. It shows those of which the caller could stat every file.`,
		Args: arguments(0, 1, "PATH"),
		Annotations: exits("0   listed, even if there was nothing", "64  several mounts and no PATH",
			"69  PATH is not in a lockfs mount, or its daemon is gone"),
	}
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m, _, err := client.Find("deadlocks", first(args))
		if err != nil {
			return err
		}
		list, err := m.Deadlocks("deadlocks")
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		return printDeadlocks(cmd.OutOrStdout(), list, time.Now())
	}
	return cmd
}

func printDeadlocks(w io.Writer, list []client.Deadlock, now time.Time) error {
	b := &strings.Builder{}
	for _, d := range list {
		get := func(key string) string { return client.Printable(d.Fields.Get(key)) }
		fmt.Fprintf(b, "%s ago: %s (%s) got EDEADLK for %s\n", client.Age(now, client.ParseTime(d.Fields.Get("time"))), get("victim"), get("comm"),
			get("path"))
		for _, wait := range d.Waits {
			get := func(key string) string { return client.Printable(wait.Get(key)) }
			fmt.Fprintf(b, "    %s (%s) waited for %s of %s, held up by %s\n", get("by"), get("comm"), get("wanted"), get("path"), heldUpBy(wait))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// heldUpBy says in words what held a wait up.
func heldUpBy(wait client.Fields) string {
	get := func(key string) string { return client.Printable(wait.Get(key)) }
	who := get("of")
	if c := get("of-comm"); c != "" {
		who += " (" + c + ")"
	}
	switch wait.Get("held-up-by") {
	case "request":
		return fmt.Sprintf("the earlier request of %s for %s of %s", who, get("of-mode"), get("of-path"))
	case "range":
		return fmt.Sprintf("the byte range of %s in %s", who, get("of-path"))
	}
	return fmt.Sprintf("%s of %s, which %s had", get("of-mode"), get("of-path"), who)
}
