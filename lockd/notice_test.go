package lockd_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

func TestNoticeText(t *testing.T) {
	for _, test := range []struct {
		n    lockd.Notice
		want string
	}{
		{lockd.Notice{
			Kind: lockd.NoticeBlocking, Mode: queue.EX, Wanted: queue.PR, By: lockd.Party{Host: "host2", PID: 4711, Comm: "backup"},
			Path: "/db/orders", Token: 77,
		}, "blocking mode=EX wanted=PR by=host2:4711 comm=backup path=/db/orders token=77"},
		{lockd.Notice{Kind: lockd.NoticeOverflow, Count: 3}, "overflow n=3"},
		{lockd.Notice{Kind: lockd.NoticeValue, Path: "/a", Generation: 9, By: lockd.Party{Host: "h"}}, "value by=h path=/a generation=9"},
		{lockd.Notice{Kind: lockd.NoticeRenamed, Path: "/a b", To: "/c\n=d", Dir: true}, `renamed path=/a\040b to=/c\012=d dir=1`},
		{lockd.Notice{Kind: lockd.NoticeLost, Path: "/ä\xff\\\x7f", Reason: "its time"}, `lost path=/ä\377\134\177 reason=its\040time`},
		{lockd.Notice{Kind: lockd.NoticeCreated, Path: "/\u2028\u00a0"}, `created path=/\342\200\250\302\240`},
		{lockd.Notice{Kind: lockd.NoticeHostLeft, By: lockd.Party{Host: "a b"}}, `host-left by=a\040b`},
		{lockd.Notice{Kind: 99}, "kind-99"},
	} {
		if got := test.n.String(); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("plain")
	f.Add("a b\\\x00\xff\u2028=\n")
	f.Fuzz(func(t *testing.T, s string) {
		got := string(lockd.AppendEscaped(nil, s))
		if strings.ContainsAny(got, " \n\t\x00") {
			t.Errorf("%q", got)
		}
		if back := unescape(got); back != s {
			t.Errorf("%q becomes %q and then %q", s, got, back)
		}
	})
}

// unescape is what a reader does.
func unescape(s string) string {
	var b []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			b = append(b, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}

// lines takes all that a subscription has.
func lines(s *lockd.Subscription) string {
	synctest.Wait()
	var b strings.Builder
	for {
		n, ok := s.Next()
		if !ok {
			return b.String()
		}
		b.WriteString(n.String() + "\n")
	}
}

func expect(t *testing.T, got string, want ...string) {
	t.Helper()
	if want := strings.Join(append(want, ""), "\n"); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// TestEventStream shows every kind that one host can cause.
func TestEventStream(t *testing.T) {
	bubble(t, func(r *rig) {
		all := r.h.Subscribe(lockd.Filter{})
		defer all.Close()
		file, dir := r.make("/db/orders"), r.make("/db/")
		expect(t, lines(all), "created by=host1 path=/db dir=1", "created by=host1 path=/db/orders")
		inDir := r.h.Subscribe(lockd.Filter{Ino: dir})
		defer inDir.Close()
		other := r.make("/other")
		lines(all)

		l := r.lock(file, queue.EX, 1)
		token := l.Token()
		a := r.ask(2, lockd.Request{Ino: file, Mode: queue.PR}).waits()
		granted := fmt.Sprintf("granted mode=EX by=host1:1 comm=commB path=/db/orders token=%d", token)
		blocking := fmt.Sprintf("blocking mode=EX wanted=PR by=host1:2 comm=commC path=/db/orders token=%d", token)
		expect(t, lines(all), granted, blocking)
		expect(t, lines(inDir), granted, blocking)

		if _, err := r.h.Commit(nil, l, &statepb.Commit{Ino: file, Change: &statepb.Commit_Whole{Whole: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
		r.h.Invalidate(nil, l, file)
		expect(t, lines(inDir), "value by=host1 path=/db/orders generation=1", "invalid by=host1 path=/db/orders")

		r.h.Convert(call(1), l, queue.NL, 0, 0)
		a.ends(nil)
		r.h.Release(a.l)
		r.h.Release(l)
		expect(t, lines(inDir),
			fmt.Sprintf("converted mode=NL by=host1:1 comm=commB path=/db/orders token=%d", token),
			fmt.Sprintf("granted mode=PR by=host1:2 comm=commC path=/db/orders token=%d", token),
			fmt.Sprintf("released mode=PR by=host1:2 comm=commC path=/db/orders token=%d", token),
			fmt.Sprintf("released mode=NL by=host1:1 comm=commB path=/db/orders token=%d", token))

		r.h.Rename(nil, &statepb.Rename{Parent: dir, Name: []byte("orders"), NewParent: state.Root, NewName: []byte("moved out")})
		expect(t, lines(inDir), `renamed by=host1 path=/db/orders to=/moved\040out`)
		lines(all)
		r.h.Remove(nil, &statepb.Remove{Parent: state.Root, Name: []byte("other")})
		expect(t, lines(all), "removed by=host1 path=/other")
		expect(t, lines(inDir))
		_ = other

		r.h.SetLeader("host1")
		r.h.SetLeader("host1")
		r.h.SetLeader("")
		host2, _ := r.start(lockd.Config{Name: "host2"})
		host2.Close()
		synctest.Wait()
		expect(t, lines(all), "leader by=host1", "leader", "host-joined by=host2", "host-left by=host2 reason=leave")

		r.m.SetDeaf(true)
		time.Sleep(6 * time.Second)
		r.m.SetDeaf(false)
		expect(t, lines(all), "jeopardy by=host1", "safe by=host1")
		expect(t, lines(inDir))
	})
}

// TestDeadlockAndLossNotices are the rest of the kinds.
func TestDeadlockAndLossNotices(t *testing.T) {
	bubble(t, func(r *rig) {
		first, second := r.twoShared()
		s := r.h.Subscribe(lockd.Filter{Path: "/a"})
		defer s.Close()
		r.converting(first, 1, queue.EX, 0).waits()
		r.converting(second, 2, queue.EX, 0).ends(lockd.ErrDeadlock)
		got := lines(s)
		if !strings.Contains(got, "deadlock mode=PR wanted=EX by=host1:2 comm=commC path=/a") || strings.Count(got, "deadlock ") != 1 {
			t.Errorf("got\n%s", got)
		}
		r.log.EndSession(r.h.Session())
		if got := lines(s); strings.Count(got, "lost mode=PR") != 2 || !strings.Contains(got, "reason=") {
			t.Errorf("got\n%s", got)
		}
	})
}

func TestFilters(t *testing.T) {
	bubble(t, func(r *rig) {
		r.make("/db/")
		sub := map[string]*lockd.Subscription{
			"/":    r.h.Subscribe(lockd.Filter{Path: "/"}),
			"/db":  r.h.Subscribe(lockd.Filter{Path: "/db"}),
			"/db/": r.h.Subscribe(lockd.Filter{Path: "/db/"}),
			"/d":   r.h.Subscribe(lockd.Filter{Path: "/d"}),
			"none": r.h.Subscribe(lockd.Filter{Sees: func([]*state.Node) bool { return false }}),
		}
		r.make("/db/x")
		r.make("/dbx")
		for name, want := range map[string]int{"/": 2, "/db": 1, "/db/": 1, "/d": 0, "none": 0} {
			if got := strings.Count(lines(sub[name]), "\n"); got != want {
				t.Errorf("filter %s: %d notices, want %d", name, got, want)
			}
			sub[name].Close()
		}
	})
}

// TestOverflow: a slow reader loses the oldest and is told how many.
func TestOverflow(t *testing.T) {
	bubble(t, func(r *rig) {
		wakes := 0
		s := r.h.Subscribe(lockd.Filter{Limit: 3, Wake: func() { wakes++ }})
		for i := range 10 {
			r.make(fmt.Sprintf("/f%d", i))
		}
		expect(t, lines(s), "overflow n=7", "created by=host1 path=/f7", "created by=host1 path=/f8", "created by=host1 path=/f9")
		r.make("/g")
		r.make("/h")
		expect(t, lines(s), "created by=host1 path=/g", "created by=host1 path=/h")
		if wakes != 2 {
			t.Errorf("woken %d times", wakes)
		}
		s.Close()
		s.Close()
		r.make("/i")
		expect(t, lines(s))
	})
}

func TestSubscriptionWait(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.h.Subscribe(lockd.Filter{})
		wait := func() *asking {
			return r.asks(1, nil, func(c *lockd.Call, _ *lockd.Lock) error { return s.Wait(c) })
		}
		a := wait().waits()
		r.make("/a")
		a.ends(nil)
		wait().ends(nil) // not taken yet
		lines(s)
		a = wait().waits()
		close(a.cancel)
		a.ends(lockd.ErrInterrupted)
		a = wait().waits()
		s.Close()
		a.ends(lockd.ErrClosed)
		s = r.h.Subscribe(lockd.Filter{})
		a = wait().waits()
		r.h.Close()
		for s.Waiting() {
			lines(s)
			a = wait()
		}
		a.ends(lockd.ErrClosed)
	})
}

// TestValueNotices: a lock's own commit is no news to it; other locks of the resource are told.
func TestValueNotices(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		mine, theirs := &lockd.Lock{Listener: &recorder{}}, &lockd.Lock{Listener: &recorder{}}
		r.h.Lock(call(1), mine, lockd.Request{Ino: ino, Mode: queue.PW})
		r.h.Lock(call(2), theirs, lockd.Request{Ino: ino, Mode: queue.CR})
		if _, err := r.h.Commit(nil, mine, &statepb.Commit{Ino: ino, Change: &statepb.Commit_Whole{Whole: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
		if got := mine.Listener.(*recorder).kinds(); got != "" {
			t.Errorf("the committer is told %q", got)
		}
		if got := theirs.Listener.(*recorder).kinds(); got != "value" {
			t.Errorf("the other is told %q", got)
		}
	})
}

// TestBlockingOncePerMode: one blocking AST for each new blocked mode, and again when the wait that caused it is over.
func TestBlockingOncePerMode(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX})
		a := r.ask(2, lockd.Request{Ino: ino, Mode: queue.PR}).waits()
		b := r.ask(3, lockd.Request{Ino: ino, Mode: queue.PR}).waits()
		if !r.h.Blocks(l) {
			t.Error("it blocks nobody")
		}
		c := r.ask(4, lockd.Request{Ino: ino, Mode: queue.EX}).waits()
		if got := rec.kinds(); got != "blocking:PR blocking:EX" {
			t.Errorf("told %q", got)
		}
		for _, x := range []*asking{a, b, c} {
			close(x.cancel)
			x.ends(lockd.ErrInterrupted)
		}
		if r.h.Blocks(l) {
			t.Error("it still blocks somebody")
		}
		r.ask(6, lockd.Request{Ino: ino, Mode: queue.PR, Wait: time.Second}).ends(lockd.ErrTimeout)
		if got := rec.kinds(); got != "blocking:PR" {
			t.Errorf("told %q", got)
		}
		r.h.Release(l)
		r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX, Flags: queue.NoBAST})
		s := r.h.Subscribe(lockd.Filter{Ino: ino})
		r.ask(7, lockd.Request{Ino: ino, Mode: queue.PR, Wait: time.Second}).ends(lockd.ErrTimeout)
		if got := rec.kinds(); got != "" {
			t.Errorf("with nobast, told %q", got)
		}
		expect(t, lines(s), fmt.Sprintf("blocking mode=EX wanted=PR by=host1:7 comm=commH path=/a token=%d", l.Token()))
	})
}

