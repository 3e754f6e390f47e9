package cli

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// asker asks a daemon over HTTP.
type asker struct {
	t    *testing.T
	http http.Client
	at   string // ADDR:PORT
}

var listens = regexp.MustCompile(`msg=HTTP address=(\S+)`)

// startHTTP starts a daemon that answers HTTP on a free port.
func startHTTP(t *testing.T, args ...string) (*daemon, *asker) {
	t.Helper()
	needFUSE(t)
	bin := publicBinary(t)
	d := &daemon{dir: t.TempDir(), mounts: filepath.Join(bin, "mounts"), path: bin + ":" + os.Getenv("PATH")}
	t.Cleanup(d.kill)
	if err := d.start(append([]string{"--http", "127.0.0.1:0"}, args...)); err != nil {
		t.Fatal(err)
	}
	found := listens.FindStringSubmatch(d.said())
	if found == nil {
		t.Fatalf("the log does not say where the daemon listens:\n%s", d.said())
	}
	return d, &asker{t: t, http: http.Client{Timeout: time.Minute}, at: found[1]}
}

// ask sends a request and returns the answer's code and text.
func (a *asker) ask(method, path, host, body string) (int, string) {
	a.t.Helper()
	r, err := http.NewRequest(method, "http://"+a.at+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	r.Host = host
	answer, err := a.http.Do(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// get asks for a page that there must be.
func (a *asker) get(path string) string {
	a.t.Helper()
	code, text := a.ask("GET", path, "", "")
	if code != http.StatusOK {
		a.t.Fatalf("GET %s: %d %s", path, code, text)
	}
	return text
}

// becomes waits until an answer has a code and a text in it.
func (a *asker) becomes(path string, want int, with string) {
	a.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		code, text := a.ask("GET", path, "", "")
		if code == want && strings.Contains(text, with) {
			return
		}
		if time.Now().After(end) {
			a.t.Fatalf("GET %s: %d %s; want %d with %q", path, code, text, want, with)
		}
	}
}

// shell runs a script with M, the mount of view lock, and must succeed.
func (d *daemon) shell(t *testing.T, script string) string {
	t.Helper()
	cmd := exec.Command("timeout", "-s", "KILL", "60", "bash", "-c", script)
	cmd.Env = append(os.Environ(), "PATH="+d.path, "M="+d.point("lock"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// hold runs a script that says "there" once it holds what it is to hold, and ends with its input.
func (d *daemon) hold(t *testing.T, script string) (release func()) {
	t.Helper()
	cmd := exec.Command("bash", "-c", script+"; echo there; read -r")
	cmd.Env = append(os.Environ(), "PATH="+d.path, "M="+d.point("lock"))
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
	release = func() {
		in.Close()
		cmd.Wait()
	}
	t.Cleanup(release)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "there\n" {
		t.Fatalf("%s: %q, %v", script, line, err)
	}
	return release
}

// figures reads metrics: one value a series, by its name with labels.
func figures(t *testing.T, text string) map[string]string {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	if _, err := parser.TextToMetricFamilies(strings.NewReader(text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	all := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && name != "#" {
			all[name] = value
		}
	}
	return all
}

// TestHTTP: metrics, health, readiness and the page of one host, and what strangers do not get.
func TestHTTP(t *testing.T) {
	d, a := startHTTP(t, "--drain", "1m")
	d.shell(t, "mkdir $M/open; mkdir -m 700 $M/closed; touch $M/open/seen $M/closed/hidden")
	release := d.hold(t, "exec 9<>$M/open/seen 8<>$M/closed/hidden")
	if health, ready := a.get("/healthz"), a.get("/readyz"); health != "ok\n" || ready != "ok\n" {
		t.Errorf("healthz %q, readyz %q", health, ready)
	}

	text := a.get("/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("names and units: %v %v", problems, err)
	}
	all := figures(t, text)
	for name, want := range map[string]string{
		"lockfs_locks_held": "2", "lockfs_locks_waiting": "0", "lockfs_leader": "1", "lockfs_voters": "1", "lockfs_nodes": "5",
		`lockfs_session_state{state="safe"}`: "1", `lockfs_hosts{role="leader",state="alive"}`: "1", "lockfs_deadlocks_total": "0",
	} {
		if all[name] != want {
			t.Errorf("%s is %q, want %s", name, all[name], want)
		}
	}
	for _, name := range []string{"lockfs_applied_index", "lockfs_commit_duration_seconds_count", "lockfs_commands_total", "go_goroutines",
		"process_resident_memory_bytes", fmt.Sprintf(`lockfs_fuse_requests_total{mountpoint="%s",op="open",view="lock"}`, d.point("lock"))} {
		if all[name] == "" || all[name] == "0" {
			t.Errorf("%s is %q", name, all[name])
		}
	}
	inMount := figures(t, d.shell(t, "cat $M/.lockfs/metrics"))
	for name := range all {
		if _, there := inMount[name]; !there && !strings.HasPrefix(name, "lockfs_fuse_requests_total") {
			t.Errorf("%s is in /metrics but not in .lockfs/metrics", name)
		}
	}
	d.shell(t, "! setpriv --reuid=65534 --regid=65534 --clear-groups cat $M/.lockfs/metrics 2>/dev/null")
	d.shell(t, "test $(stat -c %a $M/.lockfs/metrics) = 400")

	a.becomes("/", http.StatusOK, "<td>/open/seen</td><td>EX</td>")
	if page := a.get("/"); strings.Contains(page, "hidden") || strings.Contains(page, "closed") {
		t.Errorf("the page shows what strangers may not see:\n%s", page)
	}
	for _, x := range []struct {
		method, path, host, body string
		want                     int
	}{
		{"POST", "/", "", "", 405}, {"DELETE", "/metrics", "", "", 405}, {"GET", "/", "", "x", 413}, {"GET", "/nosuch", "", "", 404},
		{"GET", "/..%2f..%2fetc/passwd", "", "", 404}, {"GET", "/", "lockfs.example", "", 421}, {"GET", "/metrics", "lockfs.example:80", "", 421},
		{"GET", "/healthz", "localhost", "", 200}, {"HEAD", "/", "", "", 200},
	} {
		if code, text := a.ask(x.method, x.path, x.host, x.body); code != x.want {
			t.Errorf("%+v: %d %s", x, code, text)
		}
	}
	a.refusesLargeHeader()

	// The port is taken: a second daemon says so and touches nothing.
	second := exec.Command(filepath.Join(filepath.Dir(d.mounts), "lockfs"), "mount", "--data-dir", filepath.Join(d.dir, "other"), "--bind",
		"127.0.0.1:0", "--http", a.at, filepath.Join(d.dir, "nowhere"))
	out, err := second.CombinedOutput()
	if second.ProcessState.ExitCode() != 66 || !strings.Contains(string(out), "--http "+a.at) || !strings.Contains(string(out), "address already in use") {
		t.Errorf("a port that is taken: %v\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(d.dir, "other")); err == nil {
		t.Error("a daemon whose port is taken made its data directory")
	}

	// While holders have time to let go the daemon is healthy and not ready.
	d.cmd.Process.Signal(os.Interrupt)
	a.becomes("/readyz", http.StatusServiceUnavailable, "draining")
	if health := a.get("/healthz"); health != "ok\n" {
		t.Errorf("draining: healthz says %q", health)
	}
	release()
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, d.said())
	}
}

// refusesLargeHeader: a request whose header has no end is not read to it.
func (a *asker) refusesLargeHeader() {
	a.t.Helper()
	c, err := net.Dial("tcp", a.at)
	if err != nil {
		a.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n", strings.Repeat("x", 64<<10))
	line, err := bufio.NewReader(c).ReadString('\n')
	if !strings.HasPrefix(line, "HTTP/1.1 431") {
		a.t.Errorf("a header of 64 KiB: %q, %v", line, err)
	}
}
