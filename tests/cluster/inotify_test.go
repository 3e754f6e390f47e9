package cluster

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/harness"
)

// TestInotify has inotifywait's calls show on one host what is done on another.
func TestInotify(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: long, Views: []string{"lock", "posix"}})
	t.Run("events", func(t *testing.T) { testEvents(t, c) })
	t.Run("once", func(t *testing.T) { testOnce(t, c) })
	t.Run("locks", func(t *testing.T) { testAttrib(t, c) })
	t.Run("latency", func(t *testing.T) { testLatency(t, c) })
	t.Run("load", func(t *testing.T) { testLoad(t, c) })
	t.Run("killed", func(t *testing.T) { testKilledWatched(t, c) })
}

// dirWatcher is a client that says what inotify tells of a directory: the event's flags and the name, a line each.
type dirWatcher struct {
	*client
	seen int // lines that were looked at
}

// watchDir watches a directory, which must be there, from now on.
func watchDir(t *testing.T, dir string) *dirWatcher {
	t.Helper()
	w := &dirWatcher{client: start(t, "inotify", dir)}
	w.sees(t, "watching")
	return w
}

// sees waits for these lines, in this order; others may come in between.
func (w *dirWatcher) sees(t *testing.T, want ...string) {
	t.Helper()
	harness.Until(t, limit, fmt.Sprintf("%q", want), func() (string, bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		at := w.seen
		for _, line := range want {
			i := slices.Index(w.lines[at:], line)
			if i < 0 {
				return strings.Join(w.lines[w.seen:], "\n"), false
			}
			at += i + 1
		}
		w.seen = at
		return "", true
	})
}

// count is how many such lines there were so far.
func (w *dirWatcher) count(line string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.lines {
		if l == line {
			n++
		}
	}
	return n
}

// eventNames are the flags of inotify(7) that lockfs raises.
var eventNames = []struct {
	flag uint32
	name string
}{
	{unix.IN_MODIFY, "MODIFY"}, {unix.IN_ATTRIB, "ATTRIB"}, {unix.IN_CREATE, "CREATE"}, {unix.IN_DELETE, "DELETE"},
	{unix.IN_MOVED_FROM, "MOVED_FROM"}, {unix.IN_MOVED_TO, "MOVED_TO"}, {unix.IN_DELETE_SELF, "DELETE_SELF"},
	{unix.IN_Q_OVERFLOW, "OVERFLOW"}, {unix.IN_IGNORED, "IGNORED"},
}

// inotify DIR says every event of DIR until it is stopped: "FLAG NAME".
func inotify(args []string) int {
	const flags = unix.IN_MODIFY | unix.IN_ATTRIB | unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_DELETE_SELF
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, args[0], flags)
	}
	if err != nil {
		say("%v", err)
		return 1
	}
	say("watching")
	return steps(func() error {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 200); n == 0 || err == unix.EINTR {
			return nil
		}
		buf := make([]byte, 64<<10)
		n, err := unix.Read(fd, buf)
		if err != nil {
			return err
		}
		for buf = buf[:n]; len(buf) >= unix.SizeofInotifyEvent; {
			size := unix.SizeofInotifyEvent + binary.NativeEndian.Uint32(buf[12:])
			mask, name := binary.NativeEndian.Uint32(buf[4:]), strings.TrimRight(string(buf[unix.SizeofInotifyEvent:size]), "\x00")
			for _, e := range eventNames {
				if mask&e.flag != 0 {
					say("%s %s", e.name, name)
				}
			}
			buf = buf[size:]
		}
		return nil
	})
}

// sameDir makes a directory on host a and waits until the others have it.
func sameDir(t *testing.T, c *harness.Cluster, name string) {
	t.Helper()
	c.Hosts[0].Shell(t).OK(`mkdir $M/` + name)
	for _, d := range c.Hosts[1:] {
		harness.Until(t, limit, "the directory on all hosts", func() (string, bool) {
			r := d.Run(t, `ls -d $M/`+name, 0)
			return r.Out, r.Code == 0
		})
	}
}

