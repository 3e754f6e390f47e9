package cli

import (
	"encoding/json"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lockfs/lockfs/cmd/bench"
	"github.com/lockfs/lockfs/cmd/daemon"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/cmd/fstab"
	"github.com/lockfs/lockfs/cmd/run"
	"github.com/lockfs/lockfs/cmd/top"
)

// Main runs the command line of this process and returns its exit code. Called as mount.lockfs it is that.
func Main() int {
	if filepath.Base(os.Args[0]) == fstab.Name {
		return fstab.Main(os.Args[1:], os.Stdout, os.Stderr)
	}
	awaited := fstab.Child()
	root := New()
	root.SetArgs(os.Args[1:])
	err := root.Execute()
	if awaited {
		exit.Report(os.Stdout, err)
	}
	return exit.Report(os.Stderr, err)
}

// New returns the root command with all others.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "lockfs",
		Short: "a distributed lock manager whose API is a file system",
		Long: `lockfs mounts a tree of locks. Directories are the resource hierarchy, a file is a resource, its contents
are the resource's value block; opening it enqueues a lock request, closing it releases.

  lockfs mount /locks &              one host, no other set-up
  exec 9<>/locks/orders              EX, waits until granted
  flock -n /locks/nightly ./job.sh   the real flock(1)
  cat /locks/orders                  the value, never waits

Commands that look at locks find the daemon by the path they are given, by LOCKFS_MOUNT, or take the only mount
that there is. Descriptors (FD) are numbers of descriptors that the calling shell has open.

Several hosts that mount one tree are a cluster: lockfs cert and keygen make its keys, lockfs mount --join joins it, lockfs
init founds it, lockfs hosts lists it, lockfs leave leaves it.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		DisableAutoGenTag: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return cmd.Help()
		},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &exit.Error{Op: args[0], What: "no such command", Do: "see lockfs --help", Code: exit.Usage}
			}
			return nil
		},
	}
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exit.Usagef(name(cmd), "%v", err) })
	root.AddCommand(daemon.Command(), run.Command(), bench.Command(), convert(), value(), notices(), token(), check(), ls(), top.Command(), why(), deadlocks(),
		status(), events(), hosts(), initialize(), leave(), snapshot(), certs(), keygen(), version(), man())
	root.InitDefaultCompletionCmd("mount", "run")
	for cmd := range all(root) {
		cmd.DisableFlagsInUseLine = true
	}
	return root
}

// all yields a command and, below it, all others.
func all(cmd *cobra.Command) iter.Seq[*cobra.Command] {
	return func(yield func(*cobra.Command) bool) {
		if !yield(cmd) {
			return
		}
		for _, c := range cmd.Commands() {
			for c := range all(c) {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// group is a command that only has others below it.
func group(cmd *cobra.Command, below ...*cobra.Command) *cobra.Command {
	cmd.Use += " COMMAND"
	cmd.Annotations = exits("0   shown", "64  no such command")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return cmd.Help() }
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return exit.Usagef(name(cmd), "%q is no such command", args[0])
		}
		return nil
	}
	cmd.AddCommand(below...)
	return cmd
}

// name returns the words that call a command, without the leading "lockfs".
func name(cmd *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "lockfs"), " ")
}

// usageTemplate is cobra's, with the exit codes.
const usageTemplate = `Usage:{{if and .Runnable .HasParent}}
  {{.UseLine}}{{end}}{{if not .HasParent}}
  lockfs COMMAND [FLAGS] [ARGUMENTS]{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{with index .Annotations "exit"}}

Exit codes:
{{.}}{{end}}
`

// arguments demands from least to most of them; their names are for the message.
func arguments(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return exit.Usagef(name(cmd), "%s is missing", names)
		case len(args) > most:
			return exit.Usagef(name(cmd), "%q is one argument too many", args[most])
		}
		return nil
	}
}

// exits is the annotation of a command's exit codes, one a line.
func exits(lines ...string) map[string]string {
	return map[string]string{"exit": "  " + strings.Join(lines, "\n  ")}
}

// jsonFlag adds --json.
func jsonFlag(fs *pflag.FlagSet) *bool {
	return fs.Bool("json", false, "print JSON for programs")
}

// mountFlag adds --mount.
func mountFlag(fs *pflag.FlagSet) *string {
	return fs.String("mount", "", "ask through the mount that `PATH` is in (default LOCKFS_MOUNT or the only one)")
}

// printJSON writes one line of JSON.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// first is the first argument, "" without any.
func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
