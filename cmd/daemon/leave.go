package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// leaver is a command to leave the cluster.
type leaver struct {
	done chan struct{} // closed when it is over
	err  error         // to be looked at then
}

// control carries out a command of .lockfs/control:
//
//	leave                  this host leaves its cluster, and the daemon ends
//	remove NAME [force]    a dead host is taken out of it
func (d *daemon) control(ctx context.Context, line string) (string, error) {
	words := strings.Fields(line)
	switch {
	case len(words) == 1 && words[0] == "leave":
		return "", d.askToLeave(ctx)
	case len(words) == 2 && words[0] == "remove", len(words) == 3 && words[0] == "remove" && words[2] == "force":
		if words[1] == d.node.Name() {
			return "", errors.New("that is this host itself: it leaves by lockfs leave without a name")
		}
		err := d.node.RemoveHost(ctx, words[1], len(words) == 3)
		if err == nil {
			d.log.Info("a host was taken out of the cluster by command", "host", words[1], "force", len(words) == 3)
		}
		return "", trim(err)
	}
	return "", fmt.Errorf("no such command; there are: leave, remove NAME [force]")
}

// trim takes off what lockfs's own errors begin with.
func trim(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimPrefix(err.Error(), "lockfs: "))
}

// askToLeave hands the command to serve and waits for what comes of it. What can be known to be in vain is not begun.
func (d *daemon) askToLeave(ctx context.Context) error {
	others, leader := 0, false
	for _, h := range d.node.Hosts() {
		if leader = leader || h.Role == "leader"; h.ID != d.node.Identity().Host {
			others++
		}
	}
	switch {
	case others == 0:
		return fmt.Errorf("this host is all of its cluster, and nobody would have its state; stop the daemon, and remove %s if it is no longer wanted",
			d.o.DataDir)
	case !leader:
		return errors.New("the cluster has no leader now; try again when more than half of its voters run")
	}
	l := &leaver{done: make(chan struct{})}
	select {
	case d.leavers <- l:
	case <-ctx.Done():
		return errors.New("the daemon is ending already")
	}
	select {
	case <-l.done:
		return trim(l.err)
	case <-ctx.Done():
		return errors.New("it is still under way: the daemon's log says what comes of it")
	}
}

// leaveTime bounds how long the others may take to let this host go.
const leaveTime = 30 * time.Second

// leave takes this host out of its cluster: holders have time until hurry is closed, its session ends, then it is a member no
// more. The mounts stay until the command has its answer.
func (d *daemon) leave(l *leaver, hurry <-chan struct{}) error {
	d.drain(hurry)
	err := d.host.Close()
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
		err = d.node.Leave(ctx)
		cancel()
	}
	if err != nil {
		err = fmt.Errorf("this host could not leave and is still a member; start it again: %w", err)
	} else {
		d.log.Info("this host left its cluster", "cluster", d.node.Identity().Cluster)
	}
	l.err = err
	close(l.done)
	d.unmount()
	return err
}

// answerTime is how long a command has to read its answer, after which the mounts end under it.
const answerTime = 5 * time.Second

// unmount takes the mount points away and gives those who read an answer the time to.
func (d *daemon) unmount() {
	for _, m := range d.mounts {
		if err := m.Unmount(); err != nil {
			d.log.Warn("a mount cannot be taken away", "err", err)
		}
	}
	select {
	case <-d.unmounted():
	case <-time.After(answerTime):
	}
}