// testEvents sees each kind of change on another host, and through another mount of the same daemon.
func testEvents(t *testing.T, c *harness.Cluster) {
	sameDir(t, c, "events")
	a, b := c.Hosts[0], c.Hosts[1]
	sh := a.Shell(t)
	watchers := []*dirWatcher{watchDir(t, b.Lock+"/events"), watchDir(t, b.Posix+"/events"), watchDir(t, a.Posix+"/events")}
	for _, step := range []struct {
		command string
		events  []string
	}{
		{`: > $M/events/a`, []string{"CREATE a"}},
		{`echo one > $M/events/a`, []string{"MODIFY a"}},
		{`exec 9<>$M/events/a; $BIN value 9 --set two; exec 9>&-`, []string{"MODIFY a"}},
		{`chmod 600 $M/events/a`, []string{"ATTRIB a"}},
		{`setfattr -n user.color -v red $M/events/a`, []string{"ATTRIB a"}},
		{`mkdir $M/events/d`, []string{"CREATE d"}},
		{`mv $M/events/a $M/events/b`, []string{"MOVED_FROM a", "MOVED_TO b"}},
		{`mv $M/events/b $M/events/d/b`, []string{"MOVED_FROM b"}},
		{`mv $M/events/d/b $M/events/e`, []string{"MOVED_TO e"}},
		{`: > $M/events/f; mv $M/events/e $M/events/f`, []string{"MOVED_FROM e", "MOVED_TO f"}},
		{`mv $M/events/d $M/events/g`, []string{"MOVED_FROM d", "MOVED_TO g"}},
		{`rmdir $M/events/g`, []string{"DELETE g"}},
		{`rm $M/events/f`, []string{"DELETE f"}},
		{`echo x > $M/events/.lock`, []string{"MODIFY .lock"}},
		{`mkdir $M/events/h && setfattr -n user.lockfs.ephemeral -v 1 $M/events/h && exec 9<>$M/events/h/x; exec 9>&-; rmdir $M/events/h`,
			[]string{"CREATE h", "DELETE h"}},
		{`chmod 700 $M/events; chmod 755 $M/events`, []string{"ATTRIB "}},
		{`: > $M/events/last; rm $M/events/last; rmdir $M/events`, []string{"DELETE_SELF "}},
	} {
		sh.OK(step.command)
		for _, w := range watchers {
			w.sees(t, step.events...)
		}
	}
}

// testOnce has each change show once, on the mount where it was made and on others.
func testOnce(t *testing.T, c *harness.Cluster) {
	sameDir(t, c, "once")
	a, b := c.Hosts[0], c.Hosts[1]
	sh := a.Shell(t)
	watchers := []*dirWatcher{watchDir(t, a.Lock+"/once"), watchDir(t, a.Posix+"/once"), watchDir(t, b.Lock+"/once")}
	sh.OK(`: > $M/once/a`)
	for _, w := range watchers {
		w.sees(t, "CREATE a")
	}
	sh.OK(`mv $M/once/a $M/once/b`)
	for _, w := range watchers {
		w.sees(t, "MOVED_FROM a", "MOVED_TO b")
	}
	sh.OK(`rm $M/once/b; : > $M/once/end`)
	for _, w := range watchers {
		w.sees(t, "DELETE b", "CREATE end")
		for _, event := range []string{"CREATE a", "MOVED_FROM a", "MOVED_TO b", "DELETE b", "CREATE end"} {
			if n := w.count(event); n != 1 {
				t.Errorf("%v was told %d times of %s", w.cmd.Args[3:], n, event)
			}
		}
	}
}

