package daemon

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/cmd/metrics"
	"github.com/lockfs/lockfs/cmd/web"
)

// listen takes the address of --http before anything else is started: a port that is not free is an error at once.
func (d *daemon) listen() error {
	if d.o.HTTP == "" {
		return nil
	}
	l, err := net.Listen("tcp", d.o.HTTP)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return &exit.Error{Op: "mount", Path: "--http " + d.o.HTTP, What: err.Error(), Do: "name a free port of an address of this host",
			Code: exit.NoInput}
	}
	d.log.Info("HTTP", "address", l.Addr().String())
	d.web = web.Serve(l, d, d.figures, d.log)
	return nil
}

// asked is what can be asked of the daemon by now.
type asked struct {
	metrics.Sources
	mounted bool // all mounts are there
}

// show makes known what can be asked by now. Called by the goroutine that starts the daemon.
func (d *daemon) show(mounted bool) {
	d.asked.Store(&asked{metrics.Sources{Version: Version, Host: d.host, Node: d.node, Mounts: d.mounts, Expires: d.expires}, mounted})
}

// sources are what the figures are gathered from.
func (d *daemon) sources() *metrics.Sources {
	if a := d.asked.Load(); a != nil {
		return &a.Sources
	}
	return nil
}

// silence is how long a part of the daemon may leave the ticker without an answer.
const silence = 5 * time.Second

// Healthy returns nil while the FUSE loops answer and the log can go on. A daemon that waits for its cluster is healthy.
func (d *daemon) Healthy() error {
	a := d.asked.Load()
	if a == nil {
		return nil
	}
	if err := a.Node.Err(); err != nil {
		return err
	}
	if silent := a.Host.Silent(); silent > silence {
		return fmt.Errorf("a mount has not answered for %v", silent.Round(time.Second))
	}
	return nil
}

// Ready returns nil while locks can be had here.
func (d *daemon) Ready() error {
	a := d.asked.Load()
	if err := d.Healthy(); err != nil {
		return err
	}
	if a == nil {
		return errors.New("starting")
	}
	switch s := a.Host.Status(); {
	case s.Draining:
		return errors.New("draining")
	case s.Session == 0:
		return errors.New("no session: the cluster does not answer, or has not admitted this host yet")
	case s.Jeopardy:
		return errors.New("in jeopardy: the session was not renewed for half of its time")
	case s.Leader == "":
		return errors.New("the cluster has no leader now")
	case !a.mounted:
		return errors.New("mounting")
	}
	for _, m := range a.Mounts {
		select {
		case <-m.Done():
			return fmt.Errorf("the mount at %s is gone", m.MountPoint())
		default:
		}
	}
	return nil
}
