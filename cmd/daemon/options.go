package daemon

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Options are the settings of a daemon. DefaultOptions gives what the flags give without any.
type Options struct {
	Mounts []MountPoint

	DataDir string
	Name    string
	Network

	HTTP string // where metrics, health and the page are; empty: nowhere

	SessionTTL   time.Duration
	OpTimeout    time.Duration
	Drain        time.Duration
	DeadlockWait time.Duration

	// Of the cluster: only what was given is set, see clusterLimits.
	MaxName  int
	MaxDepth int
	MaxValue size
	MaxNodes int
	MaxBytes size

	MaxLocks   int // of this host, held and asked for
	MaxWaiters int // of these, asked for

	LogFormat string
	LogLevel  slog.Level

	sources map[string]string  // where settings came from that were no flags
	limits  *statepb.SetLimits // of the cluster; nil: none was given
}

// MountPoint is one place where the tree is shown, in one of the views.
type MountPoint struct {
	View fs.View
	Dir  string
}

// Register adds the flags.
func (o *Options) Register(f *pflag.FlagSet) {
	f.String("config", "", "read settings from a TOML `FILE`; its keys are the names of these flags")
	f.StringVar(&o.DataDir, "data-dir", "", "keep log, snapshots and identity in `DIR` (default /var/lib/lockfs as root, else $XDG_STATE_HOME/lockfs)")
	f.StringVar(&o.Name, "name", "", "call this host `NAME` (default the machine's name)")
	o.Network.register(f)
	f.StringVar(&o.HTTP, "http", "", "answer /metrics, /healthz, /readyz and a page at `ADDR:PORT`, to whoever asks; port 0 takes a free one (default nowhere)")
	f.DurationVar(&o.SessionTTL, "session-ttl", 10*time.Second, "a host that is silent for `DURATION` loses its locks")
	f.DurationVar(&o.OpTimeout, "op-timeout", 5*time.Second, "an operation on names or values ends within `DURATION`, if need be with EIO")
	f.DurationVar(&o.Drain, "drain", 10*time.Second, "at the end, give holders `DURATION` to let go")
	f.DurationVar(&o.DeadlockWait, "deadlock-wait", 10*time.Second, "break a deadlock that another thread could still resolve after `DURATION`; 0 never")
	whole := state.DefaultLimits()
	f.IntVar(&o.MaxName, "max-name", int(whole.NameLen), "cluster: limit a name to `BYTES`")
	f.IntVar(&o.MaxDepth, "max-depth", int(whole.Depth), "cluster: limit a path to `N` names")
	o.MaxValue, o.MaxBytes = size(whole.ValueLen), size(whole.Bytes)
	f.Var(&o.MaxValue, "max-value", "cluster: limit a value to `SIZE`")
	f.IntVar(&o.MaxNodes, "max-nodes", int(whole.Nodes), "cluster: limit files and directories to `N`")
	f.Var(&o.MaxBytes, "max-bytes", "cluster: limit all values and attributes together to `SIZE`")
	f.IntVar(&o.MaxLocks, "max-locks", 1<<20, "limit this host to `N` locks, held and asked for")
	f.IntVar(&o.MaxWaiters, "max-waiters", 1<<16, "limit this host to `N` requests that wait")
	f.StringVar(&o.LogFormat, "log-format", "text", "log as `FORMAT`: text or json")
	f.Var(levelFlag{&o.LogLevel}, "log-level", "log from `LEVEL` on: debug, info, warn or error")
}

// bounds of the settings that are numbers; a value outside is refused.
type bound struct {
	flag        string
	value       int64
	least, most int64
	show        func(int64) string
}

