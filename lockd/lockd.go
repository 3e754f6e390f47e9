package lockd

import (
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/queue"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/table"
)

// Log is the replicated log as a host uses it. Cluster implements it; see lockdtest for one in memory.
type Log interface {
	// Propose hands over one entry. It returns at once and keeps the order of calls (one goroutine calls). Done is
	// called once, from any goroutine and not from within Propose: with nil when the entry is committed, else when it
	// is not known to be, or known not to be. The entry is not changed any more.
	Propose(entry []byte, done func(error))
	// Renew asks for a renewal of the session's lease. The leader gathers those of all hosts. It returns at once.
	Renew(session uint64, stamp int64)
	// Room returns nil, or an error that says why nothing may grow now, such as a full disk. It returns at once.
	Room() error
}

// Processes are the look-ups in package process, an interface for tests. They may block for a moment.
type Processes interface {
	Look(tid uint32) (process.Info, error)
	// Tgid returns the process of a thread, 0 if it is gone.
	Tgid(tid uint32) uint32
	// Cmdline returns the arguments of a process. It may wait for a request to this very daemon: see process.Cmdline.
	Cmdline(pid uint32) string
	// Comm returns the name of a thread, empty if it is gone.
	Comm(tid uint32) string
	// Owner returns a look-up of what counts as the process's own, for many descriptors in a row.
	Owner(tid uint32) Owner
	// CanLetGo: see process.CanLetGo.
	CanLetGo(descriptors []process.Descriptor, waiting func(tid uint32) bool) bool
}

// Owner tells whether descriptors belong to one process.
type Owner interface {
	Has(process.Descriptor) bool
	// Files are what it has open.
	Files() iter.Seq[process.File]
}

// Config is what a Host needs. Name and Log must be set; the zero value of every other field means its default.
type Config struct {
	Name    string // of the host in the cluster
	Log     Log
	Version string // of the program, for listings
	BootID  string // of the machine; default /proc/sys/kernel/random/boot_id

	UID, GID uint32 // of the mounter: owner of the root if this is the first session ever

	// FormerGone says that nobody can still be working under a former daemon's session of this host on this boot: nobody
	// has its mount open. Start then ends such sessions at once; those of another boot it always ends.
	FormerGone bool

	SessionTTL   time.Duration // how long the cluster keeps a silent host's session; default 10 s, at most an hour
	OpTimeout    time.Duration // for namespace operations and commits; default 5 s
	DeadlockWait time.Duration // how long a cycle stands that somebody might still break; default 10 s; negative: for ever
	TryFor       time.Duration // how long a try waits for what others merely cache; default 1 s

	Limits Limits

	Logger    *slog.Logger // default slog.Default()
	Processes Processes    // default: those of this machine
	Now       func() int64 // CLOCK_BOOTTIME in ns; default the clock
}

// Limits are those of one host. Zero means the default.
type Limits struct {
	Locks      int           // held and waiting; default 1<<20
	Waiters    int           // of these, waiting; default 1<<16
	CohortN    int           // local grants after a recall; default 16, negative: none
	CohortTime time.Duration // for so long; default 50 ms
	IdleMax    int           // locks cached idle; default 10,000
	IdleFor    time.Duration // how long; default 5 min
	Pending    int           // bytes of commands that are not answered yet; default 128 MiB
	Notices    int           // kept for one slow subscriber; default 1024
}

// Call is who asks, from the header of a FUSE request. It is not kept after the call.
type Call struct {
	PID    uint32          // thread; 0: not visible here
	UID    uint32          // of the thread
	GID    uint32          // of the thread
	Cancel <-chan struct{} // closed when the caller was interrupted; nil: never
	Park   func()          // called once, before waiting for the first time; may be nil
	From   any             // told to OnChange beside the changes that the call's command makes, if it can be compared
}

// park calls Park unless it was called before.
func (c *Call) park() {
	if c != nil && c.Park != nil {
		c.Park()
		c.Park = nil
	}
}

