// Package dlmfs tests the view dlmfs with the lockfs program: a program of libo2dlm, and the contract of the kernel's
// dlmfs call by call.
package dlmfs

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

func TestMain(m *testing.M) {
	harness.MainBuilt(m, map[string]harness.Program{"actor": actor.Program})
}

func TestPlays(t *testing.T) {
	plays, err := filepath.Glob("testdata/*.play")
	if err != nil || len(plays) == 0 {
		t.Fatal("no plays", err)
	}
	for _, play := range plays {
		t.Run(strings.TrimSuffix(filepath.Base(play), ".play"), func(t *testing.T) {
			d := harness.Start(t, "dlmfs")
			actor.Play(t, play, d.Dlmfs)
			if strings.Contains(d.Log(), "panic") {
				t.Error(d.Log())
			}
		})
	}
}

// TestProgram runs a program that was written for the kernel's dlmfs, with a preload that answers the one question it
// puts to the kernel about the file system's type.
func TestProgram(t *testing.T) {
	d := harness.Start(t, "dlmfs", "lock")
	dir := t.TempDir()
	program, preload := filepath.Join(dir, "o2dlm"), filepath.Join(dir, "preload.so")
	for _, args := range [][]string{
		{"-o", program, "o2dlm.c", "-lo2dlm", "-lcom_err", "-ldl"},
		{"-shared", "-fPIC", "-o", preload, "preload.c", "-ldl"},
	} {
		if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
			t.Skipf("NOT TESTED: needs gcc, ocfs2-tools-dev and comerr-dev: %v\n%s", err, out)
		}
	}
	for range 5 {
		r := d.Run(t, "LD_PRELOAD="+preload+" "+program+" $D/", 0)
		if r.Code != 0 {
			t.Fatalf("exit code %d: %s", r.Code, r.Out)
		}
	}
	if r := d.Run(t, "ls $M", 0); r.Out != "" {
		t.Errorf("it left %s", r.Out)
	}
}
