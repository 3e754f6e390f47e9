package fs

import (
	"bytes"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockd"
)

// The tree of .lockfs (DESIGN 1.6). Nothing of it is stored: a node id stands for a question, which is answered anew
// by each LOOKUP, OPEN and READDIR, and nothing of it is cached by the kernel.
//
//	.lockfs/control           commands to the daemon, for its own user and root
//	.lockfs/deadlocks         the last deadlocks that were found, each in full
//	.lockfs/events            the notices of the whole tree
//	.lockfs/held/PATH…/       one entry for each lock; the directories are the tree's, with its permissions
//	.lockfs/hosts/NAME        key=value lines of each host of the cluster
//	.lockfs/metrics           the figures of the daemon, for its own user and root
//	.lockfs/snapshot          the whole state, for the daemon's own user and root
//	.lockfs/status            key=value lines
//	.lockfs/waiting/PATH…/    one entry for each request, in the order of the queue

// specialFile is an open file of .lockfs, or of the aliases name@events, name@token and name@sequencer.
type specialFile interface {
	read(c *lockd.Call, off uint64, buf []byte) (int, syscall.Errno)
	poll(kh uint64, flags uint32) uint32
	release()
}

// specialWriter is one that can be written to. A write does not wait, and its offset does not matter.
type specialWriter interface {
	specialFile
	write(data []byte) (int, syscall.Errno)
}

// specialDir is an open directory of .lockfs.
type specialDir interface {
	readDir(in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status
}

// specialKind says what a node of .lockfs is.
type specialKind uint8

const (
	specialRoot      specialKind = iota // .lockfs itself
	specialStatus                       // .lockfs/status
	specialEvents                       // .lockfs/events
	specialList                         // held or waiting, or a directory below it
	specialEntry                        // one lock
	specialHosts                        // .lockfs/hosts
	specialHost                         // one host
	specialSnapshot                     // .lockfs/snapshot
	specialControl                      // .lockfs/control
	specialDeadlocks                    // .lockfs/deadlocks
	specialMetrics                      // .lockfs/metrics
)

func (k specialKind) isDir() bool { return k == specialRoot || k == specialList || k == specialHosts }

// special is what a node of .lockfs stands for.
type special struct {
	kind    specialKind
	waiting bool   // specialList, specialEntry: of waiting, else of held
	ino     uint64 // specialList, specialEntry: the resource
	own     bool   // specialList, specialEntry: `.lock`, a directory's own locks
	entry   string // specialEntry, specialHost: its name
}

// specialNames are the names in .lockfs, in the order of its listing.
var specialNames = []struct {
	name string
	special
}{
	{"control", special{kind: specialControl}},
	{"deadlocks", special{kind: specialDeadlocks}},
	{"events", special{kind: specialEvents}},
	{"held", special{kind: specialList, ino: rootIno}},
	{"hosts", special{kind: specialHosts}},
	{"metrics", special{kind: specialMetrics}},
	{"snapshot", special{kind: specialSnapshot}},
	{"status", special{kind: specialStatus}},
	{"waiting", special{kind: specialList, ino: rootIno, waiting: true}},
}

// has reports whether this mount shows a kind: some are for what only the caller of New can give.
func (f *FS) has(k specialKind) bool {
	switch k {
	case specialHosts, specialHost:
		return f.hosts != nil
	case specialSnapshot:
		return f.snapshot != nil
	case specialControl:
		return f.control != nil
	case specialMetrics:
		return f.metrics != nil
	}
	return true
}

// specials gives node ids to the nodes of .lockfs that the kernel knows.
type specials struct {
	mu   sync.Mutex
	last uint64
	ids  map[special]uint64
	know map[uint64]*specialNode
}

type specialNode struct {
	special
	lookups uint64
}

// add returns the node id of s, and counts a LOOKUP of it.
func (t *specials) add(s special) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ids == nil {
		t.ids, t.know = make(map[special]uint64), make(map[uint64]*specialNode)
	}
	id, ok := t.ids[s]
	if !ok {
		t.last++
		id = specialBit | t.last
		t.ids[s], t.know[id] = id, &specialNode{special: s}
	}
	t.know[id].lookups++
	return id
}

func (t *specials) get(id uint64) (special, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.know[id]
	if !ok {
		return special{}, false
	}
	return n.special, true
}

func (t *specials) forget(id, lookups uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.know[id]
	if !ok {
		return
	}
	if n.lookups -= min(lookups, n.lookups); n.lookups == 0 {
		delete(t.know, id)
		delete(t.ids, n.special)
	}
}

