package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lockfs/lockfs/cluster"
	"github.com/lockfs/lockfs/cmd/client"
	"github.com/lockfs/lockfs/cmd/daemon"
	"github.com/lockfs/lockfs/cmd/exit"
)

func snapshot() *cobra.Command {
	return group(&cobra.Command{
		Use:   "snapshot",
		Short: "save the whole state to a file, or begin a new cluster with one",
		Long: `snapshot is for backups. A snapshot is the whole tree with its values, attributes and token base as of one entry of the log, and
a checksum. It holds what values hold: keep it as secret as they are.`,
		Example: `  lockfs snapshot save /backup/locks.snap
  lockfs snapshot restore /backup/locks.snap --data-dir /var/lib/lockfs`,
	}, snapshotSave(), snapshotRestore())
}

func snapshotSave() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "save FILE [FLAGS]",
		Short: "write a snapshot of the state, as of now, to FILE",
		Long: `save writes a snapshot as this host has the state now, while everything goes on. FILE is there when the snapshot is whole, verified
and on disk, in place of an older one; only its owner may read it. It is for root and the daemon's own user.`,
		Args: arguments(1, 1, "FILE"),
		Annotations: exits("0   saved", "64  the command line is wrong", "65  no permission", "69  no daemon answers",
			"73  FILE cannot be written", "74  what was read is not whole"),
	}
	mount := mountFlag(cmd.Flags())
	asJSON := jsonFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		const op = "snapshot save"
		m, _, err := client.Find(op, *mount)
		if err != nil {
			return err
		}
		from, err := m.OpenSnapshot(op)
		if err != nil {
			return err
		}
		defer from.Close()
		info, err := saveTo(args[0], from)
		switch {
		case errors.Is(err, cluster.ErrSnapshot):
			return &exit.Error{Op: op, Path: m.Point, What: err.Error(), Do: "see the daemon's log", Code: exit.Lost}
		case err != nil:
			return notMade(op, err)
		case *asJSON:
			return printJSON(cmd.OutOrStdout(), info)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: entry %d of cluster %s, %d files and directories\n", args[0], info.Index, info.Cluster, info.Nodes)
		return nil
	}
	return cmd
}

// saveTo writes a snapshot to a file beside its place, reads it again from there, and puts it into its place.
func saveTo(name string, from io.Reader) (info cluster.SnapshotInfo, err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return info, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err := io.Copy(f, from); err != nil {
		return info, err
	}
	if err := f.Sync(); err != nil {
		return info, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return info, err
	}
	if info, err = cluster.VerifySnapshot(f); err != nil {
		return info, err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return info, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return info, err
	}
	return info, errors.Join(d.Sync(), d.Close())
}

func snapshotRestore() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE [FLAGS]",
		Short: "make a data directory for a new cluster from a snapshot",
		Long: `restore makes the data directory, which must be missing or empty, that of the first host of a new cluster, whose tree is that of
the snapshot. No daemon is needed, and none may run on the directory. Locks and sessions are not restored; tokens go on
above all that were ever given out before. Start the daemon on it without --join or with, as ever; the other hosts join
it with empty directories (lockfs mount --reset, once).`,
		Args: arguments(1, 1, "FILE"),
		Annotations: exits("0   restored", "64  the command line, the environment or the file is wrong", "66  FILE cannot be read",
			"73  the data directory cannot be made, or is in use", "74  FILE is damaged"),
	}
	cmd.Flags().SortFlags = false
	data := daemon.DataDirFlags(cmd.Flags())
	title := cmd.Flags().String("name", "", "call the host `NAME` (default the machine's name)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		const op = "snapshot restore"
		dir, err := data()
		if err != nil {
			return err
		}
		f, err := os.Open(args[0])
		if err != nil {
			return exit.Of(op, args[0], err)
		}
		defer f.Close()
		err = cluster.Restore(dir, *title, f)
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s is the data directory of a new cluster\n", dir)
			return nil
		}
		e := &exit.Error{Op: op, What: strings.TrimPrefix(err.Error(), "lockfs: "), Code: exit.NoCreate}
		if errors.Is(err, cluster.ErrSnapshot) {
			e.Path, e.Code = args[0], exit.Lost
		} else if path := (*fs.PathError)(nil); errors.As(err, &path) && path.Path == args[0] {
			e.Code = exit.NoInput
		}
		return e
	}
	return cmd
}
