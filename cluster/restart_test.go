package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mountTmpfs mounts a tmpfs for the test; without root it skips the test.
func mountTmpfs(t testing.TB, options string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: needs root to mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, options); err != nil {
		t.Skipf("NOT TESTED: cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})
	return dir
}

// hold runs a command that says "held" and then waits for its standard input to end; it returns the command's pid.
func hold(t *testing.T, name string, args ...string) (pid int, release func()) {
	t.Helper()
	cmd := exec.Command(name, args...)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "held\n" {
		t.Fatalf("%s: %q %v", name, line, err)
	}
	release = func() { in.Close(); cmd.Wait() }
	t.Cleanup(release)
	return cmd.Process.Pid, release
}

func TestOpenIn(t *testing.T) {
	openHere := func(dir string) []string {
		return []string{"sh", "-c", `exec 9<"$0"; echo held; read x`, filepath.Join(dir, "f")}
	}
	for _, x := range []struct {
		name string
		args func(dir string) []string
		need string
	}{
		{"open", openHere, ""},
		{"open in another mount namespace", func(dir string) []string {
			return append([]string{"unshare", "-m"}, openHere(dir)...)
		}, "unshare"},
		{"mapped", func(dir string) []string {
			return []string{"python3", "-c", "import mmap,sys\n" +
				"f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ); f.close()\n" +
				"print('held',flush=True); sys.stdin.read()", filepath.Join(dir, "f")}
		}, "python3"},
	} {
		t.Run(x.name, func(t *testing.T) {
			if _, err := exec.LookPath(x.need); x.need != "" && err != nil {
				t.Skipf("NOT TESTED: %v", err)
			}
			dir := mountTmpfs(t, "size=1m")
			must(t, os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600))
			m, err := MountOf(dir)
			must(t, err)
			mounts := []Mount{m}
			before, err := OpenIn(mounts)
			if err != nil || len(before.PIDs) > 0 {
				t.Fatalf("nobody has it open yet: %+v %v", before, err)
			}
			if before.Hidden > 0 {
				t.Logf("%d processes are hidden from this one", before.Hidden) // pid 1 in some sandboxes, even from root
			}
			args := x.args(dir)
			pid, release := hold(t, args[0], args[1:]...)
			for _, step := range []string{"mounted", "detached"} {
				use, err := OpenIn(mounts)
				if err != nil || !slices.Equal(use.PIDs, []int{pid}) || use.Hidden > before.Hidden {
					t.Errorf("%s: %+v %v, want %d", step, use, err, pid)
				}
				if !strings.HasPrefix(use.String(), fmt.Sprintf("pid %d (", pid)) {
					t.Error(use)
				}
				if step == "mounted" {
					must(t, unix.Unmount(dir, unix.MNT_DETACH))
				}
			}
			release()
			if use, err := OpenIn(mounts); err != nil || len(use.PIDs) > 0 {
				t.Errorf("it was released: %+v %v", use, err)
			}
		})
	}
}

func TestRestartRule(t *testing.T) {
	use := func(u Use, err error) func([]Mount) (Use, error) { return func([]Mount) (Use, error) { return u, err } }
	two := Record{BootID: "b1", Mounts: []Mount{{Path: "/a", ID: 1}, {Path: "/b", ID: 2}}}
	for _, x := range []struct {
		name   string
		record Record
		openIn func([]Mount) (Use, error)
		gone   bool
		why    string
		stay   int
	}{
		{"never mounted", Record{}, use(Use{PIDs: []int{1}}, nil), true, "no mount", 0},
		{"rebooted", Record{BootID: "b0", Mounts: two.Mounts}, use(Use{PIDs: []int{1}}, nil), true, "booted", 0},
		{"nobody", two, use(Use{}, nil), true, "nobody", 0},
		{"somebody", two, use(Use{PIDs: []int{1}}, nil), false, "pid 1 ", 2},
		{"hidden", two, use(Use{Hidden: 3}, nil), false, "3 processes", 2},
		{"unknown", two, use(Use{}, errors.New("no /proc")), false, "unknown (no /proc)", 2},
		{"somebody in one", two, func(m []Mount) (Use, error) {
			if m[0].ID == 2 {
				return Use{PIDs: []int{1}}, nil
			}
			return Use{}, nil
		}, false, "/b", 1},
	} {
		gone, why, stay := restartRule(x.record, "b1", x.openIn)
		if gone != x.gone || !strings.Contains(why, x.why) || len(stay) != x.stay {
			t.Errorf("%s: %v, %q, stay %v", x.name, gone, why, stay)
		}
	}
}

// TestRemember restarts a node again and again: mounts that stay in use are remembered over several runs.
func TestRemember(t *testing.T) {
	inUse := map[uint64]bool{}
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	c.bootID = "b1"
	c.openIn = func(m []Mount) (Use, error) {
		if inUse[m[0].ID] {
			return Use{PIDs: []int{1}}, nil
		}
		return Use{}, nil
	}
	run := func(want bool, boot string, use map[uint64]bool, mounts ...Mount) {
		t.Helper()
		c.bootID = boot
		inUse = use
		n, err := Open(c)
		must(t, err)
		if gone, why := n.FormerGone(); gone != want {
			t.Errorf("gone %v: %s", gone, why)
		}
		must(t, n.Remember(mounts))
		must(t, n.Close())
	}
	a, b, d := Mount{ID: 1, Path: "/a"}, Mount{ID: 2, Path: "/b"}, Mount{ID: 3, Path: "/d"}
	run(true, "b1", nil, a)
	run(false, "b1", map[uint64]bool{1: true}, b)
	run(false, "b1", map[uint64]bool{1: true}, d) // the run before the last is still in use
	run(false, "b1", map[uint64]bool{3: true})
	run(true, "b1", nil, a)
	run(true, "b2", map[uint64]bool{1: true}) // booted
}
