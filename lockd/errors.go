package lockd

import (
	"errors"
	"fmt"
)

// The errors of a Host, beside those of state.Code and table.Reason's meaning in them. fs has the errno of each.
var (
	// ErrBusy is for a request that cannot be granted and must not wait, and for a node in use.
	ErrBusy = errors.New("the lock is held or awaited by others: wait for it, or look into .lockfs/held")
	// ErrTimeout ends a wait whose time is over.
	ErrTimeout = errors.New("the lock was not granted in the time given")
	// ErrInterrupted ends a wait whose caller was interrupted, and one whose lock was released meanwhile.
	ErrInterrupted = errors.New("interrupted: the request is withdrawn")
	// ErrDeadlock ends a wait that could never have ended by itself.
	ErrDeadlock = errors.New("deadlock: the request waits for what waits for it; let go of something and try again")
	// ErrLost is for a lock that was taken away: the session's lease ended, its time to live is over, or the host drains.
	ErrLost = errors.New("the lock is lost: its session or time to live ended; close the descriptor and lock again")
	// ErrNoQuorum ends an operation that was not applied within the time for operations. It may still be applied.
	ErrNoQuorum = errors.New("no answer from a majority of the cluster: look into .lockfs/status and try again")
	// ErrNoSpace refuses what would grow the log or the state.
	ErrNoSpace = errors.New("no room left in the cluster's data directory: remove something, or enlarge the disk")
	// ErrNoLocks refuses a lock past the limit of locks or waiters.
	ErrNoLocks = errors.New("too many locks or waiting requests on this host or in its session: raise the limit")
	// ErrDraining refuses new requests of a host that shuts down.
	ErrDraining = errors.New("this host is shutting down")
	// ErrClosed is for a Host that was closed or never started.
	ErrClosed = errors.New("this host is closed")
	// ErrFlags refuses flags that do not fit the mode or each other.
	ErrFlags = errors.New("the request's flags do not fit its mode")
)

// errUnseen is for a command that was applied, and answered in a part of the log that this host never saw.
var errUnseen = fmt.Errorf("answered while this host was far behind: %w", ErrNoQuorum)

// errSessionLost ends a wait that is to be started again in the next session.
var errSessionLost = errors.New("the session was lost")
