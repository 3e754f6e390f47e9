package fstab

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/exit"
)

// Name is what the binary is called as to be mount.lockfs.
const Name = "mount.lockfs"

// childEnv marks the daemon that is started.
const childEnv = "LOCKFS_MOUNTED_BY_FSTAB"

// The exit codes of mount(8).
const (
	usage     = 1
	system    = 2
	signalled = 8
	failed    = 32
)

// Command returns mount.lockfs. It parses by itself.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:   Name + " SOURCE DIR [-sfnv] [-o OPTIONS]",
		Short: "mount a tree of locks for mount(8)",
		Long: `mount.lockfs is what mount(8) runs for file systems of type lockfs, and so what a line of /etc/fstab runs at boot. It starts
lockfs mount in the background, waits until the mount answers, and returns; what is wrong is said and told by the
exit code. SOURCE is a word for listings; write lockfs. umount(8) ends the daemon.

OPTIONS are the flags of lockfs-mount(1) without their --, and these:

  config=FILE       the settings; the other way is one option each: name=host1,bind=10.0.0.1:7420
  view=VIEW         what DIR shows: lock (default), posix or dlmfs
  also=VIEW:DIR     one more mount point of the same daemon; can be repeated
  log=FILE|journal  where the daemon's log goes (default the journal, without it /var/log/lockfs.log)

Options without a comma in their values can stand here; a list such as join is repeated (join=10.0.0.2,join=10.0.0.3) or
stands in the config file. File names are absolute. Those of mount(8) and systemd (_netdev, nofail, x-systemd.…) are
accepted, ro and remount are not.

A host that joins waits until it is admitted. With systemd, x-systemd.mount-timeout= says for how long; 90 s is usual.`,
		Example: `  lockfs /locks lockfs config=/etc/lockfs.toml,_netdev,nofail 0 0
  mount -t lockfs -o data-dir=/srv/lockfs,also=posix:/locks-posix lockfs /locks`,
		Annotations: map[string]string{"exit": `  0    mounted
  1    the command line or a setting is wrong
  2    the daemon cannot be started at all
  8    interrupted; nothing is mounted
  32   not mounted; it says why`},
		DisableFlagParsing: true,
	}
}

// Main is mount.lockfs. It returns the exit code.
func Main(args []string, out, errs io.Writer) int {
	if len(args) == 1 && (args[0] == "-h" || args[0] == "--help") {
		fmt.Fprintf(out, "%s\n\nUsage:\n  %s\n", Command().Long, Command().Use)
		return 0
	}
	r, err := parse(args)
	if err != nil {
		fmt.Fprintf(errs, "%s: %v; see man mount.lockfs\n", Name, err)
		return usage
	}
	if r.dir, err = filepath.Abs(r.dir); err != nil {
		fmt.Fprintf(errs, "%s: %v\n", Name, err)
		return system
	}
	if r.verbose {
		fmt.Fprintf(out, "lockfs %s\n", strings.Join(r.argv(), " "))
	}
	if r.fake {
		return 0
	}
	return r.start(errs)
}

// How long a daemon that uses the data directory has to end: umount(8) does not wait for it.
const (
	formerTime  = 15 * time.Second
	formerAgain = 100 * time.Millisecond
)

// start starts the daemon and waits until it is ready or ends.
func (r request) start(errs io.Writer) int {
	log, err := openLog(r.log)
	if err != nil {
		fmt.Fprintf(errs, "%s: %v; name another place with -o log=FILE\n", Name, err)
		return usage
	}
	defer log.Close()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	for begun := time.Now(); ; time.Sleep(formerAgain) {
		o, err := r.run(log, signals)
		if err != nil {
			fmt.Fprintf(errs, "%s: %v\n", Name, err)
			return system
		}
		if o.code != exit.Unavailable || o.interrupted || time.Since(begun) > formerTime {
			return o.report(errs)
		}
	}
}

// outcome is what came of a daemon's start.
type outcome struct {
	ready       bool
	interrupted bool
	code        int      // with which it ended, -1 for a signal
	lines       []string // what it said
}

// run starts a daemon and waits until it is ready or has ended.
func (r request) run(log *os.File, signals <-chan os.Signal) (o outcome, err error) {
	self, err := os.Executable() // lockfs itself, where this is a link to it
	if err != nil {
		return o, err
	}
	told, tells, err := os.Pipe()
	if err != nil {
		return o, err
	}
	defer told.Close()
	d := exec.Command(self, r.argv()...)
	d.Args[0] = "lockfs"
	d.Env = append(os.Environ(), childEnv+"=1")
	d.Dir, d.Stdout, d.Stderr = "/", tells, log
	d.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = d.Start()
	tells.Close()
	if err != nil {
		return o, err
	}
	said := make(chan []string, 1)
	go func() { said <- listen(told) }()
	for {
		select {
		case <-signals:
			o.interrupted = true
			d.Process.Signal(unix.SIGTERM)
		case o.lines = <-said:
			if o.ready = slices.Equal(o.lines, []string{ready}); o.ready && !o.interrupted {
				return o, nil
			}
			d.Wait()
			o.code = d.ProcessState.ExitCode()
			return o, nil
		}
	}
}

// ready is what a daemon says when its mounts answer.
const ready = "ready"

// listen reads what the daemon says until it is ready, or ends.
func listen(r io.Reader) (lines []string) {
	in := bufio.NewScanner(r)
	for in.Scan() {
		lines = append(lines, in.Text())
		if in.Text() == ready && len(lines) == 1 {
			break
		}
	}
	return lines
}

// report says why there is no daemon, if there is none, and returns mount(8)'s exit code.
func (o outcome) report(errs io.Writer) int {
	for _, line := range o.lines {
		if line != ready {
			fmt.Fprintln(errs, line)
		}
	}
	switch {
	case o.interrupted:
		return signalled
	case o.ready:
		return 0
	case o.code == exit.Usage:
		return usage
	case len(o.lines) == 0:
		fmt.Fprintf(errs, "%s: the daemon ended before it was ready; see its log\n", Name)
	}
	return failed
}

// Child reports whether this process is a daemon that mount.lockfs started. Its errors go to standard output as well, where
// mount.lockfs waits.
func Child() bool {
	is := os.Getenv(childEnv) != ""
	os.Unsetenv(childEnv)
	return is
}