func (c *Call) from() any {
	if c == nil {
		return nil
	}
	return c.From
}

func (c *Call) cancel() <-chan struct{} {
	if c == nil {
		return nil
	}
	return c.Cancel
}

// Request says what lock is asked for.
type Request struct {
	Ino   uint64 // the resource; for a directory's `.lock` the directory's
	Mode  queue.Mode
	Flags queue.Flags
	Wait  time.Duration // 0: for ever
	TTL   time.Duration // after that long under the grant it is taken away as lost; 0: never
	// Linger is how long the request keeps its place after an interrupt, for the caller to come again with the same: see
	// linger.go. 0: not at all.
	Linger time.Duration
}

// Lock is the lock of one open descriptor, or its request. The zero value is no lock. Fs allocates it
// inside its handle, sets the exported fields before the first request, and must not copy it after. It can be locked again
// after it was released. Its methods may be called by anybody at any time.
type Lock struct {
	Listener Listener      // told what happens to the lock, and shown in listings; may be nil
	File     process.File  // the inode as the kernel shows it, to find who has the descriptor
	Opened   time.Duration // when it was opened, by Host.Now; 0: not known
	Opener   uint32        // the thread that opened it: it stands for who asked once that is gone, as flock(1) soon is; 0: not known

	t     table.Lock
	token atomic.Uint64
	mode  atomic.Uint32
	lost  atomic.Bool

	// Guarded by Host.mu.
	wait    *waiter
	extra   *extra // nil: nothing of it, as with most
	report  uint64 // told to the cluster under it, 0: not told
	prev    *Lock  // in the list of young locks
	next    *Lock
	tgid    uint32 // process of t.PID, 0: not looked up yet
	young   bool   // in that list
	suspect bool   // a goroutine looks after the deadlock of its wait
	async   bool   // its Listener is told of the grant
}

// extra is what few locks need. It goes with the lock's release.
type extra struct {
	unclaimed *linger // granted after the interrupt of a request that lingers
	ttl       *ttl
	told      []told // blocking ASTs delivered since the grant
}

// extras returns what the lock has of it, to be changed. Called with Host.mu held.
func (l *Lock) extras() *extra {
	if l.extra == nil {
		l.extra = new(extra)
	}
	return l.extra
}

// unclaimed returns the end of the wait that a grant nobody claimed yet came of, else nil.
func (l *Lock) unclaimed() *linger {
	if l.extra == nil {
		return nil
	}
	return l.extra.unclaimed
}

// claimed ends that the grant is unclaimed.
func (l *Lock) claimed() {
	if l.extra != nil {
		l.extra.unclaimed = nil
	}
}

// ttl returns the time to live, nil if it is not limited.
func (l *Lock) ttl() *ttl {
	if l.extra == nil {
		return nil
	}
	return l.extra.ttl
}

// Mode returns what the lock has now: None if nothing is granted.
func (l *Lock) Mode() queue.Mode { return queue.Mode(l.mode.Load()) }

// Token returns the fencing token of the last grant, 0 if nothing is granted. It grows strictly over the grants of
// PW and EX of a resource; for other modes it is a lower bound of the next.
func (l *Lock) Token() uint64 { return l.token.Load() }

// Err returns ErrLost if the lock was taken away since it was granted, else nil. See also [Host.Check].
func (l *Lock) Err() error {
	if l.lost.Load() {
		return ErrLost
	}
	return nil
}

// Listener is told what happens to a lock, in order and after the fact. Notice must be quick, must not block, and may
// call methods of the Host that do not wait.
type Listener interface {
	Notice(n Notice)
}

// Result is the answer to a command.
type Result struct {
	Index      uint64 // of the log entry that answered
	Ino        uint64 // made; that exists; that is in the way
	Generation uint64 // of the value committed
	Code       state.Code

	session uint64 // that it was answered in
}
