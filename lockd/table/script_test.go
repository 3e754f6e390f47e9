package table

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestScripts runs the golden scripts of testdata: some hosts over one state. A
// lock is named OWNER or OWNER.NAME; locks with the same OWNER are of one process.
// Proposals are applied by `run`, or at once after `auto on`.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		w := newWorld(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			w.t, w.out = t, strings.Builder{}
			for _, line := range strings.Split(strings.TrimSpace(d.Cmd+" "+argLine(d)+"\n"+d.Input), "\n") {
				if line = strings.TrimSpace(line); line != "" && line != "do" {
					w.line(line)
				}
			}
			if w.out.Len() == 0 {
				return "ok"
			}
			return w.out.String()
		})
	})
}

func argLine(d *datadriven.TestData) string {
	var args []string
	for _, a := range d.CmdArgs {
		args = append(args, a.String())
	}
	return strings.Join(args, " ")
}

// world is some hosts and the state they share.
type world struct {
	t     *testing.T
	out   strings.Builder
	state *state.State
	view  *state.View
	index uint64
	hosts []*host
	locks map[string]*named
	auto  bool
	now   int64
}

type host struct {
	w       *world
	name    string
	session uint64
	seq     uint64
	t       *Table
	queued  []*statepb.Command
	shell   bool // as a shell: Try first, look for own locks
}

type named struct {
	Lock
	name string
	h    *host
}

func (n *named) owner() string { o, _, _ := strings.Cut(n.name, "."); return o }

func newWorld(t *testing.T) *world {
	w := &world{t: t, state: state.New(), locks: map[string]*named{}}
	w.view = w.state.View()
	return w
}

func (w *world) Parent(ino uint64) (uint64, bool) {
	n := w.view.Node(ino)
	if n == nil {
		return 0, false
	}
	return n.Parent, true
}

func (w *world) Ephemeral(ino uint64) bool {
	n := w.view.Node(ino)
	return n != nil && n.Ephemeral
}

func (w *world) printf(format string, args ...any) { fmt.Fprintf(&w.out, format, args...) }

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nso far: %s", fmt.Sprintf(format, args...), w.out.String())
}

func (w *world) host(name string) *host {
	for _, h := range w.hosts {
		if h.name == name {
			return h
		}
	}
	w.fatalf("no host %s", name)
	return nil
}

// ino resolves a path from the root; "/" is the root.
func (w *world) ino(path string) uint64 {
	ino := state.Root
	for _, name := range strings.Split(path, "/") {
		if name == "" {
			continue
		}
		n := w.view.Lookup(ino, name)
		if n == nil {
			w.fatalf("no node %s", path)
		}
		ino = n.Ino
	}
	return ino
}

func (w *world) path(ino uint64) string {
	if p := w.view.Path(ino); p != "" {
		return strings.TrimPrefix(p, "/") + map[bool]string{true: "/"}[p == "/"]
	}
	return fmt.Sprintf("#%d", ino)
}

// apply applies one entry and hands its changes to all hosts.
func (w *world) apply(cmds ...*statepb.Command) []state.Change {
	w.index++
	changes, err := w.state.Apply(w.index, state.Encode(cmds))
	if err != nil {
		w.fatalf("apply: %v", err)
	}
	w.view = w.state.View()
	for _, c := range changes {
		w.change(c)
		for _, h := range w.hosts {
			h.t.Applied(c)
		}
	}
	w.check()
	return changes
}

// change shows the changes that matter here.
func (w *world) change(c state.Change) {
	who := ""
	for _, h := range w.hosts {
		if h.session == c.Session {
			who = h.name
		}
	}
	switch c.Kind {
	case state.HostGranted:
		w.printf("  %s: %s is now %v\n", who, w.path(c.Ino), c.Mode)
	case state.HostLowered:
		w.printf("  %s: %s is lowered to %v\n", who, w.path(c.Ino), c.Mode)
	case state.Recall, state.RecallCancelled:
		try := ""
		if c.Try {
			try = " (try)"
		}
		w.printf("  %s: %v of %s for %v%s\n", who, c.Kind, w.path(c.Ino), c.Wanted, try)
	case state.HostRefused:
		w.printf("  %s: refused %s\n", who, w.path(c.Ino))
	case state.Removed, state.Moved:
		w.printf("  %v %s\n", c.Kind, c.Name)
	case state.Done:
		if c.Code != state.OK {
			w.printf("  %s: %v at %s\n", who, c.Code, w.path(c.Ino))
		}
	}
}

