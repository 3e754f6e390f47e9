package run

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/exit"
	"github.com/lockfs/lockfs/fs/ioc"
	"github.com/lockfs/lockfs/lockd/queue"
)

// options is the command line of `lockfs run`.
type options struct {
	mode    queue.Mode
	unlock  bool
	waiting Waiting
	request RequestFlags
	ttl     time.Duration
	slots   int // --slots; 0: not given

	close   bool   // -o
	noFork  bool   // -F
	shell   string // -c
	verbose bool
	quiet   bool

	onLoss     lossAction
	grace      time.Duration
	onBlocking unix.Signal
}

// lossAction is what to do with the command when the lock is lost.
type lossAction struct {
	ignore bool
	signal unix.Signal
}

const long = `run takes a lock on PATH, runs CMD and releases the lock when CMD ends. Its options and exit codes are those of flock(1);
PATH is made if it is not there; a directory means its .lock. CMD gets

  LOCKFS_PATH   the absolute path of the lock file     LOCKFS_TOKEN  its fencing token
  LOCKFS_MODE   the mode granted                       LOCKFS_FD     the descriptor, which CMD inherits unless -o is given

While the lock is awaited, a line on standard error says who holds it, from the first second on. CMD runs in a process group
of its own. Signals sent to run are handed on: HUP INT QUIT TERM to the group, others to CMD. When the lock is lost (its
host lost contact with the cluster, its ttl ran out, or the daemon ended) the whole group is ended: --on-loss gives the
signal, and what is still there after --grace gets SIGKILL.

With --slots N at most N commands run under DIR at a time, on all hosts together: each has EX on one of DIR/1 … DIR/N, which
LOCKFS_SLOT numbers. DIR and the files are made when they are needed, the files with the permissions that DIR gives. Who waits
stands in line, first come, first served, by way of DIR/.queue (lockfs why DIR/.queue shows the line); other names in DIR are
left alone. N is kept in the attribute user.lockfs.slots of DIR, which its owner and root can change; another N is an error.
A wait for a slot counts for no deadlock, since any of them would do: bound it with -w.

With a number of a descriptor that the calling shell has open instead of PATH, and no CMD, run locks that descriptor, or
converts the lock it has.`

// Command returns `lockfs run`.
func Command() *cobra.Command {
	cmd, _ := newCommand()
	return cmd
}

