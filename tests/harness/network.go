package harness

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Network is a network of its own: a bridge, and one network namespace a host with a link to it. The mounts of a daemon
// that runs in one are seen by everybody all the same, since only the network is apart.
//
// A namespace lives as long as its process, which ends with the test's: nothing of it has a name that could be left.
type Network struct {
	t     testing.TB
	hub   int   // process of the bridge's namespace
	hosts []int // of the hosts'
}

// NewNetwork makes a network of so many hosts. It is gone at the end of the test.
func NewNetwork(t testing.TB, hosts int) *Network {
	t.Helper()
	n := &Network{t: t, hub: namespace(t)}
	n.ip(n.hub, "link add name br0 type bridge")
	n.ip(n.hub, "link set br0 up")
	for i := range hosts {
		pid := namespace(t)
		n.hosts = append(n.hosts, pid)
		n.ip(n.hub, fmt.Sprintf("link add %s type veth peer name eth0 netns %d", port(i), pid))
		n.ip(n.hub, fmt.Sprintf("link set %s master br0 up", port(i)))
		n.ip(pid, "link set lo up")
		n.ip(pid, "address add "+n.Address(i)+"/24 dev eth0")
		n.ip(pid, "link set eth0 up")
	}
	return n
}

// port is the bridge's end of a host's link.
func port(host int) string { return "host" + strconv.Itoa(host) }

// namespace starts a process in a network namespace of its own. It ends when its standard input does.
func namespace(t testing.TB) (pid int) {
	t.Helper()
	cmd := exec.Command("unshare", "--net", "sh", "-c", "echo here; exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatalf("no network namespace can be made: %v", err)
	}
	return cmd.Process.Pid
}

// In is the prefix of a command that runs in a host's namespace.
func (n *Network) In(host int) []string {
	return []string{"nsenter", "--net=/proc/" + strconv.Itoa(n.hosts[host]) + "/ns/net", "--"}
}

// Address is a host's, without a port.
func (n *Network) Address(host int) string { return fmt.Sprintf("10.77.0.%d", host+1) }

// Cut takes a host's link down.
func (n *Network) Cut(host int) {
	n.t.Helper()
	n.ip(n.hub, "link set "+port(host)+" down")
}

// Heal takes a host's link up again.
func (n *Network) Heal(host int) {
	n.t.Helper()
	n.ip(n.hub, "link set "+port(host)+" up")
}

// CutPort drops what the others send to a TCP port of a host. What the host sends to their port, and their answers, pass.
func (n *Network) CutPort(host, tcp int) { n.rule("add", host, tcp) }

// HealPort ends a CutPort.
func (n *Network) HealPort(host, tcp int) { n.rule("del", host, tcp) }

func (n *Network) rule(verb string, host, tcp int) {
	n.t.Helper()
	for i, pid := range n.hosts {
		if i != host {
			n.ip(pid, fmt.Sprintf("rule %s to %s ipproto tcp dport %d blackhole", verb, n.Address(host), tcp))
		}
	}
}

// ip runs ip(8) in the namespace of a process.
func (n *Network) ip(pid int, args string) {
	n.t.Helper()
	all := append([]string{"--net=/proc/" + strconv.Itoa(pid) + "/ns/net", "--", "ip"}, strings.Fields(args)...)
	cmd := exec.Command("nsenter", all...)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}
