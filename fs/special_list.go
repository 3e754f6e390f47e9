package fs

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/queue"
)

// A directory of held or waiting stands for a resource: for a file it holds its locks, for a directory `.lock` with the
// directory's own locks and a directory for each entry that has locks at or below it. By name every entry is found.

// listChild finds a name in a directory of held or waiting.
func (f *FS) listChild(parent special, name string) (special, bool) {
	v := f.host.View()
	n := v.Node(parent.ino)
	if n == nil {
		return special{}, false
	}
	if !n.Dir || parent.own {
		s := special{kind: specialEntry, waiting: parent.waiting, ino: parent.ino, own: parent.own, entry: name}
		_, ok := f.findEntry(s)
		return s, ok
	}
	if name == lockName {
		return special{kind: specialList, waiting: parent.waiting, ino: parent.ino, own: true}, true
	}
	c := v.Lookup(parent.ino, name)
	if c == nil {
		return special{}, false
	}
	return special{kind: specialList, waiting: parent.waiting, ino: c.Ino}, true
}

// list fills in a directory of held or waiting.
func (f *FS) list(s special, d *textDir) {
	v := f.host.View()
	n := v.Node(s.ino)
	if n == nil {
		return
	}
	if !n.Dir || s.own {
		for _, e := range f.entries(s.ino, s.waiting) {
			d.add(e.name, false, s.ino)
		}
		return
	}
	own, below := f.lockedBelow(s.ino, s.waiting)
	if own {
		d.add(lockName, true, s.ino)
	}
	if len(below) == 0 {
		return
	}
	for c := range v.ReadDir(s.ino, "") {
		if below[c.Ino] {
			d.add(c.Name, true, c.Ino)
		}
	}
}

// lockedBelow returns whether a directory has locks of its own, and which of its entries have some at or below them.
func (f *FS) lockedBelow(dir uint64, waiting bool) (own bool, entries map[uint64]bool) {
	v := f.host.View()
	entries = make(map[uint64]bool)
	seen := make(map[uint64]bool) // went this way up already
	f.host.Locked(func(ino uint64, held, waits bool) {
		if waiting && !waits || !waiting && !held {
			return
		}
		if ino == dir {
			own = true
			return
		}
		for ino != 0 && !seen[ino] {
			seen[ino] = true
			n := v.Node(ino)
			if n == nil {
				return
			}
			if n.Parent == dir {
				entries[ino] = true
				return
			}
			ino = n.Parent
		}
	})
	return own, entries
}

// entry is a lock as a file of held or waiting.
type entry struct {
	name string
	lockd.LockInfo
}

// entries names the locks of a resource: `EX@host1:4711`, in waiting `001.EX@host2:99`, a byte-range lock `PR.0-99@host1:4711`; a
// second equal name gets `#2`.
func (f *FS) entries(ino uint64, waiting bool) []entry {
	var list []entry
	count := make(map[string]int)
	place := 0
	for _, l := range f.host.Locks(ino) {
		mode, prefix := l.Mode, ""
		if waiting {
			mode = l.Wanted
		}
		if mode == queue.None {
			continue
		}
		if waiting {
			place++
			prefix = fmt.Sprintf("%03d.", place)
		}
		name := prefix + mode.String() + rangeName(l.Range) + "@" + strings.ReplaceAll(l.Host, "/", "_") + ":" + strconv.FormatUint(uint64(processOf(l)), 10)
		count[name]++
		if n := count[name]; n > 1 {
			name += "#" + strconv.Itoa(n)
		}
		list = append(list, entry{name, l})
	}
	return list
}

// rangeName is what an entry of a byte-range lock has behind its mode: `.0-99`, or `.100-` where it reaches to the end of the file.
func rangeName(r *lockd.ByteRange) string {
	if r == nil {
		return ""
	}
	return "." + r.String()
}

// processOf is the process of a lock, or the thread that asked if the process is gone.
func processOf(l lockd.LockInfo) uint32 {
	if l.Tgid != 0 {
		return l.Tgid
	}
	return l.PID
}

func (f *FS) findEntry(s special) (entry, bool) {
	for _, e := range f.entries(s.ino, s.waiting) {
		if e.name == s.entry {
			return e, true
		}
	}
	return entry{}, false
}

// entryText is what an entry says to a reader. Command lines go to the owner and root.
func (f *FS) entryText(c *lockd.Call, l entry) []byte {
	var t lines
	t.put("path", f.host.View().Path(l.Ino))
	t.put("host", l.Host)
	t.put("pid", strconv.FormatUint(uint64(processOf(l.LockInfo)), 10))
	if l.UID != lockd.NoUser {
		t.put("uid", strconv.FormatUint(uint64(l.UID), 10))
	}
	t.put("comm", l.Comm)
	if c.UID == 0 || c.UID == l.UID {
		t.put("command", f.host.Cmdline(c, &l.LockInfo))
	}
	t.put("mode", modeName(l.Mode))
	t.put("wanted", modeName(l.Wanted))
	if l.Convert {
		t.put("converting", "1")
	}
	t.put("since", when(l.Since))
	if l.Range != nil {
		t.put("range", l.Range.String())
	}
	if l.Mode != queue.None && l.Range == nil {
		t.put("token", strconv.FormatUint(l.Token, 10))
	}
	if l.TTL > 0 {
		t.put("ttl", l.TTL.String())
	}
	t.put("options", l.Flags.String())
	t.put("blocked-by", parties(l.BlockedBy))
	t.put("inherits", parties(l.Inherits))
	return t
}

func modeName(m queue.Mode) string {
	if m == queue.None {
		return ""
	}
	return m.String()
}

// parties lists processes as host:pid, or host:pid/comm, separated by commas.
func parties(list []lockd.Party) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.String()
		if p.Comm != "" {
			names[i] += "/" + p.Comm
		}
	}
	return strings.Join(names, ",")
}

// statusText is .lockfs/status.
func (f *FS) statusText() []byte {
	s, v := f.host.Status(), f.host.View()
	limits := v.Limits()
	var t lines
	number := func(key string, n uint64) { t.put(key, strconv.FormatUint(n, 10)) }
	t.put("host", s.Name)
	t.put("state", s.State())
	number("session", s.Session)
	t.put("lease", s.Lease.String())
	t.put("leader", s.Leader)
	t.put("view", f.policy.name)
	number("index", v.Index())
	t.put("digest", f.shared.digest(v))
	number("nodes", s.Nodes)
	number("bytes", s.Bytes)
	number("locks", uint64(s.Locks))
	number("waiting", uint64(s.Waiting))
	number("cached", uint64(s.Cached))
	number("pending", uint64(s.Pending))
	number("deadlocks", s.Deadlocks)
	number("sessions-lost", s.Losses)
	number("max-nodes", limits.Nodes)
	number("max-bytes", limits.Bytes)
	number("max-value", limits.ValueLen)
	if f.facts != nil {
		for _, fact := range f.facts() {
			t.put(fact.Key, fact.Value)
		}
	}
	return t
}
