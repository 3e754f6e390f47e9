package state

import "strconv"

// Code is how a command ended. It is an error; what errno a caller sees is decided in package fs alone.
type Code uint8

const (
	OK          Code = iota
	Waiting          // accepted: the request waits (Acquire, RangeLock)
	NotFound         // no such name, node or wait
	Exists           // the name or attribute is there already
	NotEmpty         // the directory has entries
	NotDir           // a directory is needed
	IsDir            // something else than a directory is needed
	Busy             // held or awaited, or a NOQUEUE request that cannot be granted
	Recalling        // other hosts have locks here, perhaps only cached: they were recalled, try again
	NoSpace          // the cluster's limit of nodes or bytes
	TooBig           // value or attribute past its limit
	Stale            // the value's generation moved, or the name leads to another node now
	NotHolder        // the session lacks the lock that this needs
	Ended            // no such session, or it has ended
	Invalid          // the command makes no sense, or an attribute's value has no meaning
	NameTooLong      // past the limit of a name
	TooDeep          // past the limit of a path
	NoAttr           // no such attribute
	Reserved         // a name that is lockfs's own: .lock, and .lockfs in the root
	Loop             // a directory cannot be moved below itself
	TooMany          // the limit of sessions, or of locks and waits of one session
	Deadlock         // granting can never happen: a cycle of byte-range waits
	numCodes
)

var codeNames = [numCodes]string{
	OK: "ok", Waiting: "waiting", NotFound: "not found", Exists: "exists", NotEmpty: "not empty",
	NotDir: "not a directory", IsDir: "is a directory", Busy: "busy", Recalling: "recalling", NoSpace: "no space",
	TooBig: "too big", Stale: "stale", NotHolder: "not the holder", Ended: "session ended", Invalid: "invalid",
	NameTooLong: "name too long", TooDeep: "path too deep", NoAttr: "no such attribute", Reserved: "reserved name",
	Loop: "directory into itself", TooMany: "too many", Deadlock: "deadlock",
}

// String returns the code in words.
func (c Code) String() string {
	if c < numCodes {
		return codeNames[c]
	}
	return "code " + strconv.Itoa(int(c))
}

// Error returns the code in words; OK and Waiting are no errors and are never returned as such, see [Code.Err].
func (c Code) Error() string { return c.String() }

// Err returns nil for OK and Waiting, else the code.
func (c Code) Err() error {
	if c <= Waiting {
		return nil
	}
	return c
}
