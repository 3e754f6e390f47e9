package daemon

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/lockfs/lockfs/cluster"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/lockd/state"
)

// open opens this host's part in the cluster.
func (d *daemon) open() error {
	o := d.o
	source, gossipKey, err := d.secrets()
	if err != nil {
		return err
	}
	c := cluster.Config{
		Dir: o.DataDir, Name: o.Name, Bind: o.Bind, Advertise: o.Advertise, Gossip: o.Gossip, GossipKey: gossipKey,
		Join: o.Join, Voters: o.Voters, Reset: o.Reset, Version: Version,
		OpTimeout: o.OpTimeout, Logger: d.log,
	}
	if source != nil {
		c.TLS, d.expires = source.TLS(), source.Expires
	}
	if d.node, err = cluster.Open(c); err != nil {
		return clusterError(err, exit.NoInput)
	}
	return nil
}

// clusterError gives the exit code of what keeps this host from its part in the cluster, or the usual one. Its words are the
// cluster's own.
func clusterError(err error, usual int) error {
	e := &exit.Error{Op: "mount", What: strings.TrimPrefix(err.Error(), "lockfs: "), Code: usual, Err: err}
	switch {
	case errors.Is(err, cluster.ErrInUse):
		e.Code = exit.Unavailable
	case errors.Is(err, cluster.ErrDamaged):
		e.Code = exit.Lost
	case errors.Is(err, cluster.ErrRemoved), errors.Is(err, cluster.ErrRefused), errors.Is(err, state.ErrUnknown):
		e.Code = exit.Refused
	}
	return e
}

// patience is how long a host waits for the others before it says again that it does.
const patience = time.Minute

// await waits until this host is a member of a cluster that has a leader, and says so if that takes a while.
func (d *daemon) await(ctx context.Context) error {
	if d.node.Identity().Cluster == "" {
		d.tell("STATUS=waiting to be admitted to a cluster; lockfs init founds one")
		d.log.Info("waiting to be admitted to a cluster; if there is none yet, run `lockfs init` on one of its hosts, once",
			"name", d.node.Name(), "asking", strings.Join(d.o.Join, ","), "data", d.o.DataDir)
	}
	for wait := 5 * time.Second; ; wait = patience {
		round, cancel := context.WithTimeout(ctx, wait)
		err := d.node.Ready(round)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			if d.node.Err() != nil {
				err = clusterError(err, exit.Software)
			}
			return err
		}
		d.waiting()
	}
}

// waiting says what this host still waits for, and what to do.
func (d *daemon) waiting() {
	id, found := d.node.Identity(), strings.Join(d.node.Found(), ", ")
	switch {
	case id.Cluster != "":
		d.tell("STATUS=waiting for the leader of the cluster")
		d.log.Warn("no leader of the cluster answers: more than half of its voters must run and reach each other", "cluster", id.Cluster,
			"name", id.Name, "address", d.node.Status().Address, "found", found)
	case found == "":
		d.log.Warn("none of the hosts that --join names is found: do they run, do UDP and TCP reach them, have they the same "+
			"--gossip-key-file?", "asking", strings.Join(d.o.Join, ","))
	default:
		d.log.Info("still waiting to be admitted to a cluster: if there is none yet, run `lockfs init` on one of its hosts, once", "name", id.Name,
			"found", found, "data", d.o.DataDir)
	}
}
