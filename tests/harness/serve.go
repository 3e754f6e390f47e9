package harness

import (
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

// serve is the daemon: one host over a log in memory, and its mounts. It returns the exit code.
func serve(mounts []string) int {
	level := slog.LevelInfo
	if os.Getenv("LOCKFS_TEST_DEBUG") != "" {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := run(mounts, logger); err != nil {
		logger.Error("the daemon ends", "error", err)
		return 1
	}
	return 0
}

func run(mounts []string, logger *slog.Logger) error {
	stop, cut := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(cut, syscall.SIGUSR1, syscall.SIGUSR2)
	log := lockdtest.New()
	defer log.Close()
	member := log.Member()
	host := lockd.New(lockd.Config{
		Name: "test", Log: member, Logger: logger, SessionTTL: sessionTTL(), OpTimeout: opTimeout,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
	})
	member.Attach(host)
	shared := fs.NewShared(host)
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	if err := host.Start(ctx); err != nil {
		return err
	}
	session := host.Session()
	var mounted []*fs.Mounted
	defer func() {
		for _, m := range mounted {
			m.Close()
		}
		host.Close()
	}()
	for _, arg := range mounts {
		name, point, _ := strings.Cut(arg, ":")
		view, ok := fs.ParseView(name)
		if !ok {
			return fmt.Errorf("no view %q", name)
		}
		m, err := fs.Mount(fs.MountOptions{
			Options:    seams(fs.Options{Host: host, View: view, Shared: shared, Logger: logger}),
			MountPoint: point,
			AllowOther: true,
		})
		if err != nil {
			return err
		}
		mounted = append(mounted, m)
	}
	fmt.Println("ready")
	for {
		select {
		case <-stop:
			return nil
		case sig := <-cut:
			member.SetCut(sig == syscall.SIGUSR1)
			member.SetDeaf(sig == syscall.SIGUSR1)
			if sig == syscall.SIGUSR2 { // as the leader of a cluster does, which heard nothing of this host
				log.EndSession(session)
			}
			session = host.Session()
			logger.Info("the log is cut or healed", "signal", sig, "session", session)
		}
	}
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
