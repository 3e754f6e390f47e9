package cluster

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// tool runs the program, which must succeed.
func tool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(harness.Binary(), args...).CombinedOutput(); err != nil {
		t.Fatalf("lockfs %v: %v\n%s", args, err, out)
	}
}

// TestSecured forms a cluster with what lockfs cert and lockfs keygen make. Hosts that have not all of it stay outside, and their
// log says why.
func TestSecured(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	var c *harness.Cluster
	tool(t, "cert", "ca", "--dir", dir)
	tool(t, "keygen", file("gossip.key"))
	tool(t, "cert", "ca", "--dir", t.TempDir())
	other := t.TempDir() // another authority
	tool(t, "cert", "ca", "--dir", other)
	tool(t, "keygen", filepath.Join(other, "gossip.key"))
	certified := func(dir string, name, address string) []string {
		host, _, _ := strings.Cut(address, ":")
		tool(t, "cert", "host", name, "--address", host, "--dir", dir, "--ca", filepath.Join(dir, "ca.pem"), "--ca-key", filepath.Join(dir, "ca-key.pem"))
		return []string{"--tls-ca", filepath.Join(dir, "ca.pem"), "--tls-cert", filepath.Join(dir, name+".pem"), "--tls-key", filepath.Join(dir, name+"-key.pem")}
	}
	key := []string{"--gossip-key-file", file("gossip.key")}
	c = harness.PrepareCluster(t, harness.ClusterOptions{Hosts: 3, TTL: ttl, Network: true, Args: func(host int, address string) []string {
		if host == 2 {
			return nil // each time others
		}
		return append(certified(dir, string(rune('a'+host)), address), key...)
	}})
	a, b, d := c.Hosts[0], c.Hosts[1], c.Hosts[2]
	address := c.Net.Address(2)

	if r := d.Refuses(); r.Code != 64 || !strings.Contains(r.Out, "--insecure") {
		t.Errorf("a host without anything starts on an address that is not loopback: %+v", r)
	}
	a.Start()
	b.Start()
	x, y := actor.Start(t, a.Lock), actor.Start(t, b.Lock)
	x.Must("ok", "open f rdwr,creat a", "write f one", "close f")
	y.Must(`"one"`, "open f rdwr,creat a", "pread f 0 10")
	wants(t, a, 2, 0)

	whole := append(certified(dir, "c", address), key...)
	foreign := certified(other, "c", address)
	for _, s := range []struct {
		name  string
		args  []string
		words []string // one of which its log has
	}{
		{"no certificate", append([]string{"--insecure"}, key...), []string{"TLS", "tls", "certificate"}},
		{"another authority", append(foreign, key...), []string{"certificate"}},
		{"no gossip key", append([]string{"--insecure"}, whole[:6]...), []string{"gossip"}},
		{"another gossip key", append(whole[:6:6], "--gossip-key-file", filepath.Join(other, "gossip.key")), []string{"gossip"}},
	} {
		t.Run(s.name, func(t *testing.T) {
			before := len(d.Log())
			d.Launch(s.args...)
			harness.Until(t, limit, "the log says what is wrong", func() (string, bool) {
				log := d.Log()[before:]
				for line := range strings.Lines(log) {
					for _, word := range s.words {
						if strings.Contains(line, word) && (strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR")) && !strings.Contains(line, "--insecure") {
							return log, true
						}
					}
				}
				return log, false
			})
			if d.IsReady() {
				t.Error("it was let in")
			}
			d.Kill()
			if n := roles(t, a); n["leader"]+n["voter"]+n["nonvoter"] != 2 {
				t.Errorf("the cluster shows %v", n)
			}
		})
	}
	d.Start(whole...)
	wants(t, a, 3, 0)
	z := actor.Start(t, d.Lock)
	z.Must(`"one"`, "open f rdonly a", "pread f 0 10")
}
