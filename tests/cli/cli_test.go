package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/cmd/cli"
)

func TestMain(m *testing.M) {
	main := func() { os.Exit(cli.Main()) }
	testscript.Main(m, map[string]func(){"lockfs": main, "mount.lockfs": main})
}

// limit bounds one script.
const limit = 5 * time.Minute

// needFUSE skips a test where it cannot mount.
func needFUSE(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs /dev/fuse and root")
	}
}

// TestScripts runs testdata/*.txtar. M is the mount of view lock that `daemon start` makes, P posix, D dlmfs, DATA the data
// directory.
func TestScripts(t *testing.T) {
	needFUSE(t)
	bin := publicBinary(t)
	hosts, err := filepath.Abs("testdata/hosts.sh") // for scripts with several hosts
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			mounts, err := os.MkdirTemp(bin, "mounts")
			if err == nil {
				err = os.Chmod(mounts, 0o755)
			}
			if err != nil {
				return err
			}
			d := &daemon{dir: env.WorkDir, mounts: mounts, path: env.Getenv("PATH")}
			env.Values["daemon"] = d
			env.Defer(d.kill)
			env.Setenv("M", d.point("lock"))
			env.Setenv("P", d.point("posix"))
			env.Setenv("D", d.point("dlmfs"))
			env.Setenv("DATA", d.data())
			env.Setenv("SHELL", "/bin/sh")
			env.Setenv("PUBLIC", bin)
			env.Setenv("HOSTS", hosts)
			timer := time.AfterFunc(limit, d.kill)
			env.Defer(func() { timer.Stop() })
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"daemon": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) == 0 {
					ts.Fatalf("usage: daemon start|stop|kill [FLAGS]")
				}
				ts.Check(ts.Value("daemon").(*daemon).do(args[0], args[1:]))
			},
			"exits": exits,
		},
	})
}

// publicBinary copies this binary, as lockfs, to where other users can execute it, and returns the directory.
func publicBinary(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockfs-cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "lockfs"), text, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// exits runs a command that must exit with a code: exits CODE COMMAND [ARG…].
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v exits %d, want %d", args[1:], got, want)
	}
}

// daemon is a `lockfs mount` process with the three views.
type daemon struct {
	dir    string // of its data and log
	mounts string // of its mount points, where other users get to
	path   string // PATH, where lockfs is this binary
	cmd    *exec.Cmd
	log    *os.File
}

func (d *daemon) point(view string) string { return filepath.Join(d.mounts, view) }
func (d *daemon) data() string             { return filepath.Join(d.dir, "data") }

// do starts, stops or kills the daemon. Each must succeed within a minute.
func (d *daemon) do(what string, args []string) error {
	switch what {
	case "start":
		return d.start(args)
	case "stop":
		return d.stop()
	case "kill":
		d.cmd.Process.Kill()
		d.cmd.Wait()
		return nil
	}
	return fmt.Errorf("daemon %s: want start, stop or kill", what)
}

// start starts it with the three views, or with what args say of mount points, and waits until it is ready.
func (d *daemon) start(args []string) error {
	argv := append([]string{"mount", "--data-dir", d.data(), "--bind", "127.0.0.1:0", "--name", "host1"}, args...)
	argv = append(argv, d.point("lock"), "posix:"+d.point("posix"), "dlmfs:"+d.point("dlmfs"))
	for _, view := range []string{"lock", "posix", "dlmfs"} {
		// The mount point may be a dead mount, where stat fails.
		if err := os.MkdirAll(d.point(view), 0o755); err != nil && !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	name := ""
	for dir := range strings.SplitSeq(d.path, ":") {
		if _, err := os.Stat(filepath.Join(dir, "lockfs")); err == nil {
			name = filepath.Join(dir, "lockfs")
			break
		}
	}
	var err error
	if d.log, err = os.Create(filepath.Join(d.dir, "daemon.log")); err != nil {
		return err
	}
	d.cmd = exec.Command(name, argv...)
	d.cmd.Env = append(os.Environ(), "PATH="+d.path)
	d.cmd.Stderr = d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	timer := time.AfterFunc(time.Minute, d.kill)
	defer timer.Stop()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		d.cmd.Wait()
		return fmt.Errorf("the daemon says %q, %v\n%s", line, err, d.said())
	}
	return nil
}

func (d *daemon) said() string {
	text, _ := os.ReadFile(filepath.Join(d.dir, "daemon.log"))
	return string(text)
}

func (d *daemon) stop() error {
	if d.cmd == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the daemon ends: %w\n%s", err, d.said())
	}
	return nil
}

// kill ends it by force and takes away what is still mounted.
func (d *daemon) kill() {
	if d.cmd != nil && d.cmd.Process != nil {
		d.cmd.Process.Kill()
		d.cmd.Wait()
	}
	unix.Unmount(d.data(), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) // a script may have put a small disk there
	for _, view := range []string{"lock", "posix", "dlmfs"} {
		for unix.Unmount(d.point(view), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW) == nil {
		}
	}
}
