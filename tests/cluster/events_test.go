package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// watch WAY PATH says the lines of a stream of notices, read as WAY says: by read(2) that waits (block), or after poll(2)
// or an edge-triggered epoll(7), until the end of the stream.
func watch(args []string) int {
	flags := map[string]int{"block": 0, "poll": unix.O_NONBLOCK, "epoll": unix.O_NONBLOCK}[args[0]]
	fd, err := open(args[1], flags)
	for begin := time.Now(); err == unix.ENOENT && time.Since(begin) < limit; fd, err = open(args[1], flags) {
		time.Sleep(10 * time.Millisecond) // made on another host just now
	}
	if err != nil {
		say("%v", err)
		return 1
	}
	ep, err := unix.EpollCreate1(0)
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET})
	}
	if err != nil {
		say("%v", err)
		return 1
	}
	say("ready")
	b := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, b)
		switch {
		case n > 0:
			os.Stdout.Write(b[:n])
		case err == unix.EAGAIN && args[0] == "poll":
			unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		case err == unix.EAGAIN:
			unix.EpollWait(ep, make([]unix.EpollEvent, 1), -1)
		case err != unix.EINTR:
			say("the end: %d %v", n, err)
			return 0
		}
	}
}

// watcher is a client that watches.
type watcher struct {
	*client
	name string
	from int // lines that were looked at
}

// watchers start one on each host, each of which reads in another way.
func watchers(t *testing.T, c *harness.Cluster, path string) (list []*watcher) {
	t.Helper()
	for i, way := range []string{"block", "poll", "epoll"} {
		d := c.Hosts[i]
		if d.Running() {
			list = append(list, &watcher{client: start(t, "watch", way, filepath.Join(d.Lock, path)), name: string(rune('a' + i))})
		}
	}
	for _, w := range list {
		w.until(t, "ready")
	}
	return list
}

// new are the lines that were not looked at yet.
func (w *watcher) new() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.lines[w.from:])
}

// until waits until all these lines, or beginnings of lines, were said, in this order and maybe with others in between. It
// returns all lines up to the last of them; the next call looks behind it.
func (w *watcher) until(t *testing.T, want ...string) (seen []string) {
	t.Helper()
	harness.Until(t, limit, fmt.Sprintf("host %s tells of %q", w.name, want), func() (string, bool) {
		left, lines := want, w.new()
		for i, line := range lines {
			if left = left[min(len(left), len(prefix(left, line))):]; len(left) == 0 {
				seen = lines[:i+1]
				w.from += i + 1
				return "", true
			}
		}
		return strings.Join(lines, "\n"), false
	})
	return seen
}

// prefix returns the first of what is wanted if the line begins so.
func prefix(want []string, line string) []string {
	if strings.HasPrefix(plain(line)+" ", want[0]+" ") {
		return want[:1]
	}
	return nil
}

var changing = regexp.MustCompile(` (token|comm|generation)=\S+`)

// plain is a line without what differs from run to run.
func plain(line string) string { return changing.ReplaceAllString(line, "") }

// TestEvents watches on three hosts what is done on them, one thing after the other: all see the same in the same order.
func TestEvents(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: long, Args: func(int, string) []string {
		return []string{"--deadlock-wait", "200ms"} // actors have threads, any of which could let go
	}})
	a, b := actor.Start(t, c.Hosts[0].Lock), actor.Start(t, c.Hosts[1].Lock)
	a.Must("ok", "mkdir d")
	for _, d := range c.Hosts[1:] {
		harness.Until(t, limit, "d is there", func() (string, bool) { return "", d.Run(t, `test -d $M/d`, 0).Code == 0 })
	}
	t.Run("kinds", func(t *testing.T) { eventKinds(t, c, a, b) })
	t.Run("crowd", func(t *testing.T) { eventCrowd(t, c) })
	t.Run("overflow", func(t *testing.T) { eventOverflow(t, a) })
	t.Run("rights", func(t *testing.T) { eventRights(t, c) })
	t.Run("killed", func(t *testing.T) { eventKilled(t, c) })
}