// testAttrib sees a blocking AST on the host whose lock it is, and a deadlock on every host.
func testAttrib(t *testing.T, c *harness.Cluster) {
	sameDir(t, c, "attrib")
	a, b, third := c.Hosts[0], c.Hosts[1], c.Hosts[2]
	sh := a.Shell(t)
	sh.OK(`: > $M/attrib/ast; : > $M/attrib/one; : > $M/attrib/two; exec 9<>$M/attrib/ast`)
	harness.Until(t, limit, "the files on all hosts", func() (string, bool) {
		r := b.Run(t, `ls $M/attrib/two`, 0)
		return r.Out, r.Code == 0 && third.Run(t, `ls $M/attrib/two`, 0).Code == 0
	})
	here, there := watchDir(t, a.Posix+"/attrib"), watchDir(t, third.Lock+"/attrib")
	blocked := b.Shell(t).Start(`flock $M/attrib/ast true`)
	here.sees(t, "ATTRIB ast")
	sh.OK(`exec 9>&-`)
	if r := blocked.WaitFor(limit); r.Code != 0 {
		t.Errorf("the waiter: %+v", r)
	}
	script := `flock $M/attrib/%s sh -c 'touch $T/%[1]s; until [ -e %[3]s ]; do sleep 0.01; done; flock $M/attrib/%[2]s true'`
	first := a.Shell(t).Start(fmt.Sprintf(script, "one", "two", filepath.Join(b.Dir, "two")))
	second := b.Shell(t).Start(fmt.Sprintf(script, "two", "one", filepath.Join(a.Dir, "one")))
	if x, y := first.WaitFor(limit), second.WaitFor(limit); x.Code+y.Code != 65 {
		t.Fatalf("no deadlock: %+v %+v", x, y)
	}
	harness.Until(t, limit, "the deadlock on a host that has no part in it", func() (string, bool) {
		return "", there.count("ATTRIB one") > 0 && there.count("ATTRIB two") > 0
	})
}

// delays DIR THERE N commits N values to DIR/f and says for each how many nanoseconds after the commit has returned inotify tells of
// it in THERE, the same directory elsewhere.
func delays(args []string) int {
	n := int(number(args[2]))
	file, err := open(filepath.Join(args[0], "f"), unix.O_RDWR)
	watched, err2 := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil && err2 == nil {
		_, err = unix.InotifyAddWatch(watched, filepath.Join(args[1], "f"), unix.IN_MODIFY)
	}
	if err != nil || err2 != nil {
		say("%v %v", err, err2)
		return 1
	}
	events := make([]byte, 4096)
	return steps(func() error {
		if n--; n < 0 {
			return io.EOF
		}
		if _, err := unix.Pwrite(file, fmt.Appendf(nil, "%d\n", n), 0); err != nil {
			return err
		}
		if err := unix.Fsync(file); err != nil {
			return err
		}
		committed := time.Now()
		for {
			_, err := unix.Read(watched, events)
			switch {
			case err == nil:
				say("%d", time.Since(committed))
				time.Sleep(10 * time.Millisecond) // the next one is not joined with this one
				return nil
			case err != unix.EAGAIN && err != unix.EINTR:
				return err
			case time.Since(committed) > limit:
				return unix.ETIMEDOUT
			}
			unix.Poll([]unix.PollFd{{Fd: int32(watched), Events: unix.POLLIN}}, 1000)
		}
	})
}

// testLatency measures how long after a commit another host's watcher is told. Each commit must be.
func testLatency(t *testing.T, c *harness.Cluster) {
	sameDir(t, c, "latency")
	c.Hosts[0].Shell(t).OK(`echo 0 > $M/latency/f`)
	harness.Until(t, limit, "the file on the other host", func() (string, bool) {
		r := c.Hosts[1].Run(t, `cat $M/latency/f`, 0)
		return r.Out, r.Out == "0\n"
	})
	watchDir(t, c.Hosts[1].Lock+"/latency").sees(t) // another one is not in the way
	lines := start(t, "delays", c.Hosts[0].Lock+"/latency", c.Hosts[1].Lock+"/latency", "200").end(t)
	if last(lines) != "done" {
		t.Fatalf("it ended with %s", last(lines))
	}
	var took []time.Duration
	for _, line := range lines[:len(lines)-1] {
		took = append(took, time.Duration(number(line)))
	}
	slices.Sort(took)
	t.Logf("from a commit to another host's IN_MODIFY: p50 %v p99 %v", took[len(took)/2], took[len(took)*99/100])
}

