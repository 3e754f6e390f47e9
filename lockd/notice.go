package lockd

import (
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
)

// NoticeKind is what a [Notice] tells of.
type NoticeKind uint8

const (
	_ NoticeKind = iota
	NoticeGranted
	NoticeBlocking
	NoticeConverted
	NoticeReleased
	NoticeDeadlock
	NoticeLost
	NoticeValue
	NoticeInvalid
	NoticeCreated
	NoticeRemoved
	NoticeRenamed
	NoticeJeopardy
	NoticeSafe
	NoticeLeader
	NoticeHostJoined
	NoticeHostLeft
	NoticeOverflow
	// NoticeFailed tells the listener of an asynchronous request, and nobody else, that it was refused: Err says why.
	NoticeFailed
	numNoticeKinds
)

var noticeNames = [numNoticeKinds]string{
	NoticeGranted: "granted", NoticeBlocking: "blocking", NoticeConverted: "converted", NoticeReleased: "released",
	NoticeDeadlock: "deadlock", NoticeLost: "lost", NoticeValue: "value", NoticeInvalid: "invalid",
	NoticeCreated: "created", NoticeRemoved: "removed", NoticeRenamed: "renamed", NoticeJeopardy: "jeopardy",
	NoticeSafe: "safe", NoticeLeader: "leader", NoticeHostJoined: "host-joined", NoticeHostLeft: "host-left",
	NoticeOverflow: "overflow", NoticeFailed: "failed",
}

// String returns the kind's name as DESIGN 1.5 lists it.
func (k NoticeKind) String() string {
	if k < numNoticeKinds && noticeNames[k] != "" {
		return noticeNames[k]
	}
	return "kind-" + strconv.Itoa(int(k))
}

// Party is a process somewhere in the cluster.
type Party struct {
	Host string
	PID  uint32 // 0: not known
	Comm string // empty: not known
}

// Notice is one thing that happened to a resource or to the cluster. Which fields are set depends on Kind; what is
// not known or makes no sense is left out of the text.
type Notice struct {
	Kind       NoticeKind
	Time       time.Time
	Ino        uint64 // the resource; 0: none
	Dir        bool   // created, removed, renamed: a directory
	Path       string // of the resource; of the name made, removed or moved away
	To         string // renamed: the new path
	Mode       queue.Mode
	Wanted     queue.Mode // blocking, deadlock: what is asked for
	By         Party      // blocking: who asks; granted, converted, released, lost: whose lock; leader, host-…: the host
	Token      uint64
	Generation uint64 // value
	Count      uint64 // overflow: notices lost
	Reason     string // lost, host-left, deadlock: why
	Index      uint64 // of the log entry, 0 if it did not come from one
	Err        error  // failed

	above []*state.Node // the directories above Path, the next one first
	to    []*state.Node // and above To
}

// String returns the notice as one line without the line end, as in
//
//	blocking mode=EX wanted=PR by=host2:4711 comm=backup path=/db/orders token=1234
//
// In values every byte that is no printable character, and blank and backslash, is written as a backslash and three octal
// digits, as in /proc/mounts; printf %b of a shell decodes it.
func (n Notice) String() string { return string(n.Append(nil)) }

// Append appends the line to buf.
func (n *Notice) Append(buf []byte) []byte {
	buf = append(buf, n.Kind.String()...)
	if n.Mode != queue.None {
		buf = append(append(buf, " mode="...), n.Mode.String()...)
	}
	if n.Wanted != queue.None {
		buf = append(append(buf, " wanted="...), n.Wanted.String()...)
	}
	if n.By.Host != "" {
		buf = n.By.append(append(buf, " by="...))
	}
	if n.By.Comm != "" {
		buf = AppendEscaped(append(buf, " comm="...), n.By.Comm)
	}
	if n.Path != "" {
		buf = AppendEscaped(append(buf, " path="...), n.Path)
	}
	if n.To != "" {
		buf = AppendEscaped(append(buf, " to="...), n.To)
	}
	if n.Dir {
		buf = append(buf, " dir=1"...)
	}
	if n.Token != 0 {
		buf = strconv.AppendUint(append(buf, " token="...), n.Token, 10)
	}
	if n.Generation != 0 {
		buf = strconv.AppendUint(append(buf, " generation="...), n.Generation, 10)
	}
	if n.Count != 0 {
		buf = strconv.AppendUint(append(buf, " n="...), n.Count, 10)
	}
	if n.Reason != "" {
		buf = AppendEscaped(append(buf, " reason="...), n.Reason)
	}
	return buf
}

// append writes host:pid.
func (p Party) append(buf []byte) []byte {
	buf = AppendEscaped(buf, p.Host)
	if p.PID != 0 {
		buf = strconv.AppendUint(append(buf, ':'), uint64(p.PID), 10)
	}
	return buf
}

// String returns host:pid, or the host alone.
func (p Party) String() string { return string(p.append(nil)) }

// AppendEscaped appends a value of a notice or listing: blanks, backslashes and whatever is not printable become
// backslash and three octal digits, byte by byte.
func AppendEscaped(buf []byte, s string) []byte {
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == ' ' || r == '\\' || r == utf8.RuneError && size <= 1 || !unicode.IsPrint(r) {
			for _, c := range []byte(s[i : i+size]) {
				buf = append(buf, '\\', '0'+c>>6, '0'+c>>3&7, '0'+c&7)
			}
		} else {
			buf = append(buf, s[i:i+size]...)
		}
		i += size
	}
	return buf
}
