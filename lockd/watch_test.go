package lockd_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestWatchElsewhere: what happens to the locks of another host's processes is seen here, in order, as soon as somebody watches.
func TestWatchElsewhere(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		a, other := r.make("/d/a"), r.make("/other")
		dir := r.make("/d/")
		lock := func(h *lockd.Host, ino uint64, pid uint32) *lockd.Lock {
			l := new(lockd.Lock)
			if err := h.Lock(call(pid), l, lockd.Request{Ino: ino, Mode: queue.EX}); err != nil {
				t.Fatal(err)
			}
			return l
		}
		host2.Release(lock(host2, a, 2))
		commands := host2.Status().Counters.Commands
		host2.Release(lock(host2, a, 2))
		if now := host2.Status().Counters.Commands; now != commands {
			t.Errorf("%d commands for what nobody watches", now-commands)
		}

		s := r.h.Subscribe(lockd.Filter{Ino: dir})
		r.h.Watching(call(1))
		synctest.Wait()
		l := lock(host2, a, 2)
		if err := host2.Convert(call(2), l, queue.PR, 0, 0); err != nil {
			t.Fatal(err)
		}
		w := r.ask(3, lockd.Request{Ino: a, Mode: queue.EX}).waits()
		host2.Release(lock(host2, other, 4))
		token := l.Token()
		host2.Release(l)
		w.ends(nil)
		theirs := w.l.Token()
		r.h.Release(w.l)
		expect(t, lines(s),
			fmt.Sprintf("granted mode=EX by=host2:2 comm=commC path=/d/a token=%d", token),
			fmt.Sprintf("converted mode=PR by=host2:2 comm=commC path=/d/a token=%d", token),
			fmt.Sprintf("blocking mode=PR wanted=EX by=host1:3 comm=commD path=/d/a token=%d", token),
			fmt.Sprintf("released mode=PR by=host2:2 comm=commC path=/d/a token=%d", token),
			fmt.Sprintf("granted mode=EX by=host1:3 comm=commD path=/d/a token=%d", theirs),
			fmt.Sprintf("released mode=EX by=host1:3 comm=commD path=/d/a token=%d", theirs))
		s.Close()
		synctest.Wait()
		host2.Release(lock(host2, a, 2))
		commands = host2.Status().Counters.Commands
		host2.Release(lock(host2, a, 2))
		if now := host2.Status().Counters.Commands; now != commands {
			t.Errorf("%d commands for what nobody watches any more", now-commands)
		}
	})
}

// TestWatchInTheOrderOfTheLog: what a host let go of is told before anybody else is told to have it, whoever watches.
func TestWatchInTheOrderOfTheLog(t *testing.T) {
	bubble(t, func(r *rig) {
		hosts := []*lockd.Host{r.h}
		for i := range 2 {
			h, _ := r.start(lockd.Config{Name: fmt.Sprintf("host%d", i+2)})
			hosts = append(hosts, h)
		}
		ino := r.make("/a")
		var streams []*lockd.Subscription
		for _, h := range hosts {
			streams = append(streams, h.Subscribe(lockd.Filter{Ino: ino}))
		}
		synctest.Wait()
		const each = 20
		done := make(chan error)
		for i, h := range hosts {
			for p := range each {
				go func() {
					var l lockd.Lock
					err := h.Lock(call(uint32(100*i+p+1)), &l, lockd.Request{Ino: ino, Mode: queue.EX})
					h.Release(&l)
					done <- err
				}()
			}
		}
		for range each * len(hosts) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for i, s := range streams {
			holder, granted := "", 0
			for line := range strings.Lines(lines(s)) {
				f := strings.Fields(line)
				switch {
				case f[0] == "granted" && holder == "":
					holder = f[2]
					granted++
				case f[0] == "released" && holder == f[2]:
					holder = ""
				case f[0] != "blocking":
					t.Errorf("host%d, while %q has it: %s", i+1, holder, line)
				}
			}
			if granted != each*len(hosts) || holder != "" {
				t.Errorf("host%d saw %d grants, want %d; %q has it", i+1, granted, each*len(hosts), holder)
			}
		}
	})
}

// TestWatchTooMuch: what is dropped is told of, with its number.
func TestWatchTooMuch(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, m2 := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/a")
		warm := new(lockd.Lock)
		host2.Lock(call(2), warm, lockd.Request{Ino: ino, Mode: queue.EX})
		host2.Release(warm)
		s := r.h.Subscribe(lockd.Filter{Limit: 1 << 20})
		synctest.Wait()
		m2.SetCut(true)
		const times = 5000
		for range times {
			host2.Lock(call(2), warm, lockd.Request{Ino: ino, Mode: queue.EX})
			host2.Release(warm)
		}
		m2.SetCut(false)
		time.Sleep(2 * time.Second)
		got := lines(s)
		told, dropped := 0, 0
		for line := range strings.Lines(got) {
			if n := 0; strings.HasPrefix(line, "overflow") {
				fmt.Sscanf(line, "overflow by=host2 n=%d", &n)
				dropped += n
			} else {
				told++
			}
		}
		if told+dropped != 2*times || dropped == 0 {
			t.Errorf("%d told and %d dropped, of %d", told, dropped, 2*times)
		}
	})
}