func (o *Options) bounds() []bound {
	dur := func(n int64) string { return time.Duration(n).String() }
	num := func(n int64) string { return strconv.FormatInt(n, 10) }
	bytes := func(n int64) string { s := size(n); return s.String() }
	return []bound{
		{"session-ttl", int64(o.SessionTTL), int64(500 * time.Millisecond), int64(time.Hour), dur},
		{"op-timeout", int64(o.OpTimeout), int64(100 * time.Millisecond), int64(time.Hour), dur},
		{"drain", int64(o.Drain), 0, int64(24 * time.Hour), dur},
		{"deadlock-wait", int64(o.DeadlockWait), 0, int64(24 * time.Hour), dur},
		{"voters", int64(o.Voters), 1, 15, num},
		{"max-name", int64(o.MaxName), 16, 255, num},
		{"max-depth", int64(o.MaxDepth), 1, 1024, num},
		{"max-value", int64(o.MaxValue), 64, 4 << 20, bytes},
		{"max-nodes", int64(o.MaxNodes), 16, 1 << 32, num},
		{"max-bytes", int64(o.MaxBytes), 64, 1 << 40, bytes},
		{"max-locks", int64(o.MaxLocks), 1, 1 << 30, num},
		{"max-waiters", int64(o.MaxWaiters), 1, 1 << 30, num},
	}
}

// clusterLimits are the limits of the cluster that were asked for, nil if none was: what is not asked for stays as the
// cluster has it.
func (o *Options) clusterLimits(given func(flag string) bool) *statepb.SetLimits {
	l, any := &statepb.SetLimits{}, false
	for _, c := range []struct {
		flag string
		to   *uint64
		n    uint64
	}{
		{"max-name", &l.NameLen, uint64(o.MaxName)}, {"max-depth", &l.Depth, uint64(o.MaxDepth)},
		{"max-value", &l.ValueLen, uint64(o.MaxValue)}, {"max-nodes", &l.Nodes, uint64(o.MaxNodes)},
		{"max-bytes", &l.Bytes, uint64(o.MaxBytes)},
	} {
		if given(c.flag) {
			*c.to, any = c.n, true
		}
	}
	if !any {
		return nil
	}
	return l
}

// complete fills what depends on the machine and checks everything.
func (o *Options) complete(args []string) error {
	for _, b := range o.bounds() {
		if b.value < b.least || b.value > b.most {
			return o.bad(b.flag, b.show(b.value), "want %s to %s", b.show(b.least), b.show(b.most))
		}
	}
	if o.LogFormat != "text" && o.LogFormat != "json" {
		return o.bad("log-format", o.LogFormat, "want text or json")
	}
	if what := checkAddress(o.HTTP); o.HTTP != "" && what != "" {
		return o.bad("http", o.HTTP, "%s", what)
	}
	if err := o.completeNetwork(); err != nil {
		return err
	}
	if err := o.completeName(); err != nil {
		return err
	}
	if err := o.completeDataDir(); err != nil {
		return err
	}
	return o.completeMounts(args)
}

// bad says that a setting is wrong, by the name of where it came from.
func (o *Options) bad(flag, value, format string, args ...any) error {
	source := o.sources[flag]
	if source == "" {
		source = "--" + flag
	}
	return &exit.Error{Op: "mount", Path: fmt.Sprintf("%s %q", source, value), What: fmt.Sprintf(format, args...),
		Do: "see lockfs mount --help", Code: exit.Usage}
}

// maxHostName is how long a host's name may be: it stands in file names under .lockfs beside a mode and a pid.
const maxHostName = 64

func (o *Options) completeName() error {
	if o.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return exit.Of("mount", "the machine's name", err)
		}
		o.Name, _, _ = strings.Cut(name, ".")
	}
	letter := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	if len(o.Name) > maxHostName || o.Name == "" || strings.IndexFunc(o.Name, func(r rune) bool { return !letter(r) }) >= 0 ||
		strings.HasPrefix(o.Name, ".") || strings.HasPrefix(o.Name, "-") {
		return o.bad("name", o.Name, "want 1 to %d letters, digits, - _ and dots, not beginning with - or a dot", maxHostName)
	}
	return nil
}

