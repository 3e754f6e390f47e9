package cli

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// crashScript commits counted values, one file for each of four writers, and notes each after its fsync returned, with
// the token of a lock taken then. It ends when the daemon is gone. (A plain `echo > file` would not do: the shell closes by
// dup2(2), which tells nobody that the close failed.)
const crashScript = `
cd "$M" || exit 1
for w in 1 2 3 4; do
	(
		i=$(cat value$w 2>/dev/null || echo 0)
		while i=$((i + 1)); do
			echo $i | dd of=value$w conv=fsync status=none 2>/dev/null || exit
			echo $i >> "$NOTES/value$w"
			lockfs run -q value$w -c 'echo $LOCKFS_TOKEN >> "$NOTES/token'$w'"' 2>/dev/null || exit
		done
	) &
done
wait
`

// TestCrash kills the daemon at random moments under writers, starts a new one on the dead mount, and finds every value
// whose close had returned, and tokens that have only grown.
func TestCrash(t *testing.T) {
	needFUSE(t)
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	bin := publicBinary(t)
	notes := t.TempDir()
	d := &daemon{dir: t.TempDir(), mounts: filepath.Join(bin, "mounts"), path: bin + ":" + os.Getenv("PATH")}
	t.Cleanup(d.kill)
	env := append(os.Environ(), "PATH="+d.path, "M="+d.point("lock"), "NOTES="+notes)
	shell := func(script string) *exec.Cmd {
		sh := exec.Command("bash", "-c", script)
		sh.Env = env
		return sh
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range rounds {
		if err := d.start(nil); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		for w := 1; w <= 4; w++ {
			noted := last(t, filepath.Join(notes, "value"+strconv.Itoa(w)))
			out, err := shell("cat $M/value" + strconv.Itoa(w) + " | grep . || echo 0").Output() // a file may have been made and not written
			if err != nil {
				t.Fatal(err)
			}
			// The one after the last noted may have been committed without its close being answered.
			if have, err := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || have != noted && have != noted+1 {
				t.Errorf("round %d: value%d is %q, %d was committed", round, w, out, noted)
			}
			grows(t, filepath.Join(notes, "token"+strconv.Itoa(w)))
		}
		writers := shell(crashScript)
		if err := writers.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100*time.Millisecond + time.Duration(random.Int64N(int64(400*time.Millisecond)))) // the moment of the crash
		d.cmd.Process.Kill()
		d.cmd.Wait()
		if err := writers.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if last(t, filepath.Join(notes, "value1")) == 0 {
		t.Error("nothing was ever committed")
	}
}

// last returns the last number of a file, 0 if there is none.
func last(t *testing.T, file string) int {
	t.Helper()
	n := 0
	for _, n = range numbers(t, file) {
	}
	return n
}

func numbers(t *testing.T, file string) (ns []int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(text)) {
		n, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		ns = append(ns, n)
	}
	return ns
}

// grows checks that the numbers of a file grow strictly.
func grows(t *testing.T, file string) {
	t.Helper()
	before := 0
	for _, n := range numbers(t, file) {
		if n <= before {
			t.Errorf("%s: %d after %d", filepath.Base(file), n, before)
		}
		before = n
	}
}