func newCommand() (*cobra.Command, *options) {
	o := &options{onLoss: lossAction{signal: unix.SIGTERM}}
	cmd := &cobra.Command{
		Use: `run [OPTIONS] PATH [--] CMD [ARG…]
  lockfs run [OPTIONS] PATH -c 'SHELL COMMAND'
  lockfs run [OPTIONS] --slots N DIR [--] CMD [ARG…]
  lockfs run [OPTIONS] FD`,
		Short: "run a command under a lock, as flock(1) does",
		Long:  long,
		Example: `  lockfs run -n /locks/nightly ./nightly.sh             # as flock -n
  lockfs run -m pr -w 5 /locks/db/orders -- report      # shared, waits at most 5 s
  lockfs run --on-blocking USR1 /locks/batch -- batch   # batch is told when others want it
  lockfs run /locks/a -c 'echo $LOCKFS_TOKEN'
  lockfs run --slots 2 /locks/restart -- restart-me     # on every host: two at a time`,
		Annotations: map[string]string{"exit": `  N    that of CMD; 128+N if signal N ended it
  1    the lock could not be had in time (or the code of -E)
  64   wrong usage, or DIR has another number of slots
  65   it would be a deadlock, or no permission for the mode
  66   PATH cannot be opened
  69   CMD cannot be executed, or PATH is not in a lockfs mount
  71   the system is out of something
  73   PATH cannot be made
  74   the lock was lost, CMD was ended`},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exit.Usagef("run", "PATH is missing")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			argv, err := o.arguments(args)
			if err != nil {
				return err
			}
			if argv == nil {
				return o.descriptor(args[0])
			}
			return o.command(args[0], argv)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.VarP(modeFlag{o}, "mode", "m", "take the lock in `MODE`: nl cr cw pr pw ex (default ex)")
	f.VarPF(fixedMode{o, queue.PR}, "shared", "s", "as -m pr").NoOptDefVal = "true"
	f.VarPF(fixedMode{o, queue.EX}, "exclusive", "x", "as -m ex").NoOptDefVal = "true"
	f.Var(slotsFlag{&o.slots}, "slots", "take one of `N` slots of the directory")
	f.BoolVarP(&o.unlock, "unlock", "u", false, "with FD: release its lock")
	o.waiting.Register(f)
	f.BoolVarP(&o.close, "close", "o", false, "do not let CMD inherit the descriptor")
	f.BoolVarP(&o.noFork, "no-fork", "F", false, "become CMD instead of starting it: nothing watches over the lock then")
	f.StringVarP(&o.shell, "command", "c", "", "run one `STRING` with the shell ($SHELL or /bin/sh)")
	f.DurationVar(&o.ttl, "ttl", 0, "have the lock taken away after `DURATION`")
	o.request.Register(f, false)
	f.Var(lossFlag{o}, "on-loss", "when the lock is lost, send `SIGNAL` to all of CMD's group; ignore: do nothing")
	f.DurationVar(&o.grace, "grace", 2*time.Second, "after --on-loss, wait `DURATION` before SIGKILL")
	f.Var(signalFlag{&o.onBlocking}, "on-blocking", "send `SIGNAL` to CMD when another is blocked by this lock")
	f.BoolVar(&o.verbose, "verbose", false, "say how long it took and what is executed")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not say whom it is waiting for")
	cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions(Modes, cobra.ShellCompDirectiveNoFileComp))
	return cmd, o
}

// arguments finds the command to execute: what stands behind PATH, or a string for the shell. It is nil when PATH
// is the number of a descriptor.
func (o *options) arguments(args []string) ([]string, error) {
	rest := args[1:]
	if len(rest) > 0 && (rest[0] == "-c" || rest[0] == "--command") {
		if len(rest) != 2 {
			return nil, exit.Usagef("run", "-c requires exactly one command argument")
		}
		o.shell, rest = rest[1], nil
	}
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	_, err := strconv.Atoi(args[0])
	isNumber := err == nil
	switch {
	case o.shell != "" && len(rest) > 0:
		return nil, exit.Usagef("run", "-c and a command exclude each other")
	case o.close && o.noFork:
		return nil, exit.Usagef("run", "the --no-fork and --close options are incompatible")
	case o.noFork && o.onBlocking != 0:
		return nil, exit.Usagef("run", "with --no-fork nothing is left to watch: leave --on-blocking away")
	case o.slots > 0 && (o.asked() != queue.EX || o.unlock || o.request.Bits()&notForSlots != 0):
		return nil, exit.Usagef("run", "a slot is taken in EX: leave the other mode, -u, --expedite, --altpr and --altcw away")
	case o.slots > 0 && o.shell == "" && len(rest) == 0:
		return nil, exit.Usagef("run", "CMD is missing")
	case o.grace < 0 || o.ttl < 0:
		return nil, exit.Usagef("run", "a duration is negative")
	case o.shell != "":
		return []string{shellPath(), "-c", o.shell}, nil
	case len(rest) > 0 && o.unlock:
		return nil, exit.Usagef("run", "-u takes the number of a descriptor and no command")
	case len(rest) > 0:
		return rest, nil
	case !isNumber:
		return nil, exit.Usagef("run", "CMD is missing, and %q is not the number of a descriptor", args[0])
	}
	return nil, nil
}

// asked is the mode to ask for.
func (o *options) asked() queue.Mode {
	if o.mode == queue.None {
		return queue.EX
	}
	return o.mode
}

