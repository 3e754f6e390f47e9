package fs

import (
	"bytes"
	"context"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/conn"
	"github.com/lockfs/lockfs/lockd"
)

// Limits of .lockfs/control.
const (
	maxControlLine = 4096        // bytes of a command, its line end included
	maxControls    = 8           // commands under way in one mount
	controlTime    = time.Minute // for a command
)

// controlFile is an open .lockfs/control. A program writes a command, one line, in as many pieces as it likes, and reads
// the answer through the same descriptor, in as many pieces as it likes, whatever the offsets:
//
//	exec 9<>/locks/.lockfs/control; echo "remove host2" >&9; cat <&9
//
// The first word of the answer is `ok`, or `error` with the reason behind it; more lines may follow. The command runs
// from its line end on; a READ waits for its end (O_NONBLOCK: EAGAIN, and poll(2) tells). It is not taken back by a
// signal, nor by a close. Until it has ended another command through the descriptor is EBUSY; then it replaces
// the answer. What is no line of text is EINVAL, one that is too long E2BIG, too many commands at once EAGAIN.
type controlFile struct {
	fs     *FS
	block  bool // reads wait
	polled conn.Waiters

	mu      sync.Mutex
	line    []byte         // of a command that is not whole
	command *controlAnswer // the last one, nil: none yet
}

// controlAnswer is the answer to a command.
type controlAnswer struct {
	over chan struct{} // closed when there is an answer
	rest []byte        // of it, not read yet; guarded by controlFile.mu
}

var _ specialWriter = (*controlFile)(nil)

func (f *FS) openControl(flags uint32) *controlFile {
	return &controlFile{fs: f, block: flags&syscall.O_NONBLOCK == 0}
}

// write takes a piece of a line.
func (k *controlFile) write(data []byte) (int, syscall.Errno) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.command.running() {
		return 0, syscall.EBUSY
	}
	if len(k.line)+len(data) > maxControlLine {
		k.line = nil
		return 0, syscall.E2BIG
	}
	line := append(k.line, data...)
	end := bytes.IndexByte(line, '\n')
	if end < 0 {
		k.line = line
		return len(data), 0
	}
	k.line = nil
	if end == 0 || end != len(line)-1 || !isText(line[:end]) {
		return 0, syscall.EINVAL
	}
	return len(data), k.begin(string(line[:end]))
}

// isText reports whether a line is text that can be shown.
func isText(line []byte) bool {
	return utf8.Valid(line) && bytes.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// begin lets a command run. The caller has mu.
func (k *controlFile) begin(line string) syscall.Errno {
	f := k.fs
	if f.controls.Add(1) > maxControls {
		f.controls.Add(-1)
		return syscall.EAGAIN
	}
	command := &controlAnswer{over: make(chan struct{})}
	k.command = command
	f.closing.Go(func() {
		defer f.controls.Add(-1)
		ctx, cancel := context.WithTimeout(f.serving, controlTime)
		defer cancel()
		answer, err := f.control(ctx, line)
		text := append([]byte("ok\n"), answer...)
		if err != nil {
			text = []byte("error " + err.Error())
		}
		if text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
		k.mu.Lock()
		command.rest = text
		close(command.over)
		k.mu.Unlock()
		if f.loop != nil {
			k.polled.Wake(f.loop)
		}
	})
	return 0
}

// running reports whether a command has no answer yet.
func (a *controlAnswer) running() bool {
	if a == nil {
		return false
	}
	select {
	case <-a.over:
		return false
	default:
		return true
	}
}

func (k *controlFile) read(c *lockd.Call, _ uint64, buf []byte) (int, syscall.Errno) {
	k.mu.Lock()
	command := k.command
	k.mu.Unlock()
	switch {
	case command == nil:
		return 0, 0
	case !command.running():
	case !k.block:
		return 0, syscall.EAGAIN
	default:
		if c.Park != nil {
			c.Park()
		}
		select {
		case <-command.over:
		case <-c.Cancel:
			return 0, syscall.EINTR
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n := copy(buf, command.rest)
	command.rest = command.rest[n:]
	return n, 0
}

func (k *controlFile) poll(kh uint64, flags uint32) uint32 {
	k.polled.Polled(kh, flags)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.command.running() {
		return 0
	}
	return pollReadable | unix.POLLOUT | 0x100
}

func (k *controlFile) release() {}
