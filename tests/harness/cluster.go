package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Cluster is several daemons of the program, each with a data directory, mounts and an address of its own on loopback or,
// with a network, in a namespace of its own. The hosts are named a, b, c and so on; a founds the cluster.
type Cluster struct {
	Hosts []*Daemon
	Net   *Network // nil: all on loopback

	t testing.TB
	o ClusterOptions
}

// ClusterOptions are what the hosts are started with.
type ClusterOptions struct {
	Hosts   int           // 0: three
	Voters  int           // how many of them are to be voters; 0: all, as is the default
	TTL     time.Duration // of the sessions; 0: 3 s
	Network bool          // with namespaces and links
	Views   []string      // default: lock
	Joins   bool          // a has --join too, so that nobody founds before `lockfs init`

	// Args are more flags of a host. nil: none, but --insecure with a network.
	Args func(host int, address string) []string
}

// tcpPort and gossipPort are those of every host.
const (
	tcpPort    = 7420
	gossipPort = 7421
)

// settleTime bounds how long a cluster may take to form, to elect or to take a host back.
const settleTime = 60 * time.Second

// freshNet is the beginning of loopback addresses that this process has not used yet, and others hardly use.
func freshNet() string { return fmt.Sprintf("127.%d.%d", 64+os.Getpid()%128, nets.Add(1)) }

var nets atomic.Int32

// PrepareCluster makes a cluster of which no host is started yet. At the end of the test all are killed.
func PrepareCluster(t testing.TB, o ClusterOptions) *Cluster {
	t.Helper()
	if o.Hosts == 0 {
		o.Hosts = 3
	}
	if o.TTL == 0 {
		o.TTL = 3 * time.Second
	}
	if o.Views == nil {
		o.Views = []string{"lock"}
	}
	c := &Cluster{t: t, o: o}
	if _, err := os.Stat("/dev/fuse"); err == nil && os.Geteuid() == 0 && o.Network {
		c.Net = NewNetwork(t, o.Hosts)
	}
	net := freshNet()
	address := func(i int) string {
		if o.Network {
			return c.Net.Address(i)
		}
		return fmt.Sprintf("%s.%d", net, i+1)
	}
	for i := range o.Hosts {
		d := Options{Views: o.Views, Bind: fmt.Sprintf("%s:%d", address(i), tcpPort)}
		d.Args = []string{"--name", name(i), "--gossip", fmt.Sprintf("%s:%d", address(i), gossipPort), "--session-ttl", o.TTL.String()}
		if i > 0 || o.Joins {
			var others []string
			for j := range o.Hosts {
				if j != i {
					others = append(others, fmt.Sprintf("%s:%d", address(j), gossipPort))
				}
			}
			d.Args = append(d.Args, "--join", strings.Join(others, ","))
		}
		if o.Voters != 0 {
			d.Args = append(d.Args, "--voters", strconv.Itoa(o.Voters))
		}
		if o.Args != nil {
			d.Args = append(d.Args, o.Args(i, address(i))...)
		} else if o.Network {
			d.Args = append(d.Args, "--insecure")
		}
		if o.Network {
			d.Prefix = c.Net.In(i)
		}
		c.Hosts = append(c.Hosts, Prepare(t, d))
	}
	t.Cleanup(c.kill)
	return c
}

// StartCluster starts a cluster and waits until it has the voters it is to have.
func StartCluster(t testing.TB, o ClusterOptions) *Cluster {
	t.Helper()
	c := PrepareCluster(t, o)
	for _, d := range c.Hosts {
		d.Launch()
	}
	for _, d := range c.Hosts {
		d.Ready(settleTime)
	}
	c.Settle()
	return c
}

func name(host int) string { return string(rune('a' + host)) }

// kill ends all hosts at once, those that were stopped too.
func (c *Cluster) kill() {
	for _, d := range c.Hosts {
		if d.cmd != nil && d.cmd.Process != nil {
			d.cmd.Process.Kill()
		}
	}
}

