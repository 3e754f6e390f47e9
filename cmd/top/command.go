package top

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
)

// Command returns `lockfs top`.
func Command() *cobra.Command {
	var (
		sort, filter string
		rounds       int
		once, asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "top [FLAGS] [PATH]",
		Short: "watch who holds and who waits",
		Long: `top shows the locks that are held and asked for at PATH and below it (without PATH: all), on all hosts, anew each second.
It kills nothing. On a terminal these keys work:

  a w p m      sort by age (oldest first), waiters (most first), path, mode (strongest first); r the other way round
  /            show only rows that have a text, in whatever case; Enter keeps it, Esc drops it
  arrows, PgUp, PgDn, Home, End
  q, Ctrl-C    end

When standard output is no terminal, or with -n or --once, it prints a table each second; with --json an object a line. WAITERS are
the requests behind a lock or a request, BLOCKED-BY the first that a request waits for, +N for N more. It shows what the caller could stat;
command lines go to the owner and root. If reading takes long, the pauses are longer, too.`,
		Example: `  lockfs top
  lockfs top --sort waiters --filter nightly /locks/db
  lockfs top --once --json | jq '.locks[] | select(.state == "waiting")'`,
		Annotations: map[string]string{"exit": `  0   ended by q, or N rounds were printed
  64  wrong usage, or several mounts and no PATH
  66  PATH cannot be opened
  69  PATH is not in a lockfs mount, or its daemon is gone`},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exit.Usagef("top", "%q is one argument too many", args[1])
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&sort, "sort", sortKeys[0].name, "sort by `KEY`: age, waiters, path or mode")
	cmd.Flags().StringVar(&filter, "filter", "", "show only rows that have `TEXT`")
	cmd.Flags().IntVarP(&rounds, "rounds", "n", 0, "print `N` rounds and end (default: for ever)")
	cmd.Flags().BoolVar(&once, "once", false, "print one round, as -n 1")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON for programs, one object a round")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key := slices.IndexFunc(sortKeys, func(k sortKey) bool { return k.name == sort })
		switch {
		case key < 0:
			return exit.Usagef("top", "--sort %q: want age, waiters, path or mode", sort)
		case cmd.Flags().Changed("rounds") && (rounds < 1 || once):
			return exit.Usagef("top", "-n %d: want at least 1, and not with --once", rounds)
		case once:
			rounds = 1
		}
		w, err := newWatch(args, selection{key: key, filter: filter})
		if err != nil {
			return err
		}
		if in, out, ok := isTerminal(cmd.InOrStdin(), cmd.OutOrStdout()); ok && rounds == 0 && !asJSON {
			return w.show(&terminal{in: in, out: out})
		}
		return w.print(cmd.OutOrStdout(), rounds, asJSON)
	}
	return cmd
}

// watch is what is looked at, and how.
type watch struct {
	mount client.Mount
	path  string // in the tree
	asked string // as the user gave it
	selection
}

func newWatch(args []string, s selection) (*watch, error) {
	w := &watch{selection: s}
	if len(args) > 0 {
		w.asked = args[0]
	}
	var err error
	if w.mount, w.path, err = client.Find("top", w.asked); err != nil {
		return nil, err
	}
	if err := w.mount.Stat(w.path); err != nil {
		return nil, exit.Of("top", w.asked, err)
	}
	return w, nil
}

func (w *watch) read() (round, error) {
	r, err := read(w.mount, w.path)
	if err != nil {
		return r, exit.Of("top", w.mount.Point, err)
	}
	return r, nil
}

// period is from one round to the next.
const period = time.Second

// pause is how long to wait after a round: whatever is there, this takes no more than a quarter of the time.
func pause(took time.Duration) time.Duration { return max(period-took, 3*took) }

// print prints so many rounds, 0: without end.
func (w *watch) print(to io.Writer, rounds int, asJSON bool) error {
	for n := 1; ; n++ {
		r, err := w.read()
		if err != nil {
			return err
		}
		rows := w.of(r.rows)
		if asJSON {
			enc := json.NewEncoder(to)
			enc.SetEscapeHTML(false)
			err = enc.Encode(r.object(rows))
		} else {
			text := r.summary() + "\n" + strings.Join(table(rows, r.time, 0), "\n") + "\n"
			if n != rounds {
				text += "\n"
			}
			_, err = fmt.Fprint(to, text)
		}
		if err != nil || n == rounds {
			return err
		}
		time.Sleep(pause(r.took))
	}
}
