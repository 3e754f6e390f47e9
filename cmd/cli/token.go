package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/queue"
)

func token() *cobra.Command {
	var sequencer bool
	cmd := &cobra.Command{
		Use:   "token FD",
		Short: "print the fencing token of a descriptor's lock",
		Long: `token prints the number that came with the lock of a descriptor. The tokens of one resource grow with every grant of
PW and EX, on all hosts and through restarts: send it with each request to a third party, and let that refuse a
request whose token is lower than the highest it has seen. With --sequencer it prints the Chubby sequencer (path, mode
and token in one word), which lockfs check takes.`,
		Example: `  exec 9<>/locks/a
  curl -H "Lock-Token: $(lockfs token 9)" …
  lockfs check "$(lockfs token 9 --sequencer)"`,
		Args: arguments(1, 1, "FD"),
		Annotations: exits("0   printed", "64  wrong usage, or FD is not open", "65  the descriptor holds no lock",
			"69  FD is not a file of a lockfs mount", "74  the lock was lost"),
	}
	cmd.Flags().BoolVar(&sequencer, "sequencer", false, "print the sequencer instead")
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		fd, info, err := client.Descriptor("token", args[0])
		if err != nil {
			return err
		}
		if *asJSON || sequencer {
			seq, err := ioc.SequencerOf(fd)
			if err != nil {
				return exit.Of("token", exit.FD(fd), err)
			}
			if !*asJSON {
				fmt.Fprintln(cmd.OutOrStdout(), seq.Text)
				return nil
			}
			return printJSON(cmd.OutOrStdout(), struct {
				Token     uint64 `json:"token"`
				Mode      string `json:"mode"`
				Path      string `json:"path"`
				Sequencer string `json:"sequencer"`
			}{seq.Token, queue.Mode(info.Mode).String(), info.Path, seq.Text})
		}
		t, err := ioc.TokenOf(fd)
		if err != nil {
			return exit.Of("token", exit.FD(fd), err)
		}
		fmt.Fprintln(cmd.OutOrStdout(), t.Token)
		return nil
	}
	return cmd
}