func (w *world) check() {
	for _, h := range w.hosts {
		if err := h.t.Check(); err != nil {
			w.fatalf("%s: %v", h.name, err)
		}
	}
}

// collect takes what the hosts have to say, and reports whether they propose
// anything.
func (w *world) collect() (any bool) {
	for _, h := range w.hosts {
		for h.t.Pending() {
			out := h.t.Take()
			for _, e := range out.Events {
				w.event(h, e)
			}
			for _, cmd := range out.Proposals {
				h.seq++
				cmd.Session, cmd.Seq = h.session, h.seq
				w.printf("  %s proposes %s\n", h.name, w.describe(cmd))
			}
			h.queued = append(h.queued, out.Proposals...)
		}
		any = any || len(h.queued) > 0
	}
	w.check()
	return any
}

func (w *world) describe(cmd *statepb.Command) string {
	switch op := cmd.Op.(type) {
	case *statepb.Command_Acquire:
		var steps []string
		for _, s := range op.Acquire.Steps {
			x := fmt.Sprintf("%s %v→%v", w.path(s.Ino), queue.Mode(s.Keep), queue.Mode(s.Want))
			if s.Convert {
				x += " convert"
			}
			if s.Flags != 0 {
				x += " " + queue.Flags(s.Flags).String()
			}
			steps = append(steps, x)
		}
		return "acquire " + strings.Join(steps, ", ")
	case *statepb.Command_Release:
		return fmt.Sprintf("release %s keep %v", w.path(op.Release.Ino), queue.Mode(op.Release.Keep))
	case *statepb.Command_Cancel:
		return "cancel " + w.path(op.Cancel.Ino)
	case *statepb.Command_InUse:
		return "in-use " + w.path(op.InUse.Ino)
	}
	return fmt.Sprint(cmd)
}

func (w *world) event(h *host, e Event) {
	name := func(l *Lock) string {
		for _, n := range w.locks {
			if &n.Lock == l {
				return n.name
			}
		}
		return "?"
	}
	switch e.Kind {
	case Granted:
		w.printf("  %s granted %v", name(e.Lock), e.Mode)
		if e.Converted {
			w.printf(" (converted)")
		}
		w.printf("\n")
	case Refused:
		w.printf("  %s refused: %v\n", name(e.Lock), e.Reason)
	case Blocking:
		by := name(e.By)
		if e.By == nil {
			by = fmt.Sprintf("session %d", e.Asker.Session)
		}
		w.printf("  %s blocks %s, which wants %v of %s\n", name(e.Lock), by, e.Mode, w.path(e.Ino))
	case Waiting:
		w.printf("  %s waits at %s\n", name(e.Lock), w.path(e.Ino))
		if h.shell {
			l := e.Lock
			h.t.SetOwn(l, w.own(l, h.t.Rivals(l, l.Wanted)))
		}
	case Deadlock:
		var cycle []string
		for _, l := range e.Cycle {
			cycle = append(cycle, name(l))
		}
		w.printf("  deadlock: %s\n", strings.Join(cycle, " → "))
	case Lost:
		w.printf("  %s lost\n", name(e.Lock))
	default:
		w.printf("  %s: %v\n", h.name, e.Kind)
	}
}

// own picks, of some rivals, those of l's owner.
func (w *world) own(l *Lock, rivals []*Lock) []*Lock {
	byLock := map[*Lock]*named{}
	for _, n := range w.locks {
		byLock[&n.Lock] = n
	}
	return slices.DeleteFunc(rivals, func(r *Lock) bool { return byLock[r].owner() != byLock[l].owner() })
}

// run applies what is proposed until nothing is.
func (w *world) run() {
	for range 100 {
		if !w.collect() {
			return
		}
		for _, h := range w.hosts {
			if len(h.queued) > 0 {
				cmds := h.queued
				h.queued = nil
				w.apply(cmds...)
			}
		}
	}
	w.fatalf("it goes on for ever")
}