// churn DIR HOST N makes N changes in DIR, a third of a hundred a second: files of its own that are made, written, moved and removed, and in the
// end one that stays.
func churn(args []string) int {
	n := int(number(args[2]))
	file := func(i int) string { return filepath.Join(args[0], fmt.Sprintf("%s%d", args[1], i%7)) }
	next := time.Now()
	return steps(func() error {
		time.Sleep(time.Until(next))
		next = next.Add(30 * time.Millisecond)
		if n--; n < 0 {
			if err := os.WriteFile(filepath.Join(args[0], args[1]+"-end"), []byte("end"), 0o644); err != nil {
				return err
			}
			return io.EOF
		}
		var err error
		switch path := file(n / 4); n % 4 {
		case 3:
			err = unix.Mknod(path, unix.S_IFREG|0o644, 0)
		case 2:
			err = os.WriteFile(path, []byte("value"), 0o644)
		case 1:
			err = unix.Rename(path, path+"-moved")
		default:
			err = unix.Unlink(path + "-moved")
		}
		return err
	})
}

// testLoad changes names and values from all hosts, a hundred times a second, with watchers on all of them. Nothing hangs, and what a
// watcher was told of adds up to what is there in the end.
func testLoad(t *testing.T, c *harness.Cluster) {
	sameDir(t, c, "load")
	changes := 160
	if rounds(1) > 1 {
		changes = 2000 // a minute
	}
	var watchers []*dirWatcher
	var running []*client
	for _, d := range c.Hosts {
		watchers = append(watchers, watchDir(t, d.Lock+"/load"), watchDir(t, d.Posix+"/load"))
	}
	for i, d := range c.Hosts {
		running = append(running, start(t, "churn", d.Lock+"/load", string(rune('a'+i)), fmt.Sprint(changes)))
	}
	for _, l := range running {
		select {
		case <-l.ended:
		case <-time.After(3 * limit):
		}
		if lines := l.end(t); last(lines) != "done" {
			t.Errorf("a client got %v", lines)
		}
	}
	for _, w := range watchers {
		for _, end := range []string{"a-end", "b-end", "c-end"} {
			harness.Until(t, limit, "the last change: "+end, func() (string, bool) { return "", w.count("CREATE "+end) > 0 })
		}
		there := map[string]bool{}
		w.mu.Lock()
		for _, line := range w.lines {
			event, name, _ := strings.Cut(line, " ")
			switch event {
			case "CREATE", "MOVED_TO":
				if there[name] {
					t.Errorf("%v: %s, which is there", w.cmd.Args[3:], line)
				}
				there[name] = true
			case "DELETE", "MOVED_FROM":
				if !there[name] {
					t.Errorf("%v: %s, which is not there", w.cmd.Args[3:], line)
				}
				delete(there, name)
			case "OVERFLOW", "IGNORED":
				t.Errorf("%v: %s", w.cmd.Args[3:], line)
			}
		}
		t.Logf("%v: %d events", w.cmd.Args[3:], len(w.lines))
		w.mu.Unlock()
		if len(there) != 3 {
			t.Errorf("%v shows %v", w.cmd.Args[3:], there)
		}
	}
}

// testKilledWatched kills a daemon while it shows what another host does, and its own clients change the same directory: it is
// gone, and its clients are not held.
func testKilledWatched(t *testing.T, c *harness.Cluster) {
	sameDir(t, c, "killed")
	a, b := c.Hosts[0], c.Hosts[1]
	for range rounds(1) {
		watchDir(t, b.Lock+"/killed")
		other := start(t, "storm", a.Lock+"/killed", "1", "1000000")
		own := start(t, "storm", b.Lock+"/killed", "2", "1000000")
		before := b.Reads()
		harness.Until(t, limit, "requests of the storm", func() (string, bool) { return "", b.Reads() > before+2000 })
		connections := b.Run(t, `stat -c %d $M $P`, 0).Out
		b.Signal(unix.SIGKILL)
		select {
		case <-own.ended:
		case <-time.After(limit):
			t.Error("a killed daemon holds its clients")
			for n := range strings.Lines(connections) {
				os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", number(strings.TrimSpace(n))), []byte("1"), 0)
			}
		}
		b.Kill()
		if how := last(own.end(t)); !strings.Contains(how, "ECONNABORTED") && !strings.Contains(how, "ENOTCONN") {
			t.Errorf("the client got %s", how)
		}
		other.stop()
		other.end(t)
		b.Start()
		c.Settle()
	}
}