// Settle waits until every host that runs shows all that run as members, as many as are to be as voters, one of them the
// leader.
func (c *Cluster) Settle() {
	c.t.Helper()
	var running []*Daemon
	for _, d := range c.Hosts {
		if d.Running() {
			running = append(running, d)
		}
	}
	want := len(running)
	if c.o.Voters != 0 {
		want = min(want, c.o.Voters)
	}
	for _, d := range running {
		Until(c.t, settleTime, fmt.Sprintf("%d hosts, %d of them voters, one the leader", len(running), want), func() (string, bool) {
			shown := d.Run(c.t, `cd $M/.lockfs/hosts && grep -H . *`, 0).Out
			leaders, voters := strings.Count(shown, ":role=leader\n"), strings.Count(shown, ":role=voter\n")
			all := leaders + voters + strings.Count(shown, ":role=nonvoter\n")
			return d.Run(c.t, `cat $M/.lockfs/status`, 0).Out + shown, leaders == 1 && leaders+voters >= want && all >= len(running)
		})
	}
}

// Leader is the number of the host that all that run agree on as the leader; it waits for one.
func (c *Cluster) Leader() int {
	c.t.Helper()
	leader := -1
	Until(c.t, settleTime, "one leader that all know", func() (string, bool) {
		var shown strings.Builder
		leader = -1
		for i, d := range c.Hosts {
			if !d.Running() {
				continue
			}
			status := d.Status()
			fmt.Fprintf(&shown, "%s: role=%s leader=%s\n", name(i), status["role"], status["leader"])
			if status["role"] == "leader" {
				leader = i
			}
		}
		agreed := leader >= 0 && strings.Count(shown.String(), "leader="+name(leader)+"\n") == strings.Count(shown.String(), "\n")
		return shown.String(), agreed
	})
	return leader
}

// Others are the numbers of the hosts but one.
func (c *Cluster) Others(not int) []int {
	var list []int
	for i := range c.Hosts {
		if i != not {
			list = append(list, i)
		}
	}
	return list
}

// Running reports whether the daemon was started and neither ended nor was stopped by Pause.
func (d *Daemon) Running() bool {
	if d.cmd == nil || d.paused {
		return false
	}
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// Move gives the daemon, which has ended, another address on loopback for its next start, and returns it, without port.
func (d *Daemon) Move(t testing.TB) string {
	t.Helper()
	address := freshNet() + ".1"
	d.o.Bind = fmt.Sprintf("%s:%d", address, tcpPort)
	at := slices.Index(d.o.Args, "--gossip")
	d.o.Args = slices.Clone(d.o.Args)
	d.o.Args[at+1] = fmt.Sprintf("%s:%d", address, gossipPort)
	return address
}

// Pause stops the daemon as SIGSTOP does. Until Continue nobody may touch its mounts but actors that are to hang.
func (d *Daemon) Pause() {
	d.t.Helper()
	d.paused = true
	d.Signal(syscall.SIGSTOP)
	Until(d.t, commandTime, "every thread is stopped", func() (string, bool) {
		saw, stopped := "", true
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", d.PID()))
		for _, stat := range threads {
			text, _ := os.ReadFile(stat)
			saw += string(text)
			_, state, _ := strings.Cut(string(text), ") ")
			stopped = stopped && strings.HasPrefix(state, "T")
		}
		return saw, stopped && len(threads) > 0
	})
}

// Continue ends a Pause.
func (d *Daemon) Continue() {
	d.Signal(syscall.SIGCONT)
	d.paused = false
}

// Status is .lockfs/status of the daemon's first mount.
func (d *Daemon) Status() map[string]string {
	d.t.Helper()
	return d.lines(".lockfs/status")
}

// Host is what the daemon shows of a host, none if it shows no such host.
func (d *Daemon) Host(name string) map[string]string {
	d.t.Helper()
	return d.lines(".lockfs/hosts/" + name)
}

func (d *Daemon) lines(path string) map[string]string {
	d.t.Helper()
	facts := map[string]string{}
	for line := range strings.Lines(d.Run(d.t, `cat $M/`+path+` 2>/dev/null`, 0).Out) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		facts[key] = value
	}
	return facts
}

// Until waits until try says yes, and fails the test with what it last saw if that takes longer than the limit.
func Until(t testing.TB, limit time.Duration, what string, try func() (saw string, ok bool)) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		saw, ok := try()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s; last seen:\n%s", limit, what, saw)
		}
	}
}