func (w *world) line(line string) {
	f := strings.Fields(line)
	if len(w.hosts) > 0 && f[0] != "host" {
		w.printf("%s\n", line)
	}
	w.command(f[0], f[1:])
	if w.auto {
		w.run()
	} else {
		w.collect()
	}
}

func (w *world) command(cmd string, args []string) {
	switch cmd {
	case "host":
		w.newHost(args)
	case "auto":
		w.auto = args[0] == "on"
	case "run":
		w.run()
	case "apply": // only what one host has proposed, in one entry
		h := w.host(args[0])
		cmds := h.queued
		h.queued = nil
		w.apply(cmds...)
	case "mkdir", "touch", "touch-locked":
		w.make(args, cmd)
	case "rm", "rmdir", "rm-posix":
		w.remove(args, cmd)
	case "mv":
		w.move(args)
	case "ephemeral":
		h := w.hosts[0]
		h.do(&statepb.Command{Op: &statepb.Command_SetXattr{SetXattr: &statepb.SetXattr{
			Ino: w.ino(args[0]), Name: []byte(state.XattrEphemeral), Value: []byte("1"),
		}}})
	case "lock":
		w.lock(args)
	case "convert":
		w.convert(args)
	case "release":
		n := w.locks[args[0]]
		n.h.t.Release(&n.Lock)
	case "cancel":
		n := w.locks[args[0]]
		w.printf("  has %v\n", map[bool]string{true: "something", false: "nothing"}[n.h.t.Cancel(&n.Lock)])
	case "pin":
		w.printf("  %v\n", w.host(args[0]).t.Pin(w.ino(args[1])))
	case "unpin":
		w.host(args[0]).t.Unpin(w.ino(args[1]))
	case "tick":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			w.fatalf("%v", err)
		}
		w.now += int64(d)
		for _, h := range w.hosts {
			h.t.Tick(w.now)
		}
	case "renewed": // HOST HALFWAY END, from now
		half, _ := time.ParseDuration(args[1])
		end, _ := time.ParseDuration(args[2])
		w.host(args[0]).t.Renewed(w.now+int64(half), w.now+int64(end))
	case "end-session":
		w.apply(&statepb.Command{Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{
			Session: w.host(args[0]).session, RenewedIndex: 1 << 60,
		}}})
	case "reopen":
		w.host(args[0]).open()
	case "restored":
		w.host(args[0]).t.Restored(w.view)
	case "show":
		w.show(args)
	case "blocks":
		n := w.locks[args[0]]
		w.printf("  %v\n", n.h.t.Blocks(&n.Lock))
	case "count": // LOCK N: set the token's counter of its resource
		n := w.locks[args[0]]
		fmt.Sscan(args[1], &n.res.count)
	default:
		w.fatalf("unknown command %s", cmd)
	}
}

// newHost: NAME [cohort=N] [idlemax=N] [idlefor=D] [maxlocks=N] [maxwaiters=N].
func (w *world) newHost(args []string) {
	cfg := Config{Tree: w}
	for _, a := range args[1:] {
		key, val, _ := strings.Cut(a, "=")
		switch key {
		case "cohort":
			fmt.Sscan(val, &cfg.CohortN)
		case "idlemax":
			fmt.Sscan(val, &cfg.IdleMax)
		case "idlefor":
			cfg.IdleFor, _ = time.ParseDuration(val)
		case "maxlocks":
			fmt.Sscan(val, &cfg.MaxLocks)
		case "maxwaiters":
			fmt.Sscan(val, &cfg.MaxWaiters)
		default:
			w.fatalf("what is %s", a)
		}
	}
	h := &host{w: w, name: args[0], t: New(cfg), shell: true}
	w.hosts = append(w.hosts, h)
	h.open()
	w.out.Reset()
}

func (h *host) open() {
	changes := h.w.apply(&statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{
		Host: h.name, Nonce: h.w.index,
	}}})
	h.session, h.seq, h.queued = changes[len(changes)-1].Session, 0, nil
	h.t.Session(h.session, h.w.view.TokenBase())
}

