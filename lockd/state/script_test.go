package state

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestScripts runs the golden scripts. In each, hosts are named and every line is a command:
//
//	apply [t=SECONDS]       each line is an entry of its own
//	batch [t=SECONDS]       all lines are one entry
//	HOST open [ttl=MS]      HOST leave|expire|restart|renew
//	HOST mkdir|make PATH [perm=] [uid=] [lock]
//	HOST rm|rmdir PATH [posix] [drop] [ino=]       HOST mv PATH PATH [noreplace] [posix] [drop]
//	HOST attr PATH [perm= uid= gid= mtime=]        HOST xattr PATH NAME VALUE [create|replace]   HOST rmxattr PATH NAME
//	HOST acquire PATH=WANT|PATH=KEEP:WANT... [noqueue|try|headque|quecvt|altpr|altcw] [convert]
//	HOST release PATH [KEEP]    HOST cancel PATH    HOST inuse PATH WAITER    HOST forget PATH
//	HOST commit PATH VALUE [base=]    HOST write PATH OFFSET BYTES    HOST append PATH BYTES    HOST truncate PATH SIZE
//	HOST invalidate PATH
//	HOST lock PATH OWNER r|w START-END [wait=ID] [ofd]   HOST unlock PATH OWNER START-END|all   HOST rcancel ID
//	HOST held PATH ID MODE [pid=] [nodlckblk]    HOST gone PATH ID    HOST confirm NUMBER [stuck|wrong] [round=]
//	HOST waits PATH ID MODE [pid=] [at=PATH] [rank=] [first] [holds=PATH:ID,…] [convert] [range=ID] [nodlckwt] [nodlckblk]
//	HOST watch INO…      HOST tell EVENT PATH MODE [wanted=MODE] [pid=] [comm=] [token=] [lost=]
//	- limits NAME=N...   - format uid gid    - barrier
//	- host ID NAME [ADDRESS] [durable]    - unhost ID
//
// `seq=N` replaces the sequence number. PATH may be #INO. `reports`, `suspicions`, `deadlocks`, `tree`, `locks`, `ranges`, `sessions` and `hosts` show the state. After every
// step the invariants are checked, a replica read from the snapshot of the step before must have come to the same
// changes and digest, and older views must be as they were.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		r := newScript(t)
		datadriven.RunTest(t, path, r.run)
	})
}

type script struct {
	t       *testing.T
	s       *State
	replica *State
	index   uint64
	hosts   map[string]uint64 // session
	seqs    map[uint64]uint64
	time    int64
	views   []*View
	digests [][32]byte
}

func newScript(t *testing.T) *script {
	return &script{t: t, s: New(), replica: New(), hosts: map[string]uint64{}, seqs: map[uint64]uint64{}}
}

