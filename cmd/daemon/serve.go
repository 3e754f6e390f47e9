package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cluster"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/cmd/metrics"
	"github.com/lockfs/lockfs/cmd/web"
	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// daemon is what runs between the settings and the signals.
type daemon struct {
	o      *Options
	log    *slog.Logger
	node   *cluster.Node
	host   *lockd.Host
	mounts []*fs.Mounted

	figures *prometheus.Registry
	web     *web.Server // nil: without --http
	asked   atomic.Pointer[asked]

	leavers  chan *leaver
	recorded []cluster.Mount  // of this run
	expires  func() time.Time // when this host's certificate does; nil: it has none
}

// serve runs a daemon until it is told to end.
func serve(o *Options, out, logTo io.Writer) error {
	d := &daemon{o: o, log: newLogger(o, logTo), leavers: make(chan *leaver)}
	d.figures = metrics.NewRegistry(d.sources)
	slog.SetDefault(d.log)
	if err := calm(); err != nil {
		d.log.Debug("Go's monitor thread wakes up as often as ever", "err", err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	defer signal.Stop(signals)

	starting, cancel := context.WithCancel(context.Background())
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- d.start(starting) }()
	select {
	case err := <-started:
		if err != nil {
			return errors.Join(err, d.stop(closedChannel))
		}
	case sig := <-signals:
		d.log.Info("told to end before it was ready", "signal", sig)
		cancel()
		<-started
		return d.stop(closedChannel)
	}
	fmt.Fprintln(out, "ready")
	d.tell("READY=1\nSTATUS=serving")
	d.log.Info("ready", "host", d.host.Name(), "data", o.DataDir, "mounts", len(d.mounts))

	var cause error
	var leaver *leaver
	select {
	case sig := <-signals:
		d.log.Info("ending: holders have time to let go, a second signal does not wait for them", "signal", sig, "drain", o.Drain)
	case leaver = <-d.leavers:
		d.log.Info("leaving the cluster: holders have time to let go, a signal does not wait for them", "drain", o.Drain)
	case <-d.node.Failed():
		cause = clusterError(d.node.Err(), exit.Software)
	case <-d.unmounted():
		d.log.Info("ending: all mounts are gone")
	}
	d.tell("STOPPING=1\nSTATUS=draining")
	hurry := make(chan struct{})
	if cause != nil {
		close(hurry)
	} else {
		go func() {
			<-signals
			close(hurry)
		}()
	}
	if leaver != nil {
		cause = d.leave(leaver, hurry)
	}
	return errors.Join(cause, d.stop(hurry))
}

var closedChannel = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func newLogger(o *Options, to io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: o.LogLevel}
	if o.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(to, options))
	}
	return slog.New(slog.NewTextHandler(to, options))
}

// tell tells the service manager. That it cannot be told is no reason to end.
func (d *daemon) tell(state string) {
	if err := notify(state); err != nil {
		d.log.Warn("the service manager cannot be told", "err", err)
	}
}

// start brings everything up, from the log to the mounts. What is up when it fails is for stop to take down.
func (d *daemon) start(ctx context.Context) (err error) {
	o := d.o
	if err := d.listen(); err != nil {
		return err
	}
	if err := d.open(); err != nil {
		return err
	}
	gone, why := d.node.FormerGone()
	d.log.Debug("former run of this host", "ends now", gone, "why", why)
	d.host = lockd.New(lockd.Config{
		Name: d.node.Name(), Log: d.node, Version: Version, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), FormerGone: gone,
		SessionTTL: o.SessionTTL, OpTimeout: o.OpTimeout, DeadlockWait: o.deadlockWait(),
		Limits: lockd.Limits{Locks: o.MaxLocks, Waiters: o.MaxWaiters}, Logger: d.log,
	})
	shared := fs.NewShared(d.host)
	if err := d.node.Start(d.host); err != nil {
		return err
	}
	d.show(false)
	if err := d.await(ctx); err != nil {
		return err
	}
	if err := d.host.Start(ctx); err != nil {
		return err
	}
	if err := d.setLimits(); err != nil {
		return err
	}
	for _, m := range o.Mounts {
		if err := d.mount(shared, m); err != nil {
			return err
		}
	}
	d.show(true)
	return nil
}

