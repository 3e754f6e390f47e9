package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestReadme runs the console blocks of README.md's tour in one shell, on a mount of its own in place of /locks, and
// compares what they print. A … in the README stands for anything.
func TestReadme(t *testing.T) {
	needFUSE(t)
	blocks := consoleBlocks(t, "../../README.md")
	bin := publicBinary(t)
	d := &daemon{dir: t.TempDir(), mounts: filepath.Join(bin, "mounts"), path: bin + ":" + os.Getenv("PATH")}
	t.Cleanup(d.kill)
	if err := d.start(nil); err != nil {
		t.Fatal(err)
	}
	var script, want strings.Builder
	for _, b := range blocks {
		if strings.HasPrefix(b[0], "$ lockfs mount") {
			continue
		}
		for _, line := range b {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				script.WriteString(command + "\n")
			} else {
				want.WriteString(line + "\n")
			}
		}
	}
	sh := exec.Command("bash", "-c", strings.ReplaceAll(script.String(), "/locks", d.point("lock")))
	sh.Env = append(os.Environ(), "PATH="+d.path)
	var out bytes.Buffer
	sh.Stdout, sh.Stderr = &out, &out
	timer := time.AfterFunc(limit, d.kill)
	defer timer.Stop()
	if err := sh.Run(); err != nil {
		t.Errorf("the tour ends: %v", err)
	}
	got := strings.ReplaceAll(out.String(), d.point("lock"), "/locks")
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want.String()), "…", ".*")
	if !regexp.MustCompile("^" + pattern + "$").MatchString(got) {
		t.Errorf("the tour prints\n%s\nthe README says\n%s", got, want.String())
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}

// consoleBlocks returns the lines of a file's ```console blocks.
func consoleBlocks(t *testing.T, file string) (blocks [][]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var block []string
	in := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "```console":
			in, block = true, nil
		case in && line == "```":
			in = false
			blocks = append(blocks, block)
		case in:
			block = append(block, line)
		}
	}
	if len(blocks) < 3 {
		t.Fatalf("%s: %d console blocks", file, len(blocks))
	}
	return blocks
}