func (r *script) run(t *testing.T, d *datadriven.TestData) string {
	r.t = t
	var out strings.Builder
	switch d.Cmd {
	case "apply", "batch":
		if d.HasArg("t") {
			var sec int64
			d.ScanArgs(t, "t", &sec)
			r.time = sec
		}
		r.apply(&out, strings.Split(strings.TrimSpace(d.Input), "\n"), d.Cmd == "batch")
	case "tree":
		r.tree(&out, Root)
	case "locks":
		v := r.s.View()
		for l := range v.AllHostLocks() {
			fmt.Fprintf(&out, "%s session=%d mode=%v", r.name(v, l.Ino), l.Session, l.Mode)
			if l.Wanted != queue.None {
				fmt.Fprintf(&out, " wanted=%v place=%d", l.Wanted, l.Place)
			}
			if l.Convert {
				out.WriteString(" convert")
			}
			if l.Try {
				out.WriteString(" try")
			}
			out.WriteByte('\n')
		}
	case "ranges":
		v := r.s.View()
		for ino := range v.RangeFiles() {
			for x := range v.Ranges(ino) {
				fmt.Fprintf(&out, "%s %d/%d %s\n", r.name(v, ino), x.Session, x.Owner, span(x))
			}
			for x := range v.RangeWaits(ino) {
				fmt.Fprintf(&out, "%s %d/%d %s waits id=%d\n", r.name(v, ino), x.Session, x.Owner, span(x.Range), x.ID)
			}
		}
	case "getlk":
		var path, kind, at string
		var session, owner uint64
		d.ScanArgs(t, "path", &path)
		d.ScanArgs(t, "session", &session)
		d.ScanArgs(t, "owner", &owner)
		d.ScanArgs(t, "type", &kind)
		d.ScanArgs(t, "at", &at)
		start, end := parseSpan(t, at)
		x, ok := r.s.View().RangeConflict(r.ino(path), Range{Session: session, Owner: owner, Write: kind == "w", Start: start, End: end})
		if !ok {
			return "free\n"
		}
		return fmt.Sprintf("%d/%d %s pid=%d\n", x.Session, x.Owner, span(x), x.PID)
	case "sessions":
		for x := range r.s.View().Sessions() {
			fmt.Fprintf(&out, "%d host=%s seq=%d locks=%d ranges=%d renewed=%d stamp=%d ttl=%v", x.ID, x.Host, x.Seq, x.Locks, x.Ranges, x.Renewed, x.Stamp, x.TTL)
			if len(x.Watches) > 0 {
				fmt.Fprintf(&out, " watches=%v", x.Watches)
			}
			out.WriteByte('\n')
		}
	case "hosts":
		v := r.s.View()
		for h := range v.Hosts() {
			byID, _ := v.Host(h.ID)
			if named, _ := v.HostNamed(h.Name); h != named || h != byID {
				t.Fatalf("%+v, by id %+v, by name %+v", h, byID, named)
			}
			fmt.Fprintf(&out, "%s name=%s address=%s durable=%v\n", h.ID, h.Name, h.Address, h.Durable)
		}
	case "reports", "suspicions", "deadlocks":
		r.showReports(&out, d.Cmd)
	case "counts":
		nodes, bytes := r.s.View().Counts()
		fmt.Fprintf(&out, "nodes=%d bytes=%d\n", nodes, bytes)
	case "rebase":
		r.s.Rebase()
		r.replica.Rebase()
		fmt.Fprintf(&out, "token base %d\n", r.s.View().TokenBase())
	default:
		t.Fatalf("unknown directive %s", d.Cmd)
	}
	r.verify()
	return out.String()
}

func span(x Range) string {
	kind := "r"
	if x.Write {
		kind = "w"
	}
	if x.End == MaxRange {
		return fmt.Sprintf("%s %d-eof", kind, x.Start)
	}
	return fmt.Sprintf("%s %d-%d", kind, x.Start, x.End)
}