// do applies one command of the host at once.
func (h *host) do(cmd *statepb.Command) state.Change {
	if len(h.queued) > 0 {
		h.w.fatalf("%s has proposals that are not applied", h.name)
	}
	h.seq++
	cmd.Session, cmd.Seq = h.session, h.seq
	changes := h.w.apply(cmd)
	return changes[len(changes)-1]
}

func (w *world) make(args []string, cmd string) {
	h := w.hosts[0]
	if len(args) > 1 {
		h = w.host(args[1])
	}
	dir, name := split(args[0])
	h.do(&statepb.Command{Op: &statepb.Command_Make{Make: &statepb.Make{
		Parent: w.ino(dir), Name: []byte(name), Dir: cmd == "mkdir", Lock: cmd == "touch-locked",
	}}})
}

func split(path string) (dir, name string) {
	i := strings.LastIndex(path, "/")
	if i < 0 {
		return "/", path
	}
	return path[:i], path[i+1:]
}

// remove: HOST PATH.
func (w *world) remove(args []string, cmd string) {
	dir, name := split(args[1])
	w.host(args[0]).do(&statepb.Command{Op: &statepb.Command_Remove{Remove: &statepb.Remove{
		Parent: w.ino(dir), Name: []byte(name), Dir: cmd == "rmdir", Posix: cmd == "rm-posix",
	}}})
}

// move: HOST FROM TO.
func (w *world) move(args []string) {
	dir, name := split(args[1])
	todir, to := split(args[2])
	w.host(args[0]).do(&statepb.Command{Op: &statepb.Command_Rename{Rename: &statepb.Rename{
		Parent: w.ino(dir), Name: []byte(name), NewParent: w.ino(todir), NewName: []byte(to),
	}}})
}

func (w *world) flags(args []string) (mode queue.Mode, flags queue.Flags) {
	mode, ok := queue.ParseMode(args[0])
	if !ok {
		w.fatalf("no mode %s", args[0])
	}
	for _, a := range args[1:] {
		f, ok := queue.ParseFlag(a)
		if !ok {
			w.fatalf("no flag %s", a)
		}
		flags |= f
	}
	return mode, flags
}

// lock: HOST NAME PATH MODE [FLAGS…], as a shell does it.
func (w *world) lock(args []string) {
	h := w.host(args[0])
	mode, flags := w.flags(args[3:])
	n := &named{name: args[1], h: h, Lock: Lock{Ino: w.ino(args[2])}}
	w.locks[args[1]] = n
	l := &n.Lock
	if h.t.Try(l, mode, flags) {
		w.printf("  %s has %v from the cache\n", n.name, mode)
		return
	}
	h.t.Request(l, mode, flags, w.own(l, h.t.Rivals(l, mode)))
}

// convert: NAME MODE [FLAGS…].
func (w *world) convert(args []string) {
	n := w.locks[args[0]]
	mode, flags := w.flags(args[1:])
	l := &n.Lock
	if n.h.t.TryConvert(l, mode, flags) {
		w.printf("  %s converted to %v from the cache\n", n.name, mode)
		return
	}
	n.h.t.Convert(l, mode, flags, w.own(l, n.h.t.Rivals(l, mode)))
}

// show: HOST.
func (w *world) show(args []string) {
	t := w.host(args[0]).t
	for r := range t.Resources() {
		w.printf("  %s host %v in use %v", w.path(r.Ino), r.Mode, r.InUse)
		if r.Asked != queue.None {
			w.printf(" asked %v", r.Asked)
		}
		if r.Wanted != queue.None {
			w.printf(" recalled for %v", r.Wanted)
		}
		if r.Idle {
			w.printf(" idle")
		}
		w.printf("\n")
	}
	for l := range t.All() {
		for _, n := range w.locks {
			if &n.Lock != l {
				continue
			}
			w.printf("  %s %v", n.name, l.Mode)
			if l.Waits() {
				w.printf(" waits for %v at %s", l.Wanted, w.path(l.At()))
			}
			if l.Token != 0 {
				w.printf(" token %d+%d", l.Token>>20, l.Token&(1<<20-1))
			}
			w.printf("\n")
		}
	}
}
