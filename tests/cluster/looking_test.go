package cluster

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// startHTTP starts three hosts that answer HTTP, and returns where.
func startHTTP(t *testing.T, views ...string) (c *harness.Cluster, at map[int]string) {
	t.Helper()
	at = map[int]string{}
	c = harness.StartCluster(t, harness.ClusterOptions{TTL: long, Views: views, Args: func(host int, address string) []string {
		at[host] = address + ":7422"
		return []string{"--http", at[host]}
	}})
	return c, at
}

// ask returns the code and the text of an answer; 0 and why there is none.
func ask(at, path string) (code int, text string) {
	client := http.Client{Timeout: limit}
	answer, err := client.Get("http://" + at + path)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(body)
}

// TestLooking: what is held and awaited on two hosts, the hosts and a deadlock are seen on the third, which has no part in them; then
// the third is alone, alive and not ready.
func TestLooking(t *testing.T) {
	c, at := startHTTP(t, "lock", "posix")
	one, two, third := c.Hosts[0].Shell(t), c.Hosts[1].Shell(t), c.Hosts[2].Shell(t)
	see := func(what string) { third.OK("cd $M/.lockfs; until " + what + "; do sleep 0.02; done") }

	one.OK("touch $M/x $M/y $M/bytes; exec 9<$M/x 8<$M/y; flock 9")
	two.OK("until test -e $M/bytes; do sleep 0.02; done; exec 9<$M/x 8<$M/y; flock 8")
	waiting := two.Start("flock 9")
	see("grep -qs uid=0 held/x/EX@a:* && grep -qs comm= held/x/EX@a:* && grep -qs since= held/x/EX@a:*")
	see("grep -qs blocked-by=a: waiting/x/001.EX@b:* && grep -qs comm=flock waiting/x/001.EX@b:*")
	see("test $(ls hosts | tr -d '\\n') = abc && grep -q session= hosts/a")
	third.OK("out=$(" + harness.Binary() + " ls $M) && grep -q '^/x *EX *held .* a:' <<<$out && grep -q '^/x *EX *waiting .* b:' <<<$out")

	holder, other := actor.Start(t, c.Hosts[0].Posix), actor.Start(t, c.Hosts[1].Posix)
	holder.Must("ok", "open f rdwr bytes", "lock f w 0 100")
	other.Must("ok", "open f rdwr bytes")
	other.Begin("lockw f r 10 5")
	see("test -e held/bytes/EX.0-99@a:*")
	see("grep -qs range=10-14 waiting/bytes/001.PR.10-14@b:* && grep -qs blocked-by=a: waiting/bytes/001.PR.10-14@b:*")
	holder.Must("ok", "close f")
	if got := other.EndWithin(limit); got != "ok" {
		t.Errorf("the byte range, when it is free: %s", got)
	}
	see("! test -e held/bytes/EX.0-99@a:*")

	asks := func(path string, code int, with string) {
		t.Helper()
		harness.Until(t, limit, fmt.Sprintf("%s says %d and %q", path, code, with), func() (string, bool) {
			got, text := ask(at[2], path)
			return fmt.Sprint(got, text), got == code && strings.Contains(text, with)
		})
	}
	asks("/readyz", 200, "ok")
	asks("/", 200, "<td>/x</td><td>EX</td><td>a:")
	asks("/metrics", 200, "lockfs_sessions 3\n")

	if r := one.Do("flock 8"); r.Code != 65 {
		t.Errorf("the flock that makes a cycle exits with %d: %s", r.Code, r.Out)
	}
	see("test $(grep -c ^wait deadlocks) = 2")
	third.OK(harness.Binary() + " deadlocks $M | grep -q 'got EDEADLK for /y'")
	asks("/", 200, "waited for EX of /y")
	one.OK("flock -u 9")
	if r := waiting.WaitFor(limit); r.Code != 0 {
		t.Errorf("the other flock exits with %d: %s", r.Code, r.Out)
	}

	for _, d := range c.Hosts[:2] {
		d.Kill()
	}
	asks("/readyz", 503, "")
	asks("/healthz", 200, "ok")
	asks("/metrics", 200, "lockfs_leader_known 0\n")
}