func parseSpan(t *testing.T, s string) (uint64, uint64) {
	a, b, _ := strings.Cut(s, "-")
	start, err := strconv.ParseUint(a, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if b == "eof" {
		return start, MaxRange
	}
	end, err := strconv.ParseUint(b, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return start, end
}

func (r *script) name(v *View, ino uint64) string {
	if p := v.Path(ino); p != "" {
		return p
	}
	return fmt.Sprintf("#%d", ino)
}

func (r *script) tree(out *strings.Builder, ino uint64) {
	v := r.s.View()
	n := v.Node(ino)
	kind := "file"
	if n.Dir {
		kind = "dir"
	}
	fmt.Fprintf(out, "%s %s ino=%d %o %d:%d mtime=%d ctime=%d", r.name(v, ino), kind, ino, n.Perm, n.UID, n.GID, n.Mtime/1e9, n.Ctime/1e9)
	if n.Generation > 0 {
		fmt.Fprintf(out, " generation=%d value=%q", n.Generation, n.Value)
	}
	if n.Invalid {
		out.WriteString(" invalid")
	}
	if n.Orphan != 0 {
		fmt.Fprintf(out, " orphan=%d", n.Orphan)
	}
	for _, x := range n.Xattrs {
		fmt.Fprintf(out, " %s=%q", x.Name, x.Value)
	}
	out.WriteByte('\n')
	for c := range v.ReadDir(ino, "") {
		r.tree(out, c.Ino)
	}
	if ino == Root {
		for o := range v.Orphans() {
			r.tree(out, o)
		}
	}
}

func (r *script) ino(path string) uint64 {
	if n, ok := strings.CutPrefix(path, "#"); ok {
		ino, _ := strconv.ParseUint(n, 10, 64)
		return ino
	}
	parent, name := r.at(path)
	if name == "" {
		return parent
	}
	if n := r.s.cur.Lookup(parent, name); n != nil {
		return n.Ino
	}
	return 999
}

func (r *script) at(path string) (uint64, string) {
	ino := Root
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, p := range parts[:len(parts)-1] {
		n := r.s.cur.Lookup(ino, p)
		if n == nil {
			return 999, "x"
		}
		ino = n.Ino
	}
	name := parts[len(parts)-1]
	if long, ok := strings.CutPrefix(name, "long:"); ok {
		n, _ := strconv.Atoi(long)
		name = strings.Repeat("n", n)
	}
	return ino, name
}

func (r *script) apply(out *strings.Builder, lines []string, batch bool) {
	var cmds []*statepb.Command
	for i, line := range lines {
		cmds = append(cmds, r.command(line))
		if !batch || i == len(lines)-1 {
			r.entry(out, cmds)
			cmds = nil
		}
	}
}

func (r *script) entry(out *strings.Builder, cmds []*statepb.Command) {
	r.index++
	entry := Encode(cmds)
	changes, err := r.s.Apply(r.index, entry)
	again, err2 := r.replica.Apply(r.index, entry)
	if err != nil || err2 != nil {
		r.t.Fatalf("apply: %v, %v", err, err2)
	}
	if !slices.Equal(changes, again) {
		r.t.Fatalf("the replica differs:\n%v\n%v", changes, again)
	}
	fmt.Fprintf(out, "%d:\n", r.index)
	for _, c := range changes {
		fmt.Fprintf(out, "  %v\n", c)
		if c.Kind == SessionOpened {
			r.hosts[c.Host] = c.Session
		}
	}
	r.verify()
}

// verify checks what must hold after every step.
func (r *script) verify() {
	r.t.Helper()
	if err := r.s.Check(); err != nil {
		r.t.Fatalf("index %d: %v", r.index, err)
	}
	for i, v := range r.views {
		if v.Digest() != r.digests[i] {
			r.t.Fatalf("index %d: the view of index %d has changed", r.index, v.Index())
		}
	}
	v := r.s.View()
	var snap bytes.Buffer
	if _, err := v.WriteTo(&snap); err != nil {
		r.t.Fatal(err)
	}
	var err error
	if r.replica.View().Digest() != v.Digest() {
		r.t.Fatalf("index %d: digests differ", r.index)
	}
	if r.replica, err = Read(&snap); err != nil {
		r.t.Fatalf("index %d: %v", r.index, err)
	}
	if r.replica.View().Digest() != v.Digest() {
		r.t.Fatalf("index %d: digest after a snapshot differs", r.index)
	}
	if err := v.Check(); err != nil {
		r.t.Fatal(err)
	}
	r.views, r.digests = append(r.views, v), append(r.digests, v.Digest())
	if len(r.views) > 5 {
		r.views, r.digests = r.views[1:], r.digests[1:]
	}
}

// command parses one line.
func (r *script) command(line string) *statepb.Command {
	f := strings.Fields(line)
	if len(f) < 2 {
		r.t.Fatalf("line %q", line)
	}
	host, verb, args := f[0], f[1], f[2:]
	opt := map[string]string{}
	args = slices.DeleteFunc(args, func(a string) bool {
		k, v, has := strings.Cut(a, "=")
		is := has && !strings.HasPrefix(k, "/") && !strings.HasPrefix(k, "#") || slices.Contains(words, a)
		if is {
			opt[k] = v
		}
		return is
	})
	num := func(k string) uint64 {
		v, _ := strconv.ParseUint(opt[k], 0, 64)
		return v
	}
	oct := func(k string) *uint32 {
		if opt[k] == "" {
			return nil
		}
		v, _ := strconv.ParseUint(opt[k], 8, 32)
		x := uint32(v)
		return &x
	}
	dec := func(k string) *uint32 {
		if opt[k] == "" {
			return nil
		}
		x := uint32(num(k))
		return &x
	}
	is := func(k string) bool { _, ok := opt[k]; return ok }
	arg := func(i int) string {
		if i >= len(args) {
			r.t.Fatalf("line %q: too few words", line)
		}
		return args[i]
	}
	bytesAt := func(i int) []byte {
		s := arg(i)
		if n, ok := strings.CutPrefix(s, "zeros:"); ok {
			k, _ := strconv.Atoi(n)
			return make([]byte, k)
		}
		if s == "''" {
			return nil
		}
		return []byte(s)
	}
	integer := func(i int) uint64 {
		v, err := strconv.ParseUint(arg(i), 0, 64)
		if err != nil {
			r.t.Fatalf("line %q: %v", line, err)
		}
		return v
	}
	ino := func() uint64 { return r.ino(arg(0)) }

	c := &statepb.Command{TimeUnixNs: r.time * 1e9}
	switch verb {
	case "open":
		c.Op = &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: host, Nonce: max(1, num("nonce")), Uid: uint32(num("uid")), Gid: uint32(num("gid")), Ttl: int64(num("ttl")) * 1e6}}
		return c
	case "leave", "expire", "restart":
		reason := map[string]statepb.EndReason{"leave": statepb.EndReason_LEAVE, "expire": statepb.EndReason_EXPIRED, "restart": statepb.EndReason_RESTART}[verb]
		renewed := num("renewed")
		if !is("renewed") {
			x, _ := r.s.View().Session(r.hosts[host])
			renewed = x.Renewed
		}
		c.Op = &statepb.Command_EndSession{EndSession: &statepb.EndSession{Session: r.hosts[host], Reason: reason, RenewedIndex: renewed}}
		return c
	case "renew":
		c.Op = &statepb.Command_Renew{Renew: &statepb.Renew{Renewals: []*statepb.Renewal{{Session: r.hosts[host], Stamp: int64(num("stamp"))}}}}
		return c
	case "tick":
		c.Op = &statepb.Command_Renew{Renew: &statepb.Renew{}}
		return c
	case "barrier":
		c.Op = &statepb.Command_Barrier{Barrier: &statepb.Barrier{}}
		return c
	case "format":
		c.Op = &statepb.Command_Format{Format: &statepb.Format{Uid: uint32(num("uid")), Gid: uint32(num("gid"))}}
		return c
	case "host":
		op := &statepb.SetHost{Id: string(bytesAt(0)), Name: string(bytesAt(1)), Durable: is("durable")}
		if len(args) > 2 {
			op.Address = string(bytesAt(2))
		}
		c.Op = &statepb.Command_SetHost{SetHost: op}
		return c
	case "unhost":
		c.Op = &statepb.Command_RemoveHost{RemoveHost: &statepb.RemoveHost{Id: arg(0)}}
		return c
	case "limits":
		c.Op = &statepb.Command_SetLimits{SetLimits: &statepb.SetLimits{
			NameLen: num("name"), Depth: num("depth"), ValueLen: num("value"), Nodes: num("nodes"), Bytes: num("bytes"),
			XattrLen: num("xattr"), XattrsLen: num("xattrs"), Sessions: num("sessions"), Ranges: num("ranges"), HostLocks: num("locks"),
		}}
		return c
	}

	if id, err := strconv.ParseUint(host, 10, 64); err == nil {
		c.Session = id
	} else {
		c.Session = r.hosts[host]
	}
	if c.Session == 0 {
		r.t.Fatalf("line %q: no session", line)
	}
	r.seqs[c.Session]++
	c.Seq = r.seqs[c.Session]
	if is("seq") {
		c.Seq = num("seq")
		r.seqs[c.Session]--
	}
	switch verb {
	case "make", "mkdir":
		parent, name := r.at(arg(0))
		op := &statepb.Make{Parent: parent, Name: []byte(name), Dir: verb == "mkdir", Perm: 0o644, Uid: uint32(num("uid")), Gid: uint32(num("gid")), Lock: is("lock")}
		if p := oct("perm"); p != nil {
			op.Perm = *p
		}
		if is("parent") {
			op.Parent = num("parent")
		}
		c.Op = &statepb.Command_Make{Make: op}
	case "rm", "rmdir":
		parent, name := r.at(arg(0))
		c.Op = &statepb.Command_Remove{Remove: &statepb.Remove{Parent: parent, Name: []byte(name), Dir: verb == "rmdir", Posix: is("posix"), Drop: is("drop"), Ino: num("ino")}}
	case "mv":
		parent, name := r.at(arg(0))
		newParent, newName := r.at(arg(1))
		c.Op = &statepb.Command_Rename{Rename: &statepb.Rename{Parent: parent, Name: []byte(name), NewParent: newParent, NewName: []byte(newName),
			Noreplace: is("noreplace"), Posix: is("posix"), Drop: is("drop"), Ino: num("ino")}}
	case "attr":
		op := &statepb.SetAttr{Ino: ino(), Perm: oct("perm"), Uid: dec("uid"), Gid: dec("gid")}
		if is("mtime") {
			v := int64(num("mtime")) * 1e9
			op.Mtime = &v
		}
		c.Op = &statepb.Command_SetAttr{SetAttr: op}
	case "xattr":
		c.Op = &statepb.Command_SetXattr{SetXattr: &statepb.SetXattr{Ino: ino(), Name: []byte(arg(1)), Value: bytesAt(2), Create: is("create"), Replace: is("replace")}}
	case "rmxattr":
		c.Op = &statepb.Command_RemoveXattr{RemoveXattr: &statepb.RemoveXattr{Ino: ino(), Name: []byte(arg(1))}}
	case "forget":
		c.Op = &statepb.Command_Forget{Forget: &statepb.Forget{Ino: ino()}}
	case "acquire":
		var flags queue.Flags
		for _, w := range words {
			if x, ok := queue.ParseFlag(w); ok && is(w) {
				flags |= x
			}
		}
		op := &statepb.Acquire{}
		for _, a := range args {
			path, modes, _ := strings.Cut(a, "=")
			keep, want, has := strings.Cut(modes, ":")
			if !has {
				keep, want = "none", modes
			}
			k, _ := queue.ParseMode(keep)
			w, ok := queue.ParseMode(want)
			if !ok {
				r.t.Fatalf("line %q", line)
			}
			op.Steps = append(op.Steps, &statepb.Step{Ino: r.ino(path), Keep: uint32(k), Want: uint32(w), Flags: uint32(flags), Convert: is("convert")})
		}
		c.Op = &statepb.Command_Acquire{Acquire: op}
	case "release":
		keep := queue.None
		if len(args) > 1 {
			keep, _ = queue.ParseMode(arg(1))
		}
		c.Op = &statepb.Command_Release{Release: &statepb.Release{Ino: ino(), Keep: uint32(keep)}}
	case "cancel":
		c.Op = &statepb.Command_Cancel{Cancel: &statepb.Cancel{Ino: ino()}}
	case "inuse":
		c.Op = &statepb.Command_InUse{InUse: &statepb.InUse{Ino: ino(), Waiter: r.hosts[arg(1)]}}
	case "commit":
		base := r.s.cur.Node(ino())
		op := &statepb.Commit{Ino: ino(), Change: &statepb.Commit_Whole{Whole: bytesAt(1)}, Posix: is("posix")}
		if base != nil {
			op.BaseGeneration = base.Generation
		}
		if is("base") {
			op.BaseGeneration = num("base")
		}
		c.Op = &statepb.Command_Commit{Commit: op}
	case "write":
		c.Op = &statepb.Command_Commit{Commit: &statepb.Commit{Ino: ino(), Posix: true, Change: &statepb.Commit_Write{Write: &statepb.Write{Offset: integer(1), Bytes: bytesAt(2)}}}}
	case "append":
		c.Op = &statepb.Command_Commit{Commit: &statepb.Commit{Ino: ino(), Posix: true, Change: &statepb.Commit_Append{Append: bytesAt(1)}}}
	case "truncate":
		c.Op = &statepb.Command_Commit{Commit: &statepb.Commit{Ino: ino(), Posix: true, Change: &statepb.Commit_Truncate{Truncate: integer(1)}}}
	case "invalidate":
		c.Op = &statepb.Command_Invalidate{Invalidate: &statepb.Invalidate{Ino: ino()}}
	case "lock":
		start, end := parseSpan(r.t, arg(3))
		c.Op = &statepb.Command_RangeLock{RangeLock: &statepb.RangeLock{Ino: ino(), Owner: integer(1), Write: arg(2) == "w", Start: start, End: end,
			Pid: uint32(integer(1)) + 100, Id: num("wait"), Wait: is("wait"), Ofd: is("ofd")}}
	case "unlock":
		op := &statepb.RangeUnlock{Ino: ino(), Owner: integer(1), All: arg(2) == "all"}
		if !op.All {
			op.Start, op.End = parseSpan(r.t, arg(2))
		}
		c.Op = &statepb.Command_RangeUnlock{RangeUnlock: op}
	case "held", "waits", "gone":
		c.Op = &statepb.Command_Report{Report: r.report(verb, args, opt)}
	case "confirm":
		op := &statepb.Confirm{Suspicion: 999, Round: num("round"), Stuck: is("stuck"), Wrong: is("wrong")}
		if list := r.s.cur.suspicions; integer(0) < uint64(len(list)) {
			op.Suspicion = list[integer(0)].ID
			if !is("round") {
				op.Round = list[integer(0)].Round
			}
		}
		c.Op = &statepb.Command_Confirm{Confirm: op}
	case "watch": // INO…
		op := &statepb.Watch{}
		for i := range args {
			op.Inos = append(op.Inos, integer(i))
		}
		c.Op = &statepb.Command_Watch{Watch: op}
	case "tell": // EVENT PATH MODE [wanted=MODE] [pid=N] [token=N] [lost=N]
		mode, _ := queue.ParseMode(arg(2))
		wanted, _ := queue.ParseMode(opt["wanted"])
		told := &statepb.Told{
			Event: uint32(integer(0)), Ino: r.ino(arg(1)), Mode: uint32(mode), Wanted: uint32(wanted),
			Pid: uint32(num("pid")), Token: num("token"), Comm: []byte(opt["comm"]),
		}
		c.Op = &statepb.Command_Tell{Tell: &statepb.Tell{Lost: num("lost"), Told: []*statepb.Told{told}}}
	case "rcancel":
		c.Op = &statepb.Command_RangeCancel{RangeCancel: &statepb.RangeCancel{Id: integer(0)}}
	default:
		r.t.Fatalf("line %q: unknown verb", line)
	}
	return c
}

// words are the options without a value.
var words = []string{"lock", "posix", "drop", "noreplace", "create", "replace", "noqueue", "try", "headque", "quecvt", "altpr", "altcw", "convert", "ofd", "first", "stuck", "wrong", "nodlckwt", "nodlckblk", "durable"}
