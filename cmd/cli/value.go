package cli

import (
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
)

// maxStdin bounds what `value --set -` reads; the daemon's own limit is far below it.
const maxStdin = 64 << 20

func value() *cobra.Command {
	var set string
	cmd := &cobra.Command{
		Use:   "value FD [--set VALUE|-]",
		Short: "read or replace the whole value through a descriptor",
		Long: `value prints the value of the resource that a descriptor of the calling shell is open on, whatever the descriptor's
offset. With --set it replaces the whole value and commits it at once; that needs PW or EX. VALUE is taken as it is,
without a newline; - reads it from standard input. An invalid value (its last writer died) is printed all the same,
with a warning.`,
		Example: `  exec 9<>/locks/a
  lockfs value 9 --set v42
  lockfs value 9`,
		Args: arguments(1, 1, "FD"),
		Annotations: exits("0   done", "64  wrong usage, or FD is not open", "65  the mode does not allow it, or the value is too large",
			"69  FD is not a file of a lockfs mount", "73  no room", "74  the lock was lost"),
	}
	cmd.Flags().StringVar(&set, "set", "", "replace the value; - reads it from standard input")
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		fd, _, err := client.Descriptor("value", args[0])
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("set") {
			return setValue(cmd.InOrStdin(), fd, set)
		}
		v, err := ioc.GetValue(fd)
		if err != nil {
			return exit.Of("value", exit.FD(fd), err)
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), valueObject(v))
		}
		if !v.Valid {
			fmt.Fprintf(cmd.ErrOrStderr(), "lockfs: value FD %d: the value is invalid, its last writer died: write it anew\n", fd)
		}
		_, err = cmd.OutOrStdout().Write(v.Data)
		return err
	}
	return cmd
}

// valueObject is a value as JSON: as text where it is text, else as base64.
func valueObject(v ioc.Value) any {
	out := struct {
		Value      *string `json:"value,omitempty"`
		Base64     []byte  `json:"base64,omitempty"`
		Generation uint64  `json:"generation"`
		Valid      bool    `json:"valid"`
	}{Generation: v.Generation, Valid: v.Valid}
	if text := string(v.Data); utf8.ValidString(text) {
		out.Value = &text
	} else {
		out.Base64 = v.Data
	}
	return out
}

func setValue(stdin io.Reader, fd int, set string) error {
	data := []byte(set)
	if set == "-" {
		var err error
		if data, err = io.ReadAll(io.LimitReader(stdin, maxStdin)); err != nil {
			return exit.Of("value", "standard input", err)
		}
	}
	if _, err := ioc.SetValue(fd, data); err != nil {
		return exit.Of("value", exit.FD(fd), err)
	}
	return nil
}
