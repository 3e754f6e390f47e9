package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
)

func events() *cobra.Command {
	var (
		follow bool
		count  int
		wait   float64
	)
	cmd := &cobra.Command{
		Use:   "events [-f] [-n COUNT] [-w SECONDS] [PATH]",
		Short: "show what happens to a resource, or below a directory",
		Long: `events prints the notices of PATH, one a line, from now on; of a directory those of everything below it, without PATH
those of the whole tree and of the hosts. It ends after the first, after COUNT of them, or with -f not at all. What processes of other
hosts do is shown as here, in the order of the log, from a moment after the start on; nothing of what you could not stat.

Kinds: granted blocking converted released deadlock lost value invalid created removed renamed jeopardy safe leader
host-joined host-left, and overflow n=… where notices were lost: they were not read in time, or, without n, nobody knows how
many, since this host lost its session or its place in the log.`,
		Example: `  lockfs events -f /locks/db
  lockfs events -n 1 -w 60 /locks/orders | grep -q '^value'`,
		Args: arguments(0, 1, "PATH"),
		Annotations: exits("0   as many as asked for were shown", "1   SECONDS went by without a further one", "64  wrong usage",
			"66  PATH cannot be opened", "69  PATH is not in a lockfs mount, or its daemon is gone"),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	cmd.Flags().IntVarP(&count, "count", "n", 1, "end after `COUNT` notices")
	cmd.Flags().Float64VarP(&wait, "wait", "w", 0, "end when `SECONDS` go by without one (default: wait for ever)")
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if count < 1 || wait < 0 {
			return exit.Usagef("events", "-n %d -w %v: COUNT is at least 1, SECONDS at least 0", count, wait)
		}
		if follow {
			if cmd.Flags().Changed("count") {
				return exit.Usagef("events", "-f and -n exclude each other")
			}
			count = -1
		}
		s, err := openStream(first(args))
		if err != nil {
			return err
		}
		defer s.close()
		s.limit = -1
		if cmd.Flags().Changed("wait") {
			s.limit = time.Duration(wait * float64(time.Second))
		}
		for ; count != 0; count-- {
			line, err := s.next()
			if err != nil {
				return err
			}
			if *asJSON {
				err = printJSON(cmd.OutOrStdout(), noticeObject(line))
			} else {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// stream reads lines of NAME@events.
type stream struct {
	name  string
	fd    int
	limit time.Duration // for each line; negative: for ever
	have  []byte
}

// openStream opens the notices of a path, without one those of the whole tree.
func openStream(path string) (*stream, error) {
	m, rel, err := client.Find("events", path)
	if err != nil {
		return nil, err
	}
	name := m.Control("events")
	if rel != "" {
		target := m.Below(rel)
		if _, err := os.Lstat(target); err != nil {
			return nil, exit.Of("events", path, err)
		}
		name = target + "@events"
	}
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, exit.Of("events", name, err)
	}
	return &stream{name: name, fd: fd}, nil
}

func (s *stream) close() { unix.Close(s.fd) }

// next returns the next line, without its newline.
func (s *stream) next() (string, error) {
	buffer := make([]byte, 64<<10)
	for {
		if line, rest, found := bytes.Cut(s.have, []byte{'\n'}); found {
			s.have = rest
			return string(line), nil
		}
		n, err := unix.Read(s.fd, buffer)
		switch {
		case n > 0:
			s.have = append(s.have, buffer[:n]...)
			continue
		case err == nil:
			return "", exit.Of("events", s.name, io.ErrUnexpectedEOF)
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return "", exit.Of("events", s.name, err)
		}
		if err := s.wait(); err != nil {
			return "", err
		}
	}
}

func (s *stream) wait() error {
	millis := -1
	if s.limit >= 0 {
		millis = int(s.limit.Milliseconds())
	}
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, millis)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return exit.Of("events", s.name, err)
	case n == 0:
		return exit.Status(exit.Busy)
	}
	return nil
}
