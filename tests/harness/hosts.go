package harness

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// ttlEnv is the session's time to live in a daemon of this binary.
const ttlEnv = "LOCKFS_TEST_TTL"

// StartShort is Start for a daemon whose session lives only for ttl, and whose log can be cut.
func StartShort(t testing.TB, ttl time.Duration, views ...string) *Daemon {
	t.Helper()
	return StartHosts(t, 1, ttl, views...)[0]
}

// StartHosts starts one process that serves several hosts of one cluster, over one log in memory, with mounts of their own.
// The log ends the session of a host of which it hears nothing for ttl.
func StartHosts(t testing.TB, n int, ttl time.Duration, views ...string) []*Daemon {
	t.Helper()
	if os.Getenv(binaryEnv) != "" {
		t.Skip("needs a log that can be cut")
	}
	t.Setenv(ttlEnv, ttl.String())
	d := Prepare(t, Options{Views: views})
	for i := 2; i <= n; i++ {
		p := &Daemon{Dir: d.Dir, t: t, o: d.o, host: i, log: d.log}
		p.makeMounts(fmt.Sprint(i))
		d.peers = append(d.peers, p)
	}
	d.Start()
	for _, p := range d.peers {
		p.cmd, p.in, p.did, p.done = d.cmd, d.in, d.did, d.done
	}
	return append([]*Daemon{d}, d.peers...)
}

// Cut cuts the host off from its log: nothing is committed or applied any more.
func (d *Daemon) Cut() { d.tell("cut") }

// Heal ends a Cut.
func (d *Daemon) Heal() { d.tell("heal") }

// Deafen holds back what comes from the log; what goes there gets there.
func (d *Daemon) Deafen() { d.tell("deafen") }

// Restore ends a Deafen: the host gets a snapshot of the state in place of all that was held back.
func (d *Daemon) Restore() { d.tell("restore") }

// tell has something done to the host's way to the log.
func (d *Daemon) tell(what string) {
	d.t.Helper()
	fmt.Fprintln(d.in, what, d.host)
	select {
	case <-d.did:
	case <-d.done:
		d.t.Fatalf("the daemon has ended before it did: %s", what)
	case <-time.After(commandTime):
		d.hung(what)
	}
}
