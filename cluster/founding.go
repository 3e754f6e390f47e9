package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// newIdentity is that of a new directory: of a cluster of one, or of a host that waits.
func (c Config) newIdentity() Identity {
	id := Identity{Format: FormatVersion, Host: newID(), Name: c.name(""), Created: time.Now().UTC()}
	switch {
	case c.joins != "":
		id.Cluster, id.Joined = c.joins, true
	case len(c.Join) == 0:
		id.Cluster = newID()
	}
	return id
}

// foundCluster writes the first entry of a new cluster, whose only voter is this host. A crash before it was noted that this
// was done leaves the term, or the term and the entry. The cluster's id was on disk before, so it is the same again.
func (n *Node) foundCluster(trans raft.Transport, config *raft.Config) error {
	if id := n.Identity(); id.stage() != founding {
		return nil
	}
	if last, err := n.journal.LastIndex(); err != nil {
		return err
	} else if last == 0 {
		if err := n.store.SetUint64([]byte(keyCurrentTerm), 0); err != nil {
			return err
		}
		if err := raft.BootstrapCluster(config, n.journal, n.store, n.snaps, trans, alone(config.LocalID, trans)); err != nil {
			return fmt.Errorf("found the cluster: %w", err)
		}
	}
	return n.become(func(id *Identity) { id.Founded = true })
}

// alone is the configuration of a cluster of one.
func alone(id raft.ServerID, trans raft.Transport) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{ID: id, Address: trans.LocalAddr()}}}
}

// foundNow makes this host, which waits to be admitted, found a cluster. A crash on the way is gone on from at the next start.
func (n *Node) foundNow() error {
	if err := n.become(func(id *Identity) { id.Cluster = newID() }); err != nil {
		return err
	}
	if err := n.raft.BootstrapCluster(alone(raft.ServerID(n.id()), n.trans)).Error(); err != nil {
		return fmt.Errorf("found the cluster: %w", err)
	}
	if err := n.become(func(id *Identity) { id.Founded = true }); err != nil {
		return err
	}
	n.tell()
	return n.hurry()
}

// RequestInit makes the daemon that runs on a data directory and waits to be admitted found a cluster. It returns when that
// is done, or says why not.
func RequestInit(dir string) error {
	if err := requestInit(dir); err != nil {
		return fmt.Errorf("lockfs: found a cluster with the data directory %s: %w", dir, err)
	}
	return nil
}

// initPatience is how long a daemon that waits may take to found a cluster.
const initPatience = 10 * time.Second

func requestInit(dir string) error {
	path, answer := filepath.Join(dir, initName), filepath.Join(dir, initAnswerName)
	if _, err := os.Stat(filepath.Join(dir, storeName)); err != nil {
		return fmt.Errorf("no daemon was ever started there: %w", err)
	}
	lock, err := lockDir(dir)
	switch {
	case err == nil:
		return errors.Join(errors.New("no daemon is running there; start it with --join first"), lock.drop())
	case !errors.Is(err, ErrInUse):
		return err
	}
	if err := os.Remove(answer); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	h, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	h.Close()
	for end := time.Now().Add(initPatience); time.Now().Before(end); time.Sleep(initEvery / 4) {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return initAnswer(answer)
		}
	}
	os.Remove(path)
	return errors.New("its daemon does not wait to be admitted: it belongs to a cluster already, or has yet to start")
}

// initAnswer reads what the daemon said; nothing is yes.
func initAnswer(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	os.Remove(path)
	return errors.New(string(b))
}

// initEvery is how often a host that waits looks for the request.
const initEvery = 200 * time.Millisecond

// initRequested founds a cluster if that was asked for with RequestInit, and answers.
func (n *Node) initRequested() (founded bool) {
	path := filepath.Join(n.config.Dir, initName)
	if _, err := os.Lstat(path); err != nil {
		return false
	}
	err := n.mayFound()
	if err == nil {
		n.log.Info("founding a cluster, as lockfs init asks")
		err = n.foundNow()
	}
	if err != nil {
		n.log.Warn("no cluster is founded", "err", err)
		if err := os.WriteFile(filepath.Join(n.config.Dir, initAnswerName), []byte(err.Error()), 0o600); err != nil {
			n.log.Warn("lockfs init cannot be told so", "err", err)
		}
	}
	if err := errors.Join(os.Remove(path), syncDir(n.config.Dir)); err != nil {
		n.log.Warn("the request of lockfs init cannot be removed", "err", err)
	}
	return err == nil
}

// mayFound says why no cluster should be founded here: there is one, which this host will be admitted to.
func (n *Node) mayFound() error {
	for _, m := range n.heard() {
		if m.Cluster != "" {
			return fmt.Errorf("there is a cluster already: host %s at %s belongs to it; this host is about to be admitted to it, or its log "+
				"says what is in the way", printable(m.Name), printable(m.Address))
		}
	}
	return nil
}

// clearInit removes a request that is of no use to a member.
func clearInit(dir string) error {
	for _, name := range []string{initName, initAnswerName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
