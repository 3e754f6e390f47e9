package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/daemon"
)

func version() *cobra.Command {
	cmd := &cobra.Command{
		Use:         "version",
		Short:       "print the version",
		Args:        arguments(0, 0, ""),
		Annotations: exits("0   printed"),
	}
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		revision := revision()
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
			}{daemon.Version, revision, runtime.Version()})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "lockfs %s", daemon.Version)
		if revision != "" {
			fmt.Fprintf(cmd.OutOrStdout(), " (%s)", revision)
		}
		fmt.Fprintf(cmd.OutOrStdout(), " %s\n", runtime.Version())
		return nil
	}
	return cmd
}

// revision is the commit that the binary was built from, as the Go tool noted it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	var id, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			id = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+changes"
		}
	}
	if id == "" {
		return ""
	}
	return id + dirty
}
