package conn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	// serve DIR mounts a testFS, says what it made, and serves until it is killed or stdin ends.
	children["serve"] = func(args []string) error {
		c, err := Mount(Options{MountPoint: args[0], AllowOther: true, FSName: hostile})
		if err != nil {
			return err
		}
		fs := newTestFS()
		l := NewLoop(c, fs, fs)
		fs.loop = l
		served := make(chan error, 1)
		go func() { served <- l.Serve() }()
		<-l.Ready()
		fmt.Printf("ready allow_other=%v\n", c.AllowOther())
		go func() {
			io.Copy(io.Discard, os.Stdin)
			if err := l.Close(); err != nil {
				fmt.Println("close:", err)
			}
		}()
		err = <-served
		fmt.Println("over", err)
		return nil
	}
}

// hostile is a source name that would be options of its own if it were not escaped.
const hostile = `a,suid,allow_other,fsname=b\,user_id=7 c`

// server is a process that serves a testFS.
type server struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines *bufio.Scanner
}

// startServer starts a server and waits until it is ready; uid 0 or nobody's.
func startServer(t *testing.T, dir string, uid uint32) *server {
	t.Helper()
	cmd := selfCommand("serve", dir)
	if uid != 0 {
		exe := filepath.Join(dir, "..", "server")
		copyFile(t, "/proc/self/exe", exe)
		cmd.Path = exe
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		cmd.Dir = "/"
	}
	s := &server{cmd: cmd}
	s.stdin, _ = cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	s.lines = bufio.NewScanner(out)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); unix.Unmount(dir, unix.MNT_DETACH) })
	if !s.lines.Scan() {
		cmd.Wait()
		t.Fatalf("the server said nothing: %s", stderr.String())
	}
	return s
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// client runs a shell script in a directory, which may be a mount that hangs.
func client(t *testing.T, dir, script string, uid uint32) (string, error) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "cd "+dir+" && "+script)
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	kill := time.AfterFunc(limit, func() { cmd.Process.Kill() })
	defer kill.Stop()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestRemountAfterKill kills a server in the midst of its work and mounts over what it leaves.
func TestRemountAfterKill(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	first := startServer(t, dir, 0)
	if out, err := client(t, dir, "cat file-a", 0); err != nil || out != testData {
		t.Fatalf("%v %q", err, out)
	}

	if _, err := Mount(Options{MountPoint: dir}); !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "living") {
		t.Errorf("mounting over a living one: %v", err)
	}
	if _, err := Mount(Options{MountPoint: dir + "/dir"}); err == nil {
		t.Error("mounting inside a living one did not fail")
	}

	blocked := exec.Command("/bin/sh", "-c", "exec 9>"+dir+"/gate-a")
	if err := blocked.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	first.cmd.Process.Kill()
	first.cmd.Wait()
	if err := blocked.Wait(); err == nil {
		t.Error("an open outlived its daemon")
	}
	if out, err := client(t, dir, "true", 0); err == nil {
		t.Errorf("the mount is not stale: %q", out)
	}

	startServer(t, dir, 0)
	if out, err := client(t, dir, "cat file-a", 0); err != nil || out != testData {
		t.Errorf("after the remount: %v %q", err, out)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Count(string(mounts), dir) != 1 {
		t.Errorf("%v: %d mounts at the place", err, strings.Count(string(mounts), dir))
	}
}

