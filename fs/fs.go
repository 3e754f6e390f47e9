package fs

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/conn"
	"github.com/lockfs/lockfs/fs/inotify"
	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/process"
	"github.com/lockfs/lockfs/lockd/state"
)

// Options are what [New] needs. Host must be set.
type Options struct {
	Host   *lockd.Host
	View   View
	Shared *Shared      // what the mounts of the host have in common; nil: there is one mount, made before the Host starts
	Logger *slog.Logger // nil: slog.Default()

	// What fs knows nothing of comes from these, any of which may be nil. Facts and Hosts are called under a directory's
	// lock of the kernel and return at once.

	// Facts are more lines for .lockfs/status: on the cluster, the process.
	Facts func() []Fact
	// Hosts are the hosts of the cluster, for .lockfs/hosts; nil: there is no such directory.
	Hosts func() []HostFacts
	// Snapshot writes a snapshot of the state as it is at the call, for .lockfs/snapshot; nil: there is no such file. It may
	// be called several times at once, and ends early with the error of w.
	Snapshot func(w io.Writer) error
	// Metrics writes the figures of the daemon as Prometheus has them, for .lockfs/metrics; nil: there is no such file. It may be
	// called several times at once.
	Metrics func(w io.Writer) error
	// Control carries out a command, one line of text without its end, and returns what there is to say, for
	// .lockfs/control; nil: there is no such file. It may be called several times at once. The context ends after a
	// minute, and when the mount is closed: Control must then return soon.
	Control func(ctx context.Context, line string) (answer string, err error)

	// Groups looks up supplementary groups; nil: process.Groups.
	Groups func(tid uint32) ([]uint32, error)
}

// Fact is one key=value line of .lockfs/status. One with an empty value is left out.
type Fact struct{ Key, Value string }

// FS is the file system of one mount point. Its methods are called by the loop of package conn, several at once.
type FS struct {
	fuse.RawFileSystem // answers ENOSYS to what is not here: CREATE and TMPFILE, so that the kernel does MKNOD and OPEN

	host   *lockd.Host
	shared *Shared
	view   View
	policy *policy
	log    *slog.Logger
	groups func(tid uint32) ([]uint32, error)
	facts  func() []Fact

	hosts     func() []HostFacts
	snapshot  func(w io.Writer) error
	metrics   func(w io.Writer) error
	control   func(ctx context.Context, line string) (string, error)
	snapshots atomic.Int32    // readers of .lockfs/snapshot
	controls  atomic.Int32    // commands to .lockfs/control under way
	serving   context.Context // ends with the mount
	cease     func()          // ends it

	loop   *conn.Loop      // nil without a kernel: in tests and benchmarks
	notes  *conn.Notifier  // of loop
	raiser *inotify.Raiser // nil: none
	dev    uint64          // st_dev of the mount

	handles  handles
	aliases  aliases
	specials specials
	opens    opens
	ranges   rangeOwners
	stop     []func()       // what OnUnmount undoes
	closing  sync.WaitGroup // last commits of closed descriptors, and ends of orphans
}

var (
	_ fuse.RawFileSystem = (*FS)(nil)
	_ conn.Poller        = (*FS)(nil)
	_ conn.OpenFailer    = (*FS)(nil)
)

// New makes the file system of one view of a host. It serves nobody before Mount, or a loop, gives it a kernel.
func New(o Options) *FS {
	f := &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		host:          o.Host,
		shared:        o.Shared,
		view:          o.View,
		policy:        &policies[o.View],
		log:           o.Logger,
		groups:        o.Groups,
		facts:         o.Facts,
		hosts:         o.Hosts,
		snapshot:      o.Snapshot,
		metrics:       o.Metrics,
		control:       o.Control,
	}
	f.serving, f.cease = context.WithCancel(context.Background())
	if f.shared == nil {
		f.shared = NewShared(o.Host)
	}
	if f.log == nil {
		f.log = slog.Default()
	}
	if f.groups == nil {
		f.groups = process.Groups
	}
	return f
}

// String names the file system in go-fuse's messages.
func (f *FS) String() string { return "lockfs:" + f.policy.name }

// View returns the view that the file system shows.
func (f *FS) View() View { return f.view }

// OnUnmount lets go of all that is open, and waits for what has to be committed then: the kernel sends no RELEASE when
// a connection ends. It is the last call.
func (f *FS) OnUnmount() {
	for _, stop := range f.stop {
		stop()
	}
	f.cease()
	for _, file := range f.handles.all() {
		f.closeFile(file)
	}
	f.closing.Wait()
}

// OpenFailed lets go of a handle whose OPEN reply nobody took.
func (f *FS) OpenFailed(_, fh uint64) { f.closeFile(f.handles.remove(fh)) }

// call makes the lockd.Call of a request.
func (f *FS) call(h *fuse.InHeader, cancel <-chan struct{}) *lockd.Call {
	c := &lockd.Call{PID: h.Pid, UID: h.Uid, GID: h.Gid, Cancel: cancel}
	if !isAlias(h.NodeId) { // the kernel raises the inotify events of an alias's inode
		c.From = f
	}
	if f.loop != nil {
		unique := h.Unique
		c.Park = func() { f.loop.Park(unique) }
	}
	return c
}

// park lets the loop's next reader go on, since the handler of the request is about to wait.
func (f *FS) park(h *fuse.InHeader) {
	if f.loop != nil {
		f.loop.Park(h.Unique)
	}
}

// await waits until over is closed, or the request is interrupted. A nil channel is over.
func (f *FS) await(h *fuse.InHeader, cancel <-chan struct{}, over <-chan struct{}) fuse.Status {
	if over == nil {
		return fuse.OK
	}
	select {
	case <-over:
		return fuse.OK
	default:
	}
	f.park(h)
	select {
	case <-over:
		return fuse.OK
	case <-cancel:
		return fuse.EINTR
	}
}

// settleTime bounds the wait for invalidations. One that takes longer waits for a program that the kernel holds up.
const settleTime = time.Second

// settle waits until the kernel was told of all that this host has applied, so that what the caller reads next is no
// older than the reply that it gets now. Not for requests under a directory's lock (package comment).
func (f *FS) settle(h *fuse.InHeader, cancel <-chan struct{}) {
	if f.notes == nil {
		return
	}
	index := f.host.View().Index()
	if f.notes.Settled(index) {
		return
	}
	f.park(h)
	f.notes.Wait(index, cancel, settleTime)
}

// maxValid bounds how long the kernel may keep names and attributes, whatever the lease.
const maxValid = time.Minute

// validFor is how long the kernel may keep what it is told now: no longer than the lease.
func (f *FS) validFor() time.Duration {
	return min(max(f.host.LeaseLeft(), 0), maxValid)
}

// node returns the tree's node behind a node id that is neither an alias nor special.
func (f *FS) node(node uint64) *state.Node { return f.host.View().Node(resource(node)) }
