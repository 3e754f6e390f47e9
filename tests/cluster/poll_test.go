package cluster

import (
	"io"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// TestPoll: a lock on one host wakes its holder when another host's request is held up by it, however he waits.
func TestPoll(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: long, Views: []string{"lock", "dlmfs"}})
	view := func(host int, view string) *actor.Actor {
		if view == "dlmfs" {
			return actor.Start(t, c.Hosts[host].Dlmfs)
		}
		return actor.Start(t, c.Hosts[host].Lock)
	}
	// asks has somebody on a host wait for a file, and returns him.
	asks := func(host int, kind, file string) *actor.Actor {
		a := view(host, kind)
		a.Begin("open w rdwr " + file)
		return a
	}

	maker := view(0, "lock")
	files := []string{"poll", "select", "epoll", "edge", "s1", "s2", "soon", "way", "async", "lost", "dom/l"}
	maker.Must("ok", "mkdir dom")
	for _, file := range files {
		maker.Must("ok", "mknod "+file)
	}
	for host := range c.Hosts {
		becomes(t, view(host, "lock"), "0", "size "+files[len(files)-1]) // it was made last
	}

	for _, how := range []struct{ name, wait, got, nothing string }{
		{"poll", "poll f pri 60000", "[pri]", "poll f pri 0"},
		{"select", "select f pri 60000", "[pri]", "select f pri 0"},
		{"epoll", "epoll level 60000", "[f:pri]", "epoll level 0"},
		{"edge", "epoll edge 60000", "[f:pri]", "epoll edge 0"},
	} {
		t.Run(how.name, func(t *testing.T) {
			holder := view(0, "lock")
			holder.Must("ok", "open f rdwr "+how.name, "watch level f pri", "watch edge f pri,et")
			for turn := range 2 {
				holder.Must("[]", how.nothing)
				holder.Begin(how.wait)
				asker := asks(1+turn%2, "lock", how.name)
				if got := holder.End(); got != how.got {
					t.Fatalf("turn %d: %s", turn, got)
				}
				if how.name == "edge" {
					holder.Must("[]", how.nothing)
				} else {
					holder.Must(how.got, how.nothing)
				}
				holder.Must("blocking EX EX", "notice f")
				holder.Must("EAGAIN", "notice f")
				becomes(t, holder, "1", "xattr "+how.name+" user.lockfs.waiters")
				asker.Kill()
				becomes(t, holder, "0", "xattr "+how.name+" user.lockfs.waiters")
			}
		})
	}

	t.Run("several", func(t *testing.T) { // descriptors, and waiters: once for each mode, and to granted locks only
		holder, second := view(0, "lock"), view(1, "lock")
		holder.Must("ok", "open f rdonly s1@pr", "open g rdonly s1@cr", "open h rdonly s2@pr", "open i rdonly s1@nl",
			"watch e f pri", "watch e g pri", "watch e h pri", "watch e i pri")
		second.Must("ok", "open k rdonly s1@pr", "watch e k pri,et")
		first := asks(2, "lock", "s1@pw")
		holder.Must("[f:pri]", "epoll e 60000")
		second.Must("[k:pri]", "epoll e 60000")
		asks(2, "lock", "s1@pw")
		asks(1, "lock", "s1@ex") // behind the first, and told of by its host's report
		becomes(t, holder, "[f:pri g:pri]", "epoll e 60000")
		asks(2, "lock", "s2")
		becomes(t, holder, "[f:pri g:pri h:pri]", "epoll e 60000")
		holder.Must("blocking PR PW", "notice f")
		becomes(t, holder, "blocking PR EX", "notice f")
		holder.Must("EAGAIN", "notice f")
		holder.Must("blocking CR EX", "notice g")
		holder.Must("EAGAIN", "notice g")
		holder.Must("blocking PR EX", "notice h")
		holder.Must("EAGAIN", "notice i")
		holder.Must("ok", "close f", "close g", "close h")
		second.Must("ok", "close k")
		if got := first.EndWithin(limit); got != "ok" {
			t.Error(got)
		}
		first.Must("[w:pri]", "watch e w pri", "epoll e 60000") // at once: others wait for it already
	})

	t.Run("how soon", func(t *testing.T) {
		for _, holder := range []int{c.Leader(), c.Others(c.Leader())[0]} {
			asker := c.Others(c.Leader())[1]
			lines := start(t, "wakes", c.Hosts[holder].Lock, c.Hosts[asker].Lock, "soon", "50").end(t)
			if last(lines) != "done" {
				t.Fatalf("it ended with %s", last(lines))
			}
			var took []time.Duration
			for _, line := range lines[:len(lines)-1] {
				took = append(took, time.Duration(number(line)))
			}
			slices.Sort(took)
			t.Logf("from the open on a follower to POLLPRI on host %s: p50 %v p99 %v", string(rune('a'+holder)), took[len(took)/2], took[len(took)*99/100])
		}
	})

	t.Run("gives way", func(t *testing.T) {
		holder := view(0, "lock")
		holder.Must("ok", "open f rdonly way", "flock f ex")
		asker := asks(2, "lock", "way")
		holder.Must("[pri]", "poll f pri 60000")
		holder.Must("[in pri out]", "poll f in,out,pri 0")
		holder.Must("ok", "flock f un")
		if got := asker.EndWithin(limit); got != "ok" {
			t.Error(got)
		}
		holder.Must("[in out]", "poll f in,out,pri 0")
		holder.Must("EAGAIN", "notice f")
	})

	t.Run("asynchronous", func(t *testing.T) {
		holder, asker := view(0, "lock"), view(1, "lock")
		holder.Must("ok", "open f rdwr async")
		asker.Must("[]", "open w rdwr async@ex,async", "watch e w in,et", "epoll e 0")
		holder.Must("[pri]", "poll f pri 60000")
		asker.Begin("epoll e 60000")
		holder.Must("ok", "close f")
		if got := asker.EndWithin(limit); got != "[w:in]" {
			t.Error(got)
		}
		asker.Must("granted EX", "notice w")
	})

	t.Run("lost", func(t *testing.T) { // here to a time to live; TestLinkDown has the end of a session
		holder, asker := view(0, "lock"), view(1, "lock")
		holder.Must("ok", "open f rdonly lost", "request f EX 300", "watch e f pri,et")
		holder.Begin("epoll e 60000")
		if got := holder.EndWithin(limit); got != "[f:err,hup]" {
			t.Error(got)
		}
		holder.Must("[err hup]", "poll f pri 0")
		holder.Must("[]", "select f pri 0") // by select(2) an error is readable and writable
		holder.Must("[in out]", "select f in,out 0")
		asker.Must("ok", "open w rdwr lost")
	})

	t.Run("dlmfs", func(t *testing.T) {
		holder := view(0, "dlmfs")
		holder.Must("[]", "open f rdwr dom/l", "watch e f in", "watch g f in,et", "epoll e 0")
		for turn := range 2 {
			holder.Begin("epoll g 60000")
			asker := asks(1+turn, "dlmfs", "dom/l")
			if got := holder.End(); got != "[f:in]" {
				t.Fatal(got)
			}
			holder.Must("[f:in]", "epoll e 0")
			asker.Kill()
			becomes(t, holder, "[]", "epoll e 0")
		}
	})
}

// wakes HERE THERE NAME N holds NAME on one host, opens it on the other, and says, N times, how many nanoseconds after the begin of
// that open poll(2) of the first descriptor returned with POLLPRI.
func wakes(args []string) int {
	n := int(number(args[3]))
	return steps(func() error {
		if n--; n < 0 {
			return io.EOF
		}
		fd, err := open(filepath.Join(args[0], args[2]), unix.O_RDWR)
		if err != nil {
			return err
		}
		got := make(chan error)
		begin := time.Now()
		go func() {
			other, err := open(filepath.Join(args[1], args[2]), unix.O_RDWR)
			if err == nil {
				err = unix.Close(other)
			}
			got <- err
		}()
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		for err = unix.EINTR; err == unix.EINTR; {
			_, err = unix.Poll(fds, int(limit.Milliseconds()))
		}
		took := time.Since(begin)
		if err == nil {
			_, err = ioc.TakeNotice(fd)
		}
		if err != nil {
			return err
		}
		say("%d", took)
		if err := unix.Close(fd); err != nil {
			return err
		}
		return <-got
	})
}