// TestUnprivileged is all of it as nobody, by way of fusermount3, in a mount namespace where /dev/fuse is open to all,
// as udev has it, and which takes with it what should be left over.
func TestUnprivileged(t *testing.T) {
	const nobody = 65534
	if _, err := findHelper(); err != nil {
		t.Skip("NOT TESTED: mounting by fusermount3:", err)
	}
	if !inNamespace(t) {
		return
	}
	openDevice(t)
	parent, err := os.MkdirTemp("", "conn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir := filepath.Join(parent, "mount, point")
	for _, err := range []error{os.Chmod(parent, 0o755), os.Mkdir(dir, 0o755), os.Chown(dir, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for round, end := range []string{"kill", "close", "close"} {
		if round == 2 {
			permitOther(t)
		}
		s := startServer(t, dir, nobody)
		wantOther := userAllowOther("/etc/fuse.conf")
		if got := s.lines.Text(); got != fmt.Sprintf("ready allow_other=%v", wantOther) {
			t.Errorf("the server says %q", got)
		}
		if out, err := client(t, "'"+dir+"'", "cat file-a && flock -n file-a true && echo x | cat >file-b", nobody); err != nil || out != testData {
			t.Errorf("round %d: %v %q", round, err, out)
		}
		if out, err := client(t, "'"+dir+"'", "cat file-a", 0); (err == nil) != wantOther {
			t.Errorf("allow_other=%v, but root gets %v %q", wantOther, err, out)
		}
		p, err := look(dir)
		if err != nil || p.fstype != "fuse.lockfs" || !p.root() {
			t.Errorf("%+v %v", p, err)
		}
		if end == "kill" {
			s.cmd.Process.Kill()
		} else {
			s.stdin.Close()
			if s.lines.Scan(); s.lines.Text() != "over <nil>" {
				t.Errorf("the server ends with %q", s.lines.Text())
			}
		}
		s.cmd.Wait()
	}
	if p, err := look(dir); err != nil || p.root() {
		t.Errorf("still mounted: %+v %v", p, err)
	}
}

// inNamespace runs the test again, in a process with a mount namespace of its own, and reports whether this is that one.
func inNamespace(t *testing.T) bool {
	t.Helper()
	needRoot(t)
	const inside = "LOCKFS_CONN_TEST_NAMESPACE"
	if os.Getenv(inside) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	t.Logf("in a namespace: %s", out)
	return false
}

// openDevice puts a /dev/fuse that is open to all in the place of the namespace's.
func openDevice(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	node := dir + "/fuse"
	for _, err := range []error{
		unix.Mount("tmpfs", dir, "tmpfs", 0, ""),
		unix.Mknod(node, unix.S_IFCHR, int(unix.Mkdev(10, 229))),
		os.Chmod(node, 0o666),
		unix.Mount(node, "/dev/fuse", "", unix.MS_BIND, ""),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { unix.Unmount("/dev/fuse", unix.MNT_DETACH); unix.Unmount(dir, unix.MNT_DETACH) })
}

// permitOther puts a fuse.conf with user_allow_other in the place of the namespace's.
func permitOther(t *testing.T) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "fuse.conf")
	if err := os.WriteFile(conf, []byte("user_allow_other\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(conf, "/etc/fuse.conf", "", unix.MS_BIND, ""); err != nil {
		t.Skip("NOT TESTED: allow_other of ordinary users:", err)
	}
	t.Cleanup(func() { unix.Unmount("/etc/fuse.conf", unix.MNT_DETACH) })
}

func TestMountRefusals(t *testing.T) {
	for _, o := range []Options{
		{},
		{MountPoint: "/nonexistent/x"},
		{MountPoint: "/etc/passwd"},
		{MountPoint: "/tmp\x00"},
		{MountPoint: "/tmp", Subtype: "a,b"},
		{MountPoint: "/tmp", Subtype: "a/b"},
		{MountPoint: "/tmp", MaxWrite: 5000},
		{MountPoint: "/tmp", MaxWrite: 2 << 20},
	} {
		if c, err := Mount(o); err == nil {
			c.Unmount()
			t.Errorf("%+v was mounted", o)
		} else {
			t.Log(err)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{
		`/a`: "/a", `/a\040b`: "/a b", `/a\134040`: `/a\040`, `/\`: `/\`, `/\08`: `/\08`, `/\012\011`: "/\n\t", `\04`: `\04`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestHelperOptions(t *testing.T) {
	c := &Conn{options: Options{FSName: hostile, Subtype: "lockfs", MaxWrite: 4096}}
	want := `nosuid,nodev,default_permissions,max_read=4096,subtype=lockfs,fsname=a\,suid\,allow_other\,fsname=b\\\,user_id=7 c`
	if got := c.helperOptions(false); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestUserAllowOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fuse.conf")
	for conf, want := range map[string]bool{
		"": false, "#user_allow_other\n": false, "user_allow_other": true, " user_allow_other \nmount_max = 7\n": true,
		"user_allow_others\n": false,
	} {
		if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := userAllowOther(path); got != want {
			t.Errorf("%q: %v", conf, got)
		}
	}
}