// specialLookup finds a name in .lockfs, and .lockfs itself.
func (f *FS) specialLookup(h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s, ok := special{}, true
	if isSpecial(h.NodeId) {
		parent, known := f.specials.get(h.NodeId)
		if !known {
			return fuse.Status(syscall.ESTALE)
		}
		s, ok = f.specialChild(parent, name)
	}
	if !ok || !f.specialAttr(s, &out.Attr) {
		return fuse.ENOENT
	}
	out.NodeId = f.specials.add(s)
	out.Generation = 1
	out.Attr.Ino = out.NodeId
	return fuse.OK
}

// specialChild finds a name in a directory of .lockfs.
func (f *FS) specialChild(parent special, name string) (special, bool) {
	switch parent.kind {
	case specialRoot:
		for _, s := range specialNames {
			if s.name == name {
				return s.special, f.has(s.kind)
			}
		}
	case specialList:
		return f.listChild(parent, name)
	case specialHosts:
		return special{kind: specialHost, entry: name}, true
	}
	return special{}, false
}

// specialAttr fills the attributes; it returns false if what s stands for is gone. The directories of held and waiting
// have the permissions of the tree's, so that they show what the reader could stat.
func (f *FS) specialAttr(s special, a *fuse.Attr) bool {
	*a = fuse.Attr{Nlink: maxLink, Blksize: blockSize, Mode: syscall.S_IFREG | 0o444}
	switch s.kind {
	case specialRoot:
		a.Mode = syscall.S_IFDIR | 0o555
	case specialList:
		n := f.host.View().Node(s.ino)
		if n == nil {
			return false
		}
		a.Mode = syscall.S_IFDIR | 0o555
		if n.Dir && !s.own {
			a.Mode = syscall.S_IFDIR | n.Perm&0o555
			a.Uid, a.Gid = n.UID, n.GID
		}
	case specialEntry:
		l, ok := f.findEntry(s)
		if !ok {
			return false
		}
		a.Uid = l.UID
		if l.UID == lockd.NoUser {
			a.Uid = nobodyUID
		}
		if !l.Since.IsZero() {
			since := uint64(l.Since.UnixNano())
			a.Mtime, a.Mtimensec = since/1e9, uint32(since%1e9)
		}
		a.Ctime, a.Ctimensec = a.Mtime, a.Mtimensec
		a.Atime, a.Atimensec = a.Mtime, a.Mtimensec
	case specialHosts:
		a.Mode = syscall.S_IFDIR | 0o555
	case specialHost:
		_, ok := f.findHost(s.entry)
		return ok
	case specialSnapshot, specialMetrics:
		a.Mode, a.Uid = syscall.S_IFREG|0o400, daemonUID
	case specialControl:
		a.Mode, a.Uid = syscall.S_IFREG|0o600, daemonUID
	}
	return true
}

// nobodyUID is what Linux shows where it knows no user.
const nobodyUID = 65534

// daemonUID is the user who may read a snapshot and the figures, and give commands, as root may: what this process has is his.
var daemonUID = uint32(os.Geteuid())

// mayControl reports whether somebody is that user, whatever the kernel has let him do.
func mayControl(h *fuse.InHeader) bool { return h.Uid == 0 || h.Uid == daemonUID }

func (f *FS) specialGetAttr(in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s, ok := f.specials.get(in.NodeId)
	if !ok || !f.specialAttr(s, &out.Attr) {
		return fuse.Status(syscall.ESTALE)
	}
	out.Attr.Ino = in.NodeId
	return fuse.OK
}

func (f *FS) specialForget(node, nlookup uint64) { f.specials.forget(node, nlookup) }

