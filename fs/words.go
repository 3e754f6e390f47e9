package fs

import (
	"strconv"
	"strings"
	"syscall"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// Tokens and sequencers (DESIGN 1.6, 3.5). A sequencer is one word that names a lock, for a third party to check, as in
// Chubby, section 2.4:
//
//	lockfs1:EX:123456:/db/orders
//
// its version, mode, token and path, which is escaped as in notices.
const sequencerVersion = "lockfs1"

type sequencer struct {
	mode  queue.Mode
	token uint64
	path  string
}

func (s sequencer) String() string {
	b := []byte(sequencerVersion + ":" + s.mode.String() + ":" + strconv.FormatUint(s.token, 10) + ":")
	return string(lockd.AppendEscaped(b, s.path))
}

// parseSequencer reads what String wrote, and a line end behind it.
func parseSequencer(text string) (s sequencer, ok bool) {
	fields := strings.SplitN(strings.TrimSuffix(text, "\n"), ":", 4)
	if len(fields) != 4 || fields[0] != sequencerVersion {
		return s, false
	}
	if s.mode, ok = queue.ParseMode(fields[1]); !ok {
		return s, false
	}
	var err error
	if s.token, err = strconv.ParseUint(fields[2], 10, 64); err != nil {
		return s, false
	}
	s.path, ok = unescape(fields[3])
	return s, ok && strings.HasPrefix(s.path, "/")
}

// unescape undoes lockd.AppendEscaped.
func unescape(text string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			b.WriteByte(text[i])
			continue
		}
		if i+4 > len(text) {
			return "", false
		}
		c, err := strconv.ParseUint(text[i+1:i+4], 8, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 3
	}
	return b.String(), true
}

// sequencerOf makes the sequencer of a handle's lock.
func (h *handle) sequencerOf() (sequencer, syscall.Errno) {
	switch mode := h.lock.Mode(); {
	case h.fs.host.Check(&h.lock) != nil:
		return sequencer{}, syscall.EIO
	case mode == queue.None:
		return sequencer{}, syscall.EINVAL
	default:
		return sequencer{mode, h.lock.Token(), h.fs.host.View().Path(h.ino)}, 0
	}
}

// wordText answers name@token and name@sequencer: for the one lock that the reader's process, or a descriptor that
// it inherited, has there. None, or more than one, is EINVAL.
func (f *FS) wordText(c *lockd.Call, kind aliasKind, n *state.Node) ([]byte, syscall.Errno) {
	if c.Park != nil {
		c.Park() // looking at processes takes a while
	}
	h, errno := f.ownLock(c.PID, n.Ino)
	if errno != 0 {
		return nil, errno
	}
	s, errno := h.sequencerOf()
	if errno != 0 {
		return nil, errno
	}
	if kind == aliasToken {
		return append(strconv.AppendUint(nil, s.token, 10), '\n'), 0
	}
	return append([]byte(s.String()), '\n'), 0
}

// ownLock returns the one handle whose lock on a resource belongs to the owner of a thread; if there is none, one whose
// lock was lost: EIO.
func (f *FS) ownLock(thread uint32, ino uint64) (own *handle, _ syscall.Errno) {
	if process.ForeignNS(thread) {
		return nil, syscall.EINVAL
	}
	owner, lost := process.OwnerOf(thread), false
	for _, file := range f.handles.all() {
		h, ok := file.(*handle)
		if !ok || h.ino != ino || h.lock.Mode() == queue.None && h.lock.Err() == nil {
			continue
		}
		if !owner.Has(process.Descriptor{Opener: h.thread, File: h.lock.File, Opened: h.lock.Opened}) {
			continue
		}
		switch {
		case f.host.Check(&h.lock) != nil:
			lost = true
		case own != nil:
			return nil, syscall.EINVAL
		default:
			own = h
		}
	}
	switch {
	case own != nil:
		return own, 0
	case lost:
		return nil, syscall.EIO
	}
	return nil, syscall.EINVAL
}

// stands asks, through the log, whether the lock that a sequencer names is still held with that token. newest is the
// highest token known of the resource.
func (f *FS) stands(c *lockd.Call, s sequencer) (stands bool, newest uint64, err error) {
	if _, err := f.host.Barrier(c); err != nil {
		return false, 0, err
	}
	n := f.host.View().Node(rootIno)
	for name := range strings.SplitSeq(strings.Trim(s.path, "/"), "/") {
		if name == "" {
			break
		}
		if n = f.host.View().Lookup(n.Ino, name); n == nil {
			return false, 0, nil
		}
	}
	f.host.LocksOf(n.Ino, func(mode, _ queue.Mode, token uint64) {
		newest = max(newest, token)
		stands = stands || mode == s.mode && token == s.token
	})
	return stands && f.host.Fresh() == nil, newest, nil
}
