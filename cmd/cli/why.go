package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
)

func why() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why PATH",
		Short: "say what a lock is waiting for",
		Long: `why says who holds PATH, who waits for it and what holds each of them up: the resource's own locks, those of the
directories above it, and for a directory those below. Where who is in the way waits himself, it says for what, and so on
to the end of the chain.`,
		Example: `  lockfs why /locks/db/orders`,
		Args:    arguments(1, 1, "PATH"),
		Annotations: exits("0   somebody holds it or waits for it", "1   nobody does", "66  PATH cannot be opened",
			"69  PATH is not in a lockfs mount, or its daemon is gone"),
	}
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := reasons(args[0])
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), r)
		} else {
			err = r.print(cmd.OutOrStdout(), time.Now())
		}
		if err == nil && len(r.Held)+len(r.Waiting)+len(r.Above)+len(r.Below) == 0 {
			err = exit.Status(exit.Busy)
		}
		return err
	}
	return cmd
}

// reason is all that can hold up a request for one resource.
type reason struct {
	Path    string        `json:"path"`
	Held    []client.Lock `json:"held"`
	Waiting []client.Lock `json:"waiting"`
	Above   []client.Lock `json:"above"` // held on directories above it
	Below   []client.Lock `json:"below"` // held below it, if it is a directory

	all []client.Lock // that wait, anywhere
}

func reasons(path string) (r reason, err error) {
	m, rel, err := client.Find("why", path)
	if err != nil {
		return r, err
	}
	stat, err := os.Stat(m.Below(rel))
	if err != nil {
		return r, exit.Of("why", path, err)
	}
	dir := stat.IsDir()
	if filepath.Base(rel) == ".lock" {
		rel, dir = strings.TrimPrefix(filepath.Dir("/"+rel), "/"), true
	}
	r = reason{Path: "/" + rel, Above: []client.Lock{}, Below: []client.Lock{}}
	own := rel
	if dir {
		own = filepath.Join(rel, ".lock")
		if r.Below, err = m.Held(rel); err != nil {
			return r, exit.Of("why", path, err)
		}
		r.Below = without(r.Below, "/"+own)
	}
	if r.Held, err = m.HeldHere(own); err != nil {
		return r, exit.Of("why", path, err)
	}
	if r.Waiting, err = m.WaitingHere(own); err != nil {
		return r, exit.Of("why", path, err)
	}
	if r.all, err = m.Waiting(""); err != nil {
		return r, exit.Of("why", path, err)
	}
	for up := rel; up != ""; {
		up = strings.TrimPrefix(filepath.Dir("/"+up), "/")
		above, err := m.HeldHere(filepath.Join(up, ".lock"))
		if err != nil {
			return r, exit.Of("why", path, err)
		}
		r.Above = append(r.Above, above...)
	}
	return r, nil
}

// without leaves out the locks of one resource.
func without(locks []client.Lock, path string) []client.Lock {
	rest := []client.Lock{}
	for _, l := range locks {
		if l.Path != path {
			rest = append(rest, l)
		}
	}
	return rest
}

func (r reason) print(w io.Writer, now time.Time) error {
	b := &strings.Builder{}
	path := client.Printable(r.Path)
	for _, l := range r.Held {
		fmt.Fprintf(b, "%s is held %s by %s%s\n", path, l.Asks(), describe(l), since(now, l))
	}
	for _, l := range r.Waiting {
		fmt.Fprintf(b, "%s is awaited %s by %s%s\n", path, l.Asks(), describe(l), since(now, l))
		r.chain(b, now, l, 1, map[string]bool{waitName(l): true})
	}
	for _, l := range r.Above {
		fmt.Fprintf(b, "%s above it is held %s by %s%s\n", client.Printable(l.Path), l.Asks(), describe(l), since(now, l))
	}
	for _, l := range r.Below {
		fmt.Fprintf(b, "%s below it is held %s by %s%s\n", client.Printable(l.Path), l.Asks(), describe(l), since(now, l))
	}
	if b.Len() == 0 {
		fmt.Fprintf(b, "%s is free\n", path)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxChain bounds how far a chain is followed.
const maxChain = 32

// chain says what holds a request up and, where that waits itself, for what, level by level.
func (r reason) chain(b *strings.Builder, now time.Time, l client.Lock, level int, seen map[string]bool) {
	indent := strings.Repeat("    ", level)
	for _, by := range l.BlockedBy() {
		fmt.Fprintf(b, "%sheld up by %s\n", indent, client.Printable(by))
		who, _, _ := strings.Cut(by, "/")
		for _, next := range r.all {
			if !waitsFor(next, who) || level >= maxChain {
				continue
			}
			fmt.Fprintf(b, "%s    %s waits for %s %s%s\n", indent, next.Who(), client.Printable(next.Path), next.Asks(), since(now, next))
			if name := waitName(next); !seen[name] {
				seen[name] = true
				r.chain(b, now, next, level+2, seen)
			}
		}
	}
}

// waitsFor reports whether a request is of a process, or of one that inherited its locks.
func waitsFor(l client.Lock, who string) bool {
	if l.Who() == who {
		return true
	}
	for _, from := range strings.Split(l.Fields.Get("inherits"), ",") {
		if name, _, _ := strings.Cut(from, "/"); name == who {
			return true
		}
	}
	return false
}

// waitName tells requests apart.
func waitName(l client.Lock) string { return fmt.Sprint(l.Path, " ", l.Place, " ", l.Who()) }

// describe names a lock's process.
func describe(l client.Lock) string {
	who := l.Who() + " (" + l.User()
	if c := l.Command(); c != "-" {
		who += ", " + c
	}
	return who + ")"
}

func since(now time.Time, l client.Lock) string {
	if l.Since.IsZero() {
		return ""
	}
	return " for " + client.Age(now, l.Since)
}
