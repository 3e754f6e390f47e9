package cluster

import "errors"

// Kinds of the errors of Open, for errors.Is. Every other error means that the directory cannot be used as it is.
var (
	ErrInUse   = errors.New("in use")  // another daemon has the data directory, or another program the port
	ErrRemoved = errors.New("removed") // the host is no member of its cluster any more
	ErrRefused = errors.New("refused") // the cluster does not admit the host as it is
	ErrDamaged = errors.New("damaged") // something in the data directory is not what was written
)

// refusal is an error of a kind whose words say all that is to be said.
type refusal struct {
	kind error
	msg  string
}

func (e *refusal) Error() string { return e.msg }
func (e *refusal) Unwrap() error { return e.kind }

// Is makes damage known as such, whatever its cause.
func (e *damageError) Is(target error) bool { return target == ErrDamaged }