func (o *Options) completeDataDir() error {
	if o.DataDir == "" {
		dir, err := defaultDataDir(os.Geteuid(), os.Getenv)
		if err != nil {
			return err
		}
		o.DataDir = dir
	}
	abs, err := filepath.Abs(o.DataDir)
	if err != nil {
		return exit.Of("mount", "--data-dir "+o.DataDir, err)
	}
	o.DataDir = abs
	return nil
}

func defaultDataDir(uid int, env func(string) string) (string, error) {
	if uid == 0 {
		return "/var/lib/lockfs", nil
	}
	if state := env("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "lockfs"), nil
	}
	if home := env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "lockfs"), nil
	}
	return "", &exit.Error{Op: "mount", What: "neither XDG_STATE_HOME nor HOME says where to keep the data",
		Do: "give --data-dir DIR", Code: exit.Usage}
}

// completeMounts reads MOUNTPOINT [VIEW:MOUNTPOINT…]. A first argument without a view has the view lock; a directory
// whose name begins like a view is written as ./posix:x.
func (o *Options) completeMounts(args []string) error {
	seen := map[string]bool{}
	for _, arg := range args {
		m := MountPoint{View: fs.ViewLock, Dir: arg}
		if word, dir, ok := strings.Cut(arg, ":"); ok && !strings.Contains(word, "/") {
			view, ok := fs.ParseView(word)
			if !ok {
				return &exit.Error{Op: "mount", Path: arg, What: fmt.Sprintf("%q is no view", word),
					Do: "the views are lock, posix and dlmfs; a directory of that name is ./" + arg, Code: exit.Usage}
			}
			m = MountPoint{View: view, Dir: dir}
		}
		if m.Dir == "" {
			return &exit.Error{Op: "mount", Path: arg, What: "the mount point is empty", Do: "name a directory", Code: exit.Usage}
		}
		abs, err := filepath.Abs(m.Dir)
		if err != nil {
			return exit.Of("mount", arg, err)
		}
		m.Dir = abs
		if seen[abs] {
			return &exit.Error{Op: "mount", Path: arg, What: "named twice", Do: "give each view a directory of its own", Code: exit.Usage}
		}
		seen[abs] = true
		if abs == o.DataDir || strings.HasPrefix(o.DataDir, abs+"/") {
			return &exit.Error{Op: "mount", Path: arg, What: "the data directory " + o.DataDir + " would be hidden below it",
				Do: "choose another --data-dir", Code: exit.Usage}
		}
		o.Mounts = append(o.Mounts, m)
	}
	return nil
}

// size is a number of bytes that is written with a unit.
type size int64

var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func (s *size) Type() string { return "SIZE" }

func (s *size) String() string {
	for _, u := range units {
		if int64(*s) >= u.bytes && int64(*s)%u.bytes == 0 {
			return strconv.FormatInt(int64(*s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Set reads 65536, 64K, 64KiB or 64k.
func (s *size) Set(text string) error {
	number, factor := text, int64(1)
	for _, u := range units {
		for _, suffix := range []string{u.name, u.name[:1], strings.ToLower(u.name[:1])} {
			if rest, ok := strings.CutSuffix(text, suffix); ok {
				number, factor = rest, u.bytes
			}
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return fmt.Errorf("want a number of bytes, as 65536, 64KiB or 1GiB")
	}
	*s = size(n * factor)
	return nil
}

// levelFlag reads a level of slog.
type levelFlag struct{ level *slog.Level }

func (f levelFlag) Type() string { return "LEVEL" }

func (f levelFlag) String() string {
	if f.level == nil {
		return "info"
	}
	return strings.ToLower(f.level.String())
}

func (f levelFlag) Set(s string) error {
	switch strings.ToLower(s) {
	case "debug", "info", "warn", "error":
		return f.level.UnmarshalText([]byte(s))
	}
	return fmt.Errorf("want debug, info, warn or error")
}
