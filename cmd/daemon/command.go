package daemon

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cmd/exit"
)

// Version is the released version that the binary is built from.
const Version = "0.1.0-dev"

// Command returns `lockfs mount`.
func Command() *cobra.Command {
	o := &Options{}
	cmd := &cobra.Command{
		Use:   "mount [FLAGS] MOUNTPOINT [VIEW:MOUNTPOINT…]",
		Short: "mount the tree of locks and serve it",
		Long: `mount serves the tree of locks at MOUNTPOINT until SIGTERM or SIGINT, in the foreground. It prints a line "ready" on
standard output (and READY=1 to systemd) once the mounts answer, and logs to standard error. Without any flag it is a
cluster of one with its data in /var/lib/lockfs as root, else in $XDG_STATE_HOME/lockfs.

VIEW says how programs see the tree at a mount point; MOUNTPOINT alone has the view lock.

  lock    open takes a lock: O_WRONLY is PW, O_RDWR EX, name@pr and its like any mode; O_RDONLY takes none
  posix   open never locks, flock(2) and fcntl(2) do: for programs that bring their own lock protocol
  dlmfs   the contract of the kernel's ocfs2_dlmfs, for libo2dlm programs

Every flag can also be given as LOCKFS_… (LOCKFS_DATA_DIR for --data-dir) or as a key of the TOML file of --config. A flag
wins over the environment, the environment over the file. On SIGTERM or SIGINT new requests are refused, holders get
--drain to let go and are then told that their lock is lost; a second signal does not wait for them.

With --join the host belongs to a cluster of several: it looks for the others by gossip, waits until it is admitted, and rejoins
at every later start, also under another address or name. It never starts a cluster by itself; where all hosts have the
same settings run lockfs init, once, on one of them. Without --join it starts a cluster of one, which others can join. A
--bind or --gossip that is not loopback wants TLS and a gossip key (lockfs cert, lockfs keygen), or --insecure. A stopped
host stays a member; lockfs leave takes it out.

The limits marked "cluster" hold for all hosts and stay as they are when they are not given; the defaults are those of a
new cluster.`,
		Example: `  lockfs mount /locks
  lockfs mount --data-dir /srv/lockfs /locks posix:/locks-posix dlmfs:/dlm
  lockfs mount --config /etc/lockfs/lockfs.toml /locks`,
		Annotations: map[string]string{"exit": `  0    ended by a signal, by umount or after lockfs leave, everything unmounted
  64   a flag, the environment or the file is wrong
  65   the cluster does not admit this host or has removed it, or a newer version of lockfs wrote the log
  66   a mount point, the data directory, an address, a certificate or a key cannot be used
  69   another daemon has the data directory
  70   an error that should not be
  71   the system refused the mount
  74   the log or a snapshot is damaged`},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return exit.Usagef("mount", "MOUNTPOINT is missing")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.sources, err = load(cmd.Flags(), os.Getenv); err != nil {
				return err
			}
			if err := o.complete(args); err != nil {
				return err
			}
			o.limits = o.clusterLimits(cmd.Flags().Changed)
			return serve(o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().SortFlags = false
	o.Register(cmd.Flags())
	return cmd
}
