package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/lockfs/lockfs/cmd/daemon"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/cmd/fstab"
)

// man writes the manual pages, which are made from the commands' own texts.
func man() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "write the manual pages into a directory",
		Hidden: true,
		Args:   arguments(1, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return exit.Of("man", args[0], err)
			}
			for c := range all(cmd.Root()) {
				if c.Hidden || c.Name() == "help" || c.HasParent() && c.Parent().Name() == "completion" {
					continue
				}
				if err := write(args[0], c, 1); err != nil {
					return err
				}
			}
			return write(args[0], fstab.Command(), 8)
		},
	}
}

// write writes the manual page of one command into a directory.
func write(dir string, c *cobra.Command, section int) error {
	file := filepath.Join(dir, fmt.Sprintf("%s.%d", strings.ReplaceAll(c.CommandPath(), " ", "-"), section))
	if err := os.WriteFile(file, page(c, section), 0o644); err != nil {
		return exit.Of("man", file, err)
	}
	return nil
}

// page is the manual page of one command, in the macros of man(7).
func page(c *cobra.Command, section int) []byte {
	title := strings.ReplaceAll(c.CommandPath(), " ", "-")
	b := &strings.Builder{}
	fmt.Fprintf(b, ".TH %s %d \"\" \"lockfs %s\" \"lockfs\"\n", strings.ToUpper(title), section, daemon.Version)
	fmt.Fprintf(b, ".SH NAME\n%s \\- %s\n", roff(title), roff(c.Short))
	use := c.UseLine()
	if c.HasAvailableSubCommands() && !c.HasParent() {
		use += " COMMAND"
	}
	fmt.Fprintf(b, ".SH SYNOPSIS\n.nf\n%s\n.fi\n", roff(use))
	long := c.Long
	if long == "" {
		long = c.Short
	}
	fmt.Fprintf(b, ".SH DESCRIPTION\n%s", paragraphs(long))
	if c.HasAvailableSubCommands() && c.Name() != "completion" {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() {
				fmt.Fprintf(b, ".TP\n.BR %s (1)\n%s\n", roff(title+"-"+sub.Name()), roff(sub.Short))
			}
		}
	}
	if c.HasAvailableLocalFlags() {
		b.WriteString(".SH OPTIONS\n")
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { b.WriteString(option(f)) })
	}
	if codes := c.Annotations["exit"]; codes != "" {
		b.WriteString(".SH EXIT STATUS\n")
		for line := range strings.Lines(codes) {
			code, text, _ := strings.Cut(strings.TrimSpace(line), " ")
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", roff(code), roff(strings.TrimSpace(text)))
		}
	}
	if c.HasExample() {
		fmt.Fprintf(b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(c.Example))
	}
	b.WriteString(".SH SEE ALSO\n")
	if title != "lockfs" {
		b.WriteString(".BR lockfs (1),\n")
	}
	b.WriteString(".BR flock (1),\n.BR flock (2),\n.BR fcntl (2)\n")
	return []byte(b.String())
}

func option(f *pflag.Flag) string {
	if f.Hidden {
		return ""
	}
	what, usage := pflag.UnquoteUsage(f)
	head := ""
	if f.Shorthand != "" {
		head = "-" + f.Shorthand + ", "
	}
	head += "--" + f.Name
	if what != "" {
		head += " " + what
	}
	if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" && f.DefValue != "0s" {
		usage += " (default " + f.DefValue + ")"
	}
	return fmt.Sprintf(".TP\n.B %s\n%s\n", roff(head), roff(usage))
}

// paragraphs sets a text whose paragraphs are parted by empty lines; indented lines are kept as they are.
func paragraphs(text string) string {
	b := &strings.Builder{}
	verbatim := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if indented := strings.HasPrefix(line, "  "); indented != verbatim && line != "" {
			verbatim = indented
			b.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[indented])
		}
		if line == "" {
			b.WriteString(".PP\n")
			continue
		}
		b.WriteString(roff(line) + "\n")
	}
	if verbatim {
		b.WriteString(".fi\n")
	}
	return b.String()
}

// roff escapes what troff would take for its own.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "…", "...").Replace(s)
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