// specialOpen opens a file of .lockfs. What it shows is of the moment of the open.
func (f *FS) specialOpen(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s, ok := f.specials.get(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY && s.kind != specialControl {
		return fuse.EPERM
	}
	var file specialFile
	switch s.kind {
	case specialStatus:
		f.park(&in.InHeader) // the digest takes a while
		file = &textFile{text: f.statusText()}
	case specialHost:
		e, ok := f.findHost(s.entry)
		if !ok {
			return fuse.ENOENT
		}
		file = &textFile{text: hostText(e)}
	case specialSnapshot, specialControl, specialMetrics:
		if !mayControl(&in.InHeader) {
			return fuse.EACCES
		}
		var errno syscall.Errno
		if file, errno = f.openPrivate(s.kind, in); errno != 0 {
			return fuse.Status(errno)
		}
	case specialDeadlocks:
		file = &textFile{text: f.deadlocksText(f.call(&in.InHeader, cancel))}
	case specialEvents:
		file = f.openEvents(f.call(&in.InHeader, cancel), lockd.Filter{}, in.Flags)
	case specialEntry:
		l, ok := f.findEntry(s)
		if !ok {
			return fuse.ENOENT
		}
		file = &textFile{text: f.entryText(f.call(&in.InHeader, cancel), l)}
	default:
		return fuse.Status(syscall.EISDIR)
	}
	out.Fh = f.handles.add(file)
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// openPrivate opens what is for the daemon's own user and root.
func (f *FS) openPrivate(kind specialKind, in *fuse.OpenIn) (specialFile, syscall.Errno) {
	switch kind {
	case specialControl:
		return f.openControl(in.Flags), 0
	case specialSnapshot:
		return f.openSnapshot()
	}
	f.park(&in.InHeader) // it looks at the process in /proc
	var text bytes.Buffer
	if err := f.metrics(&text); err != nil {
		f.log.Error("the figures for .lockfs/metrics", "err", err)
		return nil, syscall.EIO
	}
	return &textFile{text: text.Bytes()}, 0
}

// wordOpen opens name@events, name@token or name@sequencer.
func (f *FS) wordOpen(cancel <-chan struct{}, in *fuse.OpenIn, a aliasNode, out *fuse.OpenOut) fuse.Status {
	n := f.host.View().Node(resource(a.node))
	switch {
	case n == nil:
		return fuse.Status(syscall.ESTALE)
	case in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY:
		return fuse.EPERM
	}
	c := f.call(&in.InHeader, cancel)
	var file specialFile
	if a.kind == aliasEvents {
		file = f.openEvents(c, lockd.Filter{Ino: n.Ino}, in.Flags)
	} else {
		text, errno := f.wordText(c, a.kind, n)
		if errno != 0 {
			return fuse.Status(errno)
		}
		file = &textFile{text: text}
	}
	out.Fh = f.handles.add(file)
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// textFile is an open file whose text was made at the OPEN.
type textFile struct{ text []byte }

func (t *textFile) read(_ *lockd.Call, off uint64, buf []byte) (int, syscall.Errno) {
	return copyFrom(buf, t.text, off), 0
}
func (t *textFile) poll(uint64, uint32) uint32 { return pollReadable }
func (t *textFile) release()                   {}

// textDir is an open directory of .lockfs, listed at the OPENDIR.
type textDir struct{ entries []fuse.DirEntry }

func (d *textDir) readDir(in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	for i := in.Offset; i < uint64(len(d.entries)); i++ {
		e := d.entries[i]
		e.Off = i + 1
		if !out.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

// specialOpenDir lists a directory of .lockfs.
func (f *FS) specialOpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s, ok := f.specials.get(in.NodeId)
	if !ok {
		return fuse.Status(syscall.ESTALE)
	}
	d := &textDir{}
	d.add(".", true, in.NodeId)
	d.add("..", true, rootIno)
	switch s.kind {
	case specialRoot:
		for _, c := range specialNames {
			if f.has(c.kind) {
				d.add(c.name, c.kind.isDir(), in.NodeId)
			}
		}
	case specialHosts:
		for _, e := range f.hostEntries() {
			d.add(e.name, false, in.NodeId)
		}
	case specialList:
		f.list(s, d)
	default:
		return fuse.ENOTDIR
	}
	out.Fh = f.handles.add(d)
	return fuse.OK
}

// add appends an entry. The inode numbers of .lockfs are given by LOOKUP; a listing shows the directory's own, since 0
// would hide the entry.
func (d *textDir) add(name string, dir bool, ino uint64) {
	mode := uint32(syscall.S_IFREG)
	if dir {
		mode = syscall.S_IFDIR
	}
	d.entries = append(d.entries, fuse.DirEntry{Name: name, Mode: mode, Ino: ino})
}

// lines builds key=value lines.
type lines []byte

// put appends a line; an empty value is left out. Other than in notices, blanks stand for themselves.
func (l *lines) put(key, value string) {
	if value == "" {
		return
	}
	*l = append(append(*l, key...), '=')
	for i, word := range strings.Split(value, " ") { // a line has room for blanks
		if i > 0 {
			*l = append(*l, ' ')
		}
		*l = lockd.AppendEscaped(*l, word)
	}
	*l = append(*l, '\n')
}

// when writes a time as listings show it.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
}
