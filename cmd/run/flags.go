package run

import (
	"errors"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
)

// Waiting are the flags of how long to wait: -n, -w, -E, as in flock(1).
type Waiting struct {
	Never bool          // -n, or -w 0
	Limit time.Duration // -w; 0 waits for ever
	Code  int           // -E
}

// Register adds the flags.
func (w *Waiting) Register(fs *pflag.FlagSet) {
	fs.BoolVarP(&w.Never, "nonblock", "n", false, "fail at once instead of waiting")
	fs.BoolVar(&w.Never, "nb", false, "the same")
	fs.VarP(waitFlag{w}, "wait", "w", "fail after so many `SECONDS` (also 0.5, 5s, 2m)")
	fs.Var(waitFlag{w}, "timeout", "the same")
	fs.IntVarP(&w.Code, "conflict-exit-code", "E", exit.Busy, "exit with `CODE` when the lock cannot be had in time")
	fs.MarkHidden("nb")
	fs.MarkHidden("timeout")
}

// Conflict turns the error of a request into the command's.
func (w Waiting) Conflict(op, path string, err error) error {
	if busy(err) {
		if w.Code != exit.Busy {
			return exit.Status(w.Code)
		}
		if w.Never {
			return exit.Status(exit.Busy) // as flock -n: not a word
		}
	}
	e := exit.Of(op, path, err)
	if errors.Is(err, unix.EINVAL) {
		e.What, e.Do = "the flags do not fit the mode, or the descriptor has no lock to convert", "see lockfs "+op+" --help"
	}
	return e
}

// busy reports whether the lock was there but not to be had in time.
func busy(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ETIMEDOUT) || errors.Is(err, unix.ETXTBSY)
}

// waitFlag reads seconds with a fraction, as flock(1) does, or a Go duration. Zero means not to wait.
type waitFlag struct{ w *Waiting }

func (f waitFlag) Type() string { return "SECONDS" }

func (f waitFlag) String() string {
	if f.w == nil || f.w.Limit == 0 {
		return ""
	}
	return f.w.Limit.String()
}

func (f waitFlag) Set(s string) error {
	d, err := parseWait(s)
	if err != nil {
		return err
	}
	f.w.Limit, f.w.Never = d, f.w.Never || d == 0
	return nil
}

var errWait = errors.New("want seconds, as 5 or 0.5, or a duration, as 500ms or 2m")

// parseWait reads seconds or a duration of at most some 292 years.
func parseWait(s string) (time.Duration, error) {
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		if !(sec >= 0 && sec < 1<<33) {
			return 0, errWait
		}
		return time.Duration(sec * float64(time.Second)), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errWait
	}
	return d, nil
}

// RequestFlags are the flags of a request that open(2) has no room for.
type RequestFlags struct {
	set [len(requestFlags)]bool
}

var requestFlags = [...]struct {
	bit        ioc.Flags
	name       string
	conversion bool // for conversions too
	usage      string
}{
	{ioc.Expedite, "expedite", false, "NL only: do not queue"},
	{ioc.QueCvt, "quecvt", true, "queue behind the conversions that wait, even if it could be granted"},
	{ioc.HeadQue, "headque", true, "wait at the head of the queue"},
	{ioc.NoDlckWt, "nodlckwt", true, "this wait counts for no deadlock"},
	{ioc.NoDlckBlk, "nodlckblk", true, "that this lock blocks others counts for no deadlock"},
	{ioc.AltPR, "altpr", true, "take PR if the mode asked for cannot be had at once"},
	{ioc.AltCW, "altcw", true, "take CW if the mode asked for cannot be had at once"},
	{ioc.NoBAST, "nobast", true, "no notices that others are blocked by this lock"},
}

// Register adds the flags that a request may have, or a conversion.
func (r *RequestFlags) Register(fs *pflag.FlagSet, conversion bool) {
	for i, f := range requestFlags {
		if !conversion && f.bit == ioc.QueCvt || conversion && !f.conversion {
			continue
		}
		fs.BoolVar(&r.set[i], f.name, false, f.usage)
	}
}

// Bits returns what is set.
func (r *RequestFlags) Bits() ioc.Flags {
	var bits ioc.Flags
	for i, set := range r.set {
		if set {
			bits |= requestFlags[i].bit
		}
	}
	return bits
}