func TestLocksListing(t *testing.T) {
	bubble(t, func(r *rig) {
		ino := r.make("/a")
		start := time.Now()
		rec := &recorder{}
		l := &lockd.Lock{Listener: rec}
		r.h.Lock(call(1), l, lockd.Request{Ino: ino, Mode: queue.EX})
		time.Sleep(time.Second)
		a := r.ask(2, lockd.Request{Ino: ino, Mode: queue.PR}).waits()
		b := r.ask(3, lockd.Request{Ino: ino, Mode: queue.CW}).waits()
		host2, _ := r.start(lockd.Config{Name: "host2"})
		remote := make(chan error, 1)
		go func() {
			var l lockd.Lock
			remote <- host2.Lock(call(9), &l, lockd.Request{Ino: ino, Mode: queue.PW})
			host2.Release(&l)
		}()
		time.Sleep(200 * time.Millisecond) // until all is told
		list := r.h.Locks(ino)
		if len(list) < 4 {
			t.Fatalf("%d locks: %+v", len(list), list)
		}
		held, first, second := list[0], list[1], list[2]
		if held.Mode != queue.EX || held.PID != 1 || held.UID != 1001 || held.Token != l.Token() || held.Listener != lockd.Listener(rec) ||
			!held.Since.Equal(start) || held.Comm != "commB" || r.h.Cmdline(nil, &held) != "cmd line" || held.Tgid != 1 || held.Place != 0 {
			t.Errorf("held: %+v", held)
		}
		if first.Wanted != queue.PR || first.Mode != queue.None || first.Place != 1 || !first.Since.Equal(start.Add(time.Second)) ||
			len(first.BlockedBy) == 0 || first.BlockedBy[0] != (lockd.Party{Host: "host1", PID: 1, Comm: "commB"}) {
			t.Errorf("first: %+v", first)
		}
		if second.Wanted != queue.CW || second.Place != 2 || len(second.BlockedBy) != 2 {
			t.Errorf("second: %+v", second)
		}
		for _, x := range list[3:] {
			if x.Here || x.Host != "host2" || x.Wanted != queue.PW || x.PID != 9 || x.UID != 1009 || x.Comm != "commJ" || x.Place != 1 ||
				!x.Since.Equal(start.Add(time.Second)) || !slices.Contains(x.BlockedBy, lockd.Party{Host: "host1", PID: 1, Comm: "commB"}) {
				t.Errorf("of another host: %+v", x)
			}
		}
		list = host2.Locks(ino)
		if len(list) != 4 || !list[0].Here || list[0].Wanted != queue.PW || list[1].Here || list[1].Mode != queue.EX || list[1].Tgid != 1 ||
			list[1].Token != l.Token() || list[2].Wanted != queue.PR || list[2].Place != 1 || list[3].Place != 2 {
			t.Errorf("on the other host: %+v", list)
		}
		n := 0
		for range r.h.AllLocks() {
			n++
		}
		if n < 4 {
			t.Errorf("%d of all locks", n)
		}
		if info, ok := r.h.Info(b.l); !ok || info.Wanted != queue.CW {
			t.Errorf("info: %+v, %v", info, ok)
		}
		if _, ok := r.h.Info(new(lockd.Lock)); ok {
			t.Error("info of nothing")
		}
		r.h.Release(l)
		a.ends(nil)
		r.h.Release(a.l)
		b.ends(nil)
		r.h.Release(b.l)
		if err := <-remote; err != nil {
			t.Error(err)
		}
	})
}