// TestWatchEndOfSession: of the locks of a host that is dead the others tell.
func TestWatchEndOfSession(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, m2 := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/a")
		s := r.h.Subscribe(lockd.Filter{})
		synctest.Wait()
		var l lockd.Lock
		host2.Lock(call(2), &l, lockd.Request{Ino: ino, Mode: queue.EX})
		token := l.Token()
		time.Sleep(time.Second) // until it is reported
		m2.SetCut(true)
		m2.SetDeaf(true)
		lines(s)
		r.log.EndSession(host2.Session())
		expect(t, lines(s), "host-left by=host2 reason=expired",
			fmt.Sprintf("released mode=EX by=host2:2 comm=commC path=/a token=%d reason=expired", token), "invalid by=host2 path=/a")
		m2.SetCut(false)
		m2.SetDeaf(false)
		time.Sleep(2 * time.Second)
		if got := lines(s); !strings.HasPrefix(got, "host-joined by=host2") || strings.Contains(got, "lost") {
			t.Errorf("healed:\n%s", got)
		}
	})
}

// TestLeavesTwice: a session that a host did not need is no host that has left.
func TestLeavesTwice(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.h.Subscribe(lockd.Filter{})
		for i, op := range []*statepb.Command{
			{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: "host1", Nonce: 77}}},
			{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{Reason: statepb.EndReason_LEAVE}}},
		} {
			if end := op.GetEndSession(); end != nil {
				for x := range r.h.View().Sessions() {
					end.Session = x.ID // the last one
				}
			}
			r.m.Propose(state.Encode([]*statepb.Command{op}), func(error) {})
			synctest.Wait()
			want := []string{"host-joined by=host1"}
			expect(t, lines(s), want[min(i, 1):]...)
		}
		if n := r.h.Session(); n == 0 {
			t.Error("it has no session")
		}
	})
}

// TestWatchAgain: a host that lost its session says anew what it watches, and its readers learn that something may be missing.
func TestWatchAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		ino := r.make("/a")
		s := r.h.Subscribe(lockd.Filter{Ino: ino})
		synctest.Wait()
		r.log.EndSession(r.h.Session())
		time.Sleep(2 * time.Second)
		expect(t, lines(s), "overflow")
		var l lockd.Lock
		host2.Lock(call(2), &l, lockd.Request{Ino: ino, Mode: queue.EX})
		if got := lines(s); !strings.HasPrefix(got, "granted mode=EX by=host2:2") {
			t.Errorf("got\n%s", got)
		}
	})
}

// TestBlockingBehindAnother: a lock's listener is told of a new mode that another host's process asks for behind the first.
func TestBlockingBehindAnother(t *testing.T) {
	bubble(t, func(r *rig) {
		host2, _ := r.start(lockd.Config{Name: "host2"})
		host3, _ := r.start(lockd.Config{Name: "host3"})
		ino := r.make("/a")
		s := r.h.Subscribe(lockd.Filter{Ino: ino})
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX})
		lines(s)
		ask := func(h *lockd.Host, pid uint32, mode queue.Mode) *asking {
			a := r.askOn(h, pid, lockd.Request{Ino: ino, Mode: mode}).waits()
			time.Sleep(200 * time.Millisecond) // until it is reported
			return a
		}
		all := []*asking{ask(host2, 2, queue.EX), ask(host3, 3, queue.PR), ask(host2, 4, queue.PR), ask(host3, 5, queue.EX)}
		if got := rec.kinds(); got != "blocking:EX blocking:PR" {
			t.Errorf("told %q", got)
		}
		want := ""
		for _, by := range []string{"EX by=host2:2 comm=commC", "PR by=host3:3 comm=commD", "PR by=host2:4 comm=commE", "EX by=host3:5 comm=commF"} {
			want += fmt.Sprintf("blocking mode=EX wanted=%s path=/a token=%d\n", by, l.Token())
		}
		if got := lines(s); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
		for _, a := range all {
			close(a.cancel)
			a.ends(lockd.ErrInterrupted)
		}
		time.Sleep(time.Second)
		rec.take() // as one after the other went, others came first
		all = []*asking{ask(host3, 6, queue.EX)}
		if got := rec.kinds(); got != "blocking:EX" {
			t.Errorf("after all had gone, told %q", got)
		}
		// A try does not wait.
		close(all[0].cancel)
		all[0].ends(lockd.ErrInterrupted)
		r.askOn(host2, 7, lockd.Request{Ino: ino, Mode: queue.CW, Flags: queue.NoQueue}).ends(lockd.ErrBusy)
		if got := rec.kinds(); got != "" {
			t.Errorf("told %q of a try", got)
		}
	})
}

// TestSeen: a name that moves out of sight is told as removed, one that comes into it as created.
func TestSeen(t *testing.T) {
	bubble(t, func(r *rig) {
		r.make("/secret/")
		secret := r.make("/secret/")
		r.make("/a")
		s := r.h.Subscribe(lockd.Filter{Sees: func(dirs []*state.Node) bool {
			for _, d := range dirs {
				if d.Ino == secret {
					return false
				}
			}
			return len(dirs) > 0
		}})
		rename := func(from uint64, name string, to uint64, newName string) {
			if _, err := r.h.Rename(nil, moved(from, name, to, newName)); err != nil {
				t.Fatal(err)
			}
		}
		rename(state.Root, "a", secret, "b")
		rename(secret, "b", secret, "c")
		rename(secret, "c", state.Root, "d")
		rename(state.Root, "d", state.Root, "e")
		expect(t, lines(s), "removed by=host1 path=/a", "created by=host1 path=/d", "renamed by=host1 path=/d to=/e")
	})
}

func moved(from uint64, name string, to uint64, newName string) *statepb.Rename {
	return &statepb.Rename{Parent: from, Name: []byte(name), NewParent: to, NewName: []byte(newName)}
}