func eventKinds(t *testing.T, c *harness.Cluster, a, b *actor.Actor) {
	third := actor.Start(t, c.Hosts[2].Lock)
	list := watchers(t, c, "d@events")
	var all []string
	sees := func(want ...string) {
		t.Helper()
		for i, w := range list {
			var got []string
			for _, line := range w.until(t, want...) {
				got = append(got, plain(line))
			}
			if i == 0 {
				all = got
			}
			if !slices.Equal(got, want) || !slices.Equal(got, all) {
				t.Errorf("host %s tells\n%s\nwant\n%s", w.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
	A, B, C := fmt.Sprintf("by=a:%d path=/d/", a.PID()), fmt.Sprintf("by=b:%d path=/d/", b.PID()), fmt.Sprintf("by=c:%d path=/d/", third.PID())

	a.Must("ok", "mknod d/x", "open f rdwr d/x")
	sees("created by=a path=/d/x", "granted mode=EX "+A+"x")
	b.Begin("open g rdonly d/x@pr")
	sees("blocking mode=EX wanted=PR " + B + "x")
	a.Must("ok", "write f v", "fsync f")
	sees("value by=a path=/d/x")
	a.Must("ok", "flock f sh")
	sees("converted mode=PR "+A+"x", "granted mode=PR "+B+"x")
	if got := b.EndWithin(limit); got != "ok" {
		t.Fatal(got)
	}
	a.Must("ok", "close f")
	sees("released mode=PR " + A + "x")
	b.Must("ok", "close g")
	sees("released mode=PR " + B + "x")
	third.Must("ok", "rename d/x d/y", "open f rdwr d/y", "write f w")
	sees("renamed by=c path=/d/x to=/d/y", "granted mode=EX "+C+"y")
	third.Kill()
	sees("invalid by=c path=/d/y", "released mode=EX "+C+"y")
	b.Must("ok", "open f rdonly d/y", "request f EX 200")
	sees("granted mode=EX "+B+"y", "lost mode=EX "+B+`y reason=its\040time\040to\040live\040is\040over`)
	b.Must("ok", "close f")
	a.Must("ok", "unlink d/y")
	sees("removed by=a path=/d/y")

	a.Must("ok", "mknod d/p", "mknod d/q", "open p rdonly d/p", "open q rdonly d/q", "flock p ex")
	sees("created by=a path=/d/p", "created by=a path=/d/q", "granted mode=EX "+A+"p")
	b.Must("ok", "open p rdonly d/p", "open q rdonly d/q", "flock q ex")
	sees("granted mode=EX " + B + "q")
	a.Begin("flock q ex")
	sees("blocking mode=EX wanted=EX " + A + "q")
	b.Begin("flock p ex")
	for _, w := range list { // what is blocked and what is refused come from two hosts
		w.until(t, "deadlock wanted=EX "+B+"p reason=victim")
	}
	if got := b.EndWithin(limit); got != "EDEADLK" {
		t.Error(got)
	}
	b.Must("ok", "flock q un")
	for _, w := range list {
		w.until(t, "released mode=EX "+B+"q", "granted mode=EX "+A+"q")
		w.cmd.Process.Kill()
	}
	if got := a.EndWithin(limit); got != "ok" {
		t.Error(got)
	}
	a.Must("ok", "close p", "close q")
	b.Must("ok", "close p", "close q")
}

// eventCrowd has 200 processes of three hosts wait for one lock: each gets it once, those of a host in the order in which they came,
// and the notices on every host tell all of it.
func eventCrowd(t *testing.T, c *harness.Cluster) {
	const crowd = 200
	holder := actor.Start(t, c.Hosts[0].Lock)
	holder.Must("ok", "open f rdwr,creat crowd")
	list := watchers(t, c, "crowd@events")
	holder.Must("ok", "mknod after") // passes through the log, so its host knows by now who watches
	order := filepath.Join(t.TempDir(), "order")
	var comers []*harness.Pending
	asked := 0
	for i, d := range c.Hosts {
		n := (crowd + i) / len(c.Hosts)
		asked += n
		comers = append(comers, d.Shell(t).Start(fmt.Sprintf(`for i in $(seq %d); do
			flock $M/crowd sh -c "echo %c $i \$PPID >> %s" &
			until compgen -G "$M/.lockfs/waiting/crowd/*.EX@%c:$!" > /dev/null; do sleep 0.01; done
			pids="$pids $!"
		done; echo $pids; wait`, n, 'a'+i, order, 'a'+i)))
	}
	if asked != crowd {
		t.Fatal(asked)
	}
	harness.Until(t, limit, "all wait", func() (string, bool) {
		got := holder.Do("xattr crowd user.lockfs.waiters")
		return got, got == fmt.Sprint(crowd)
	})
	holder.Must("ok", "close f")
	pids := map[string][]string{} // of each host, in the order in which they came
	for i, p := range comers {
		r := p.WaitFor(limit)
		if r.Code != 0 {
			t.Fatalf("host %c: %+v", 'a'+i, r)
		}
		for _, pid := range strings.Fields(r.Out) {
			pids[string(rune('a'+i))] = append(pids[string(rune('a'+i))], pid)
		}
	}

	got, err := os.ReadFile(order)
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]int{}
	for line := range strings.Lines(string(got)) {
		var host string
		var i int
		fmt.Sscan(line, &host, &i)
		if served[host]++; i != served[host] {
			t.Errorf("on host %s number %d had it as number %d there", host, i, served[host])
		}
	}
	for host, list := range pids {
		if served[host] != len(list) {
			t.Errorf("on host %s %d of %d had it", host, served[host], len(list))
		}
	}

	for _, w := range list {
		var lines []string
		harness.Until(t, limit, "host "+w.name+" tells of all", func() (string, bool) {
			lines = w.new()
			n := 0
			for _, line := range lines {
				if strings.HasPrefix(line, "released ") {
					n++
				}
			}
			return strings.Join(lines, "\n"), n == crowd+1
		})
		crowdNotices(t, w.name, lines, pids)
		w.cmd.Process.Kill()
	}
}

// crowdNotices looks at what one host told of the crowd.
func crowdNotices(t *testing.T, name string, lines []string, pids map[string][]string) {
	t.Helper()
	blocked, granted, has := map[string]int{}, map[string][]string{}, "the first"
	for _, line := range lines {
		f := strings.Fields(plain(line))
		switch f[0] {
		case "blocking":
			blocked[f[3]]++
		case "granted":
			if has != "" {
				t.Errorf("host %s: %s while %s has it", name, line, has)
			}
			host, pid, _ := strings.Cut(strings.TrimPrefix(f[2], "by="), ":")
			granted[host] = append(granted[host], pid)
			has = f[2]
		case "released":
			if has != "the first" && has != f[2] {
				t.Errorf("host %s: %s while %s has it", name, line, has)
			}
			has = ""
		default:
			t.Errorf("host %s: %s", name, line)
		}
	}
	for host, list := range pids {
		if !slices.Equal(granted[host], list) {
			t.Errorf("host %s tells of grants on %s to %v, they came as %v", name, host, granted[host], list)
		}
		for _, pid := range list {
			if blocked["by="+host+":"+pid] == 0 {
				t.Errorf("host %s does not tell that %s:%s was blocked", name, host, pid)
			}
		}
	}
}

// eventOverflow: who does not read loses the oldest, and is told how many.
func eventOverflow(t *testing.T, a *actor.Actor) {
	const kept, pairs, all = 1024, 600, 1200
	a.Must("EAGAIN", "mknod o", "open e rdonly,nonblock o@events", "read e 100")
	a.Must("[]", "poll e in 0")
	a.Must("ok", "open f rdonly o")
	for range pairs {
		a.Must("ok", "flock f ex", "flock f un")
	}
	a.Must("[in]", "poll e in 60000")
	want := fmt.Sprintf("overflow n=%d\n", all-kept)
	a.Must(fmt.Sprintf("%q", want), fmt.Sprint("read e ", len(want)))
	lines := 0
	for {
		got := a.Do("read e 65536")
		if got == "EAGAIN" {
			break
		}
		lines += strings.Count(got, `\n`)
	}
	if lines != kept {
		t.Errorf("%d notices after the overflow, want %d", lines, kept)
	}
	a.Must("ok", "close e", "close f")
}

// eventRights: who may not search a directory sees nothing of what is in it, whoever does it where.
func eventRights(t *testing.T, c *harness.Cluster) {
	const nobody = 65534
	work := actor.Start(t, c.Hosts[0].Lock)
	work.Must("ok", "mkdir secret", "chmod 700 secret", "mkdir open")
	cmd := exec.Command("cat", c.Hosts[1].Lock+"/.lockfs/events")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	w := &watcher{client: startCommand(t, cmd), name: "b"}
	harness.Until(t, limit, "nobody reads", func() (string, bool) { // the mount can be seen from its first line on
		work.Must("ok", "mknod open/x", "unlink open/x")
		return "", w.said() > 0
	})
	work.Must("ok", "mknod secret/x", "open f rdwr secret/x", "write f v", "close f", "rename secret/x out", "rename out secret/y",
		"unlink secret/y", "mknod open/y", "unlink open/y", "rmdir open")
	seen := w.until(t, "removed by=a path=/open dir=1")
	text := strings.Join(seen, "\n")
	for _, want := range []string{"created by=a path=/out", "removed by=a path=/out", "created by=a path=/open/y", "removed by=a path=/open/y"} {
		if !strings.Contains(text, want) {
			t.Errorf("nobody was not told: %s", want)
		}
	}
	if strings.Contains(text, "secret") {
		t.Errorf("nobody was told\n%s", text)
	}
	cmd.Process.Kill()
}

// eventKilled kills the daemon of the leader, which holds a lock that another host waits for.
func eventKilled(t *testing.T, c *harness.Cluster) {
	leader := c.Leader()
	dead, name := c.Hosts[leader], string(rune('a'+leader))
	holder, waiter := actor.Start(t, dead.Lock), actor.Start(t, c.Hosts[c.Others(leader)[0]].Lock)
	holder.Must("ok", "open f rdwr,creat held")
	becomes(t, waiter, "1", "xattr held user.lockfs.holders")
	becomes(t, waiter, "EX", "xattr held user.lockfs.mode")
	var list, all []*watcher
	for _, w := range watchers(t, c, ".lockfs/events") {
		if w.name != name {
			all = append(all, w)
		}
	}
	for _, w := range watchers(t, c, "held@events") {
		if w.name != name {
			list = append(list, w)
		}
	}
	waiter.Begin("open f rdwr held")
	asker := fmt.Sprintf("by=%c:%d path=/held", 'a'+c.Others(leader)[0], waiter.PID())
	for _, w := range list {
		w.until(t, "blocking mode=EX wanted=EX "+asker)
	}
	dead.Kill()
	released := fmt.Sprintf("released mode=EX by=%s:%d path=/held reason=expired", name, holder.PID())
	for _, w := range list {
		w.until(t, released, "invalid by="+name+" path=/held", "granted mode=EX "+asker)
	}
	for _, w := range all {
		w.until(t, "leader", "host-left by="+name+" reason=expired", released, "granted mode=EX "+asker)
	}
	if got := waiter.EndWithin(limit); got != "ok" {
		t.Error(got)
	}
	dead.Start()
	for _, w := range all {
		w.until(t, "host-joined by="+name)
	}
}