// mountError gives the exit code of what kept a mount point from being mounted.
func mountError(dir string, err error) error {
	e := &exit.Error{Op: "mount", Path: dir, What: strings.TrimPrefix(err.Error(), "mount "+dir+": "), Code: exit.OS}
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		e.Code = exit.NoInput
	}
	return e
}

// deadlockWait gives lockd its word for never.
func (o *Options) deadlockWait() time.Duration {
	if o.DeadlockWait == 0 {
		return -1
	}
	return o.DeadlockWait
}

// setLimits gives the cluster the limits that were asked for; the others stay as they are.
func (d *daemon) setLimits() error {
	if d.o.limits == nil {
		return nil
	}
	_, err := d.host.Do(nil, &statepb.Command{Op: &statepb.Command_SetLimits{SetLimits: d.o.limits}})
	if err != nil {
		return fmt.Errorf("set the cluster's limits: %w", err)
	}
	return nil
}

// mount serves one mount point. Its mount is on record before anybody can open anything in it.
func (d *daemon) mount(shared *fs.Shared, m MountPoint) error {
	mounted, err := fs.Mount(fs.MountOptions{
		Options: fs.Options{
			Host: d.host, View: m.View, Shared: shared, Logger: d.log,
			Facts: d.facts, Hosts: d.hosts, Snapshot: d.node.SaveSnapshot, Control: d.control,
			Metrics: d.writeFigures,
		},
		MountPoint: m.Dir,
		AllowOther: true,
		Mounted:    d.remember,
	})
	if err != nil {
		return mountError(m.Dir, err)
	}
	d.mounts = append(d.mounts, mounted)
	return nil
}

// writeFigures is .lockfs/metrics.
func (d *daemon) writeFigures(w io.Writer) error { return metrics.Write(w, d.figures) }

// remember puts a mount on record, for the next run to know whether somebody may still be working in it.
func (d *daemon) remember(mountPoint string, others bool) error {
	m, err := cluster.MountOf(mountPoint)
	if err != nil {
		return err
	}
	m.Others = others
	d.recorded = append(d.recorded, m)
	return d.node.Remember(d.recorded)
}

// unmounted is closed when the last mount was taken away by somebody else.
func (d *daemon) unmounted() <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		for _, m := range d.mounts {
			<-m.Done()
			if err := m.Err(); err != nil {
				d.log.Error("a mount ended", "mountpoint", m.MountPoint(), "err", err)
			}
		}
		close(gone)
	}()
	return gone
}

// stop takes everything down, in the opposite order: new requests are refused, holders have time until hurry is
// closed, the mounts go, the session ends, the log is closed.
func (d *daemon) stop(hurry <-chan struct{}) error {
	var errs []error
	if d.host != nil {
		d.drain(hurry)
	}
	var closing sync.WaitGroup
	results := make([]error, len(d.mounts))
	for i, m := range d.mounts {
		closing.Go(func() { results[i] = m.Close() })
	}
	closing.Wait()
	errs = append(errs, results...)
	if d.host != nil {
		err := d.host.Close()
		if errors.Is(err, lockd.ErrNoQuorum) { // as when all hosts are shut down together
			d.log.Warn("no majority of the cluster answers: this host's session ends by itself", "ttl", d.o.SessionTTL)
			err = nil
		}
		errs = append(errs, err)
	}
	if d.web != nil {
		errs = append(errs, d.web.Close())
	}
	if d.node != nil {
		errs = append(errs, d.node.Close())
	}
	return errors.Join(errs...)
}

// drain refuses new requests and gives holders the time to let go, until hurry is closed.
func (d *daemon) drain(hurry <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), d.o.Drain)
	defer cancel()
	go func() {
		select {
		case <-hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	d.host.Drain(ctx)
}