func (o *options) ioctl() ioc.Request {
	r := ioc.Request{Mode: uint32(o.asked()), Flags: o.request.Bits(), Wait: o.waiting.Limit, TTL: o.ttl}
	if o.waiting.Never {
		r.Flags, r.Wait = r.Flags|ioc.NoQueue, 0
	}
	return r
}

// descriptor locks, converts or unlocks an inherited descriptor, as flock(1) with a number does.
func (o *options) descriptor(arg string) error {
	fd, info, err := client.Descriptor("run", arg)
	if err != nil {
		return err
	}
	if o.unlock {
		if err := unix.Flock(fd, unix.LOCK_UN); err != nil {
			return exit.Of("run", exit.FD(fd), err)
		}
		return nil
	}
	act := ioc.Lock
	if info.State == ioc.Held || info.State == ioc.Converting {
		act = ioc.Convert
	}
	if _, err := Masked(func() (ioc.Request, error) { return act(fd, o.ioctl()) }); err != nil {
		return o.waiting.Conflict("run", exit.FD(fd), err)
	}
	return nil
}

// Modes are the words for the modes, as completion offers them.
var Modes = []string{"nl", "cr", "cw", "pr", "pw", "ex"}

// The flags with a syntax of their own.

type modeFlag struct{ o *options }

func (f modeFlag) Type() string   { return "MODE" }
func (f modeFlag) String() string { return "" }
func (f modeFlag) Set(s string) error {
	mode, ok := queue.ParseMode(s)
	if !ok {
		return fmt.Errorf("want nl cr cw pr pw ex")
	}
	return f.o.setMode(mode)
}

// setMode refuses a second, different mode.
func (o *options) setMode(m queue.Mode) error {
	if o.mode != queue.None && o.mode != m {
		return fmt.Errorf("the mode is %v already", o.mode)
	}
	o.mode = m
	return nil
}

type fixedMode struct {
	o *options
	m queue.Mode
}

func (f fixedMode) Type() string     { return "bool" }
func (f fixedMode) String() string   { return "false" }
func (f fixedMode) IsBoolFlag() bool { return true }
func (f fixedMode) Set(string) error { return f.o.setMode(f.m) }

// notForSlots are the request flags that mean another mode than EX.
const notForSlots = ioc.Expedite | ioc.AltPR | ioc.AltCW

type slotsFlag struct{ n *int }

func (f slotsFlag) Type() string { return "N" }

func (f slotsFlag) String() string {
	if f.n == nil || *f.n == 0 {
		return ""
	}
	return strconv.Itoa(*f.n)
}

func (f slotsFlag) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxSlots {
		return fmt.Errorf("want a number from 1 to %d", maxSlots)
	}
	*f.n = n
	return nil
}

type lossFlag struct{ o *options }

func (f lossFlag) Type() string { return "SIGNAL" }

func (f lossFlag) String() string {
	if f.o == nil {
		return ""
	}
	if f.o.onLoss.ignore {
		return "ignore"
	}
	return strings.TrimPrefix(unix.SignalName(f.o.onLoss.signal), "SIG")
}

func (f lossFlag) Set(s string) error {
	if s == "ignore" {
		f.o.onLoss = lossAction{ignore: true}
		return nil
	}
	f.o.onLoss.ignore = false
	return signalFlag{&f.o.onLoss.signal}.Set(s)
}

type signalFlag struct{ sig *unix.Signal }

func (f signalFlag) Type() string { return "SIGNAL" }

func (f signalFlag) String() string {
	if f.sig == nil || *f.sig == 0 {
		return ""
	}
	return strings.TrimPrefix(unix.SignalName(*f.sig), "SIG")
}

func (f signalFlag) Set(s string) error {
	sig, ok := client.ParseSignal(s)
	if !ok {
		return fmt.Errorf("no such signal")
	}
	*f.sig = sig
	return nil
}
