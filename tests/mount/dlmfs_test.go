package mount

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lockfs/lockfs/tests/harness"
)

// The dlmfs view: a program of libo2dlm, and the contract of the kernel's dlmfs by hand.

func TestDlmfsProgram(t *testing.T) {
	dir := t.TempDir()
	program, preload := filepath.Join(dir, "o2dlm"), filepath.Join(dir, "preload.so")
	if out, err := exec.Command("cc", "-o", program, "../dlmfs/o2dlm.c", "-lo2dlm", "-lcom_err").CombinedOutput(); err != nil {
		t.Skipf("needs a C compiler and libo2dlm (ocfs2-tools-dev): %v\n%s", err, out)
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-o", preload, "../dlmfs/preload.c", "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := harness.Start(t, "dlmfs")
	r := d.Run(t, "LD_PRELOAD="+preload+" "+program+" $D/", 0)
	if r.Code != 0 {
		t.Errorf("exit code %d: %s", r.Code, r.Out)
	}
}

func TestDlmfsContract(t *testing.T) {
	d := harness.Start(t, "dlmfs", "lock")
	a, b := d.Shell(t), d.Shell(t)
	const etxtbsy, nonblock = 26, 0o4000
	a.Exits(1, "touch $D/file")
	a.OK("mkdir $D/dom; touch $D/dom/a")
	a.Exits(1, "mkdir $D/dom/sub")
	a.Exits(1, "touch $D/dom/12345678901234567890123456789012")
	a.Exits(1, "touch '$D/dom/$x'")
	a.OK("test $(stat -c %s $D/dom/a) = 64")

	a.OK("exec 9<>$D/dom/a") // EX
	b.Exits(etxtbsy, "$C open $D/dom/a 04000")
	b.Exits(etxtbsy, "$C open $D/dom/a 04002")
	a.OK("exec 9>&-; exec 9<$D/dom/a") // PR
	b.OK("$C open $D/dom/a 04000")
	b.Exits(etxtbsy, "$C open $D/dom/a 04002")
	a.OK("exec 9<&-")

	a.OK("printf value > $D/dom/a")
	a.OK("test $(cat $D/dom/a | wc -c) = 64; test \"$(tr -d '\\0' < $D/dom/a)\" = value")
	if out := a.OK("cat $M/dom/a | tr -d '\\0'"); out != "value" {
		t.Errorf("view lock reads %q", out)
	}
	if out := a.Exits(1, "head -c 100 /dev/zero | tr '\\0' x | dd of=$D/dom/a bs=100"); !strings.Contains(out, "No space left") {
		t.Errorf("dd says %s", out)
	}
	a.OK("test $(tr -d '\\0' < $D/dom/a | wc -c) = 64") // what fitted stands
	if out := b.Exits(1, "exec 8<$D/dom/a; rm $D/dom/a"); !strings.Contains(out, "busy") {
		t.Errorf("rm says %s", out)
	}
	b.OK("exec 8<&-; rm $D/dom/a; rmdir $D/dom")
}

func TestDlmfsInvalidValue(t *testing.T) {
	d := harness.Start(t, "dlmfs")
	a := d.Shell(t)
	a.OK("mkdir $D/dom; printf value > $D/dom/a")
	a.OK("bash -c 'exec 9<>$D/dom/a; kill -9 $$'; test $(cat $D/dom/a | wc -c) = 0" /* wc alone takes the size from stat */)
	a.OK("printf again > $D/dom/a; test $(cat $D/dom/a | wc -c) = 64")
}
