package harness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
)

// serve is the daemon: hosts over one log in memory, and their mounts, the hosts separated by semicolons. It returns the
// exit code.
func serve(hosts []string) int {
	level := slog.LevelInfo
	if os.Getenv("LOCKFS_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := run(hosts, logger); err != nil {
		logger.Error("the daemon ends", "error", err)
		return 1
	}
	return 0
}

func run(hosts []string, logger *slog.Logger) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	log := lockdtest.New()
	defer log.Close()
	log.Lead()
	served := make([]*served, 0, len(hosts))
	defer func() {
		for _, s := range served {
			s.close()
		}
	}()
	for i, mounts := range hosts {
		name := fmt.Sprintf("host%d", i+1)
		s, err := serveHost(log, name, logger.With("host", name), strings.Split(mounts, ","))
		if s != nil {
			served = append(served, s)
		}
		if err != nil {
			return err
		}
	}
	fmt.Println("ready")
	commands := make(chan string)
	go func() {
		defer close(commands)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			commands <- in.Text()
		}
	}()
	for {
		select {
		case <-stop:
			return nil
		case command, ok := <-commands:
			if !ok {
				return nil // the test is gone
			}
			var what string
			var at int
			if _, err := fmt.Sscan(command, &what, &at); err != nil || at < 1 || at > len(served) {
				return fmt.Errorf("command %q", command)
			}
			logger.Info("told to", "what", what, "host", at)
			served[at-1].tell(what)
			fmt.Println("did")
		}
	}
}

// served is a host and its mounts.
type served struct {
	member *lockdtest.Member
	host   *lockd.Host
	mounts []*fs.Mounted
}

func serveHost(log *lockdtest.Log, name string, logger *slog.Logger, mounts []string) (*served, error) {
	s := &served{member: log.Member()}
	s.host = lockd.New(lockd.Config{
		Name: name, Log: s.member, Logger: logger, SessionTTL: sessionTTL(), OpTimeout: opTimeout,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
	})
	s.member.Attach(s.host)
	shared := fs.NewShared(s.host)
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if err := s.host.Start(ctx); err != nil {
		return s, err
	}
	for _, arg := range mounts {
		name, point, _ := strings.Cut(arg, ":")
		view, ok := fs.ParseView(name)
		if !ok {
			return s, fmt.Errorf("no view %q", name)
		}
		m, err := fs.Mount(fs.MountOptions{
			Options:    seams(fs.Options{Host: s.host, View: view, Shared: shared, Logger: logger}),
			MountPoint: point,
			AllowOther: true,
		})
		if err != nil {
			return s, err
		}
		s.mounts = append(s.mounts, m)
	}
	return s, nil
}

// tell does something to the host's way to the log.
func (s *served) tell(what string) {
	switch what {
	case "cut", "heal":
		s.member.SetCut(what == "cut")
		s.member.SetDeaf(what == "cut")
	case "deafen":
		s.member.SetDeaf(true)
	case "restore":
		s.member.Restore()
	}
}

func (s *served) close() {
	for _, m := range s.mounts {
		m.Close()
	}
	s.host.Close()
}

// seams gives a mount what a cluster would: the sessions as its hosts, the state as a snapshot, and a command that
// says itself.
func seams(o fs.Options) fs.Options {
	o.Hosts = func() (hosts []fs.HostFacts) {
		for s := range o.Host.View().Sessions() {
			hosts = append(hosts, fs.HostFacts{Name: s.Host, Facts: []fs.Fact{{Key: "session", Value: strconv.FormatUint(s.ID, 10)}}})
		}
		return hosts
	}
	o.Snapshot = func(w io.Writer) error {
		_, err := o.Host.View().WriteTo(w)
		return err
	}
	o.Control = func(_ context.Context, line string) (string, error) { return "told " + line, nil }
	return o
}

// opTimeout ends an operation without quorum.
const opTimeout = 2 * time.Second

// sessionTTL is the session's time to live: the one that a test asked for, else the default.
func sessionTTL() time.Duration {
	d, _ := time.ParseDuration(os.Getenv(ttlEnv))
	return d
}
