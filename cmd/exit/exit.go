// Package exit holds the exit codes of the lockfs commands and the one form of their error messages:
// `lockfs: OPERATION PATH: what; what to do`. The codes are those of flock(1), which are those of
// sysexits.h.
package exit

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
)

// The codes. A command's help lists those that it uses.
const (
	OK          = 0
	Busy        = 1  // not granted in time, or the answer is no
	Usage       = 64 // the command line is wrong
	Refused     = 65 // deadlock, no permission, no room in the lock table, value too large
	NoInput     = 66 // the path cannot be opened
	Unavailable = 69 // no daemon answers there, or the command cannot be executed
	Software    = 70 // an error that should not be
	OS          = 71 // the system is out of something
	NoCreate    = 73 // the path cannot be made
	Lost        = 74 // the lock or the connection to the others was lost
)

// Error is what a command says when it cannot do what was asked.
type Error struct {
	Op   string // the command: run, convert …
	Path string // what it was about: a path, "FD 9", or empty
	What string // what is in the way; empty: Err's errno says it
	Do   string // what to do about it; may be empty
	Code int    // the exit code; 0: chosen by Err's errno
	Err  error  // the cause, may be nil
}

// Usagef says that the command line is wrong.
func Usagef(op, format string, args ...any) *Error {
	return &Error{Op: op, What: fmt.Sprintf(format, args...), Do: "see " + strings.Join(strings.Fields("lockfs "+op+" --help"), " "), Code: Usage}
}

// Of wraps the error of a system call on path.
func Of(op, path string, err error) *Error { return &Error{Op: op, Path: path, Err: err} }

// FD names an inherited descriptor in messages.
func FD(fd int) string { return fmt.Sprintf("FD %d", fd) }

// Error returns the message without the leading "lockfs: ".
func (e *Error) Error() string {
	head := strings.TrimSpace(e.Op + " " + e.Path)
	what, do := e.What, e.Do
	if m, ok := meaningOf(e.Err); ok {
		if what == "" {
			what = m.what
		}
		if do == "" {
			do = m.do
		}
	}
	if what == "" && e.Err != nil {
		what = e.Err.Error()
	}
	if do != "" {
		what += "; " + do
	}
	if head == "" {
		return what
	}
	return head + ": " + what
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// meaning is how an errno of lockfs reads to a person, and the exit code that it makes.
type meaning struct {
	errno    syscall.Errno
	code     int
	what, do string
}

var meanings = []meaning{
	{syscall.EAGAIN, Busy, "held or awaited by another", "lockfs why PATH names it; wait with -w"},
	{syscall.ETXTBSY, Busy, "held or awaited by another", "lockfs why PATH names it; wait with -w"},
	{syscall.EBUSY, Busy, "held or awaited by another", "lockfs why PATH names it"},
	{syscall.ETIMEDOUT, Busy, "not granted in time", "lockfs why PATH names the holder"},
	{syscall.EINTR, Busy, "interrupted while waiting", "the request is withdrawn"},
	{syscall.EDEADLK, Refused, "waiting would be a deadlock", "release what this process or its partner holds, then try again"},
	{syscall.EACCES, Refused, "no permission", "NL CR PR need read permission, CW PW EX write permission"},
	{syscall.EPERM, Refused, "not permitted", "ask the owner of the file or root"},
	{syscall.ENOLCK, Refused, "this host gives no lock: it shuts down, its lock table is full, or the lock was lost", "see lockfs status"},
	{syscall.EFBIG, Refused, "the value is too large", "the limit is 256 KiB unless the cluster sets another"},
	{syscall.ESTALE, Refused, "the value changed under the lock, or the file is gone", "read it again"},
	{syscall.EINVAL, Refused, "not valid for this descriptor", "lockfs token and lockfs convert need one that holds a lock"},
	{syscall.ENOTEMPTY, Refused, "not empty", "remove what is in it first"},
	{syscall.ENOTTY, Unavailable, "not a file of a lockfs mount", "name one below a mount point of lockfs mount"},
	{syscall.EBADF, Usage, "not open", "open it in the shell first, as in: exec 9<>/locks/a"},
	{syscall.ENOENT, NoInput, "no such file or directory", "touch makes a lock, mkdir a directory of locks"},
	{syscall.ENOTDIR, NoInput, "a part of the path is not a directory", "name a path below the mount point"},
	{syscall.EISDIR, NoInput, "is a directory", "its lock file is its .lock"},
	{syscall.ENAMETOOLONG, NoInput, "the name is too long", "a name has at most 255 bytes"},
	{syscall.ELOOP, NoInput, "the path is too deep", "the limit is 64 directories unless the cluster sets another"},
	{syscall.ENOSPC, NoCreate, "no room", "the cluster's limit of nodes or values, or the disk, is full"},
	{syscall.EROFS, NoCreate, "read-only", "mount it writable"},
	{syscall.ENOTCONN, Unavailable, "the daemon of this mount is gone", "start lockfs mount on it again"},
	{syscall.ECONNABORTED, Unavailable, "the daemon of this mount is gone", "start lockfs mount on it again"},
	{syscall.EIO, Lost, "the lock was lost, or the host has no contact with its cluster", "see lockfs status"},
	{syscall.ENOMEM, OS, "out of memory", "free some"},
	{syscall.EMFILE, OS, "too many open files", "raise ulimit -n"},
	{syscall.ENFILE, OS, "too many open files in the system", "raise fs.file-max"},
}

func meaningOf(err error) (meaning, bool) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return meaning{}, false
	}
	for _, m := range meanings {
		if m.errno == errno {
			return m, true
		}
	}
	return meaning{}, false
}

// Status is an error that says nothing more and only sets the exit code.
type Status int

func (s Status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Code returns the exit code for what a command returned.
func Code(err error) int {
	if err == nil {
		return OK
	}
	var status Status
	if errors.As(err, &status) {
		return int(status)
	}
	var e *Error
	if errors.As(err, &e) && e.Code != 0 {
		return e.Code
	}
	if m, ok := meaningOf(err); ok {
		return m.code
	}
	return Software
}

// Report prints err to w as a person should see it and returns the exit code.
func Report(w io.Writer, err error) int {
	var status Status
	if err != nil && !errors.As(err, &status) {
		fmt.Fprintf(w, "lockfs: %v\n", err)
	}
	return Code(err)
}
