package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden help texts")

// TestHelp compares every command's --help with testdata/help.
func TestHelp(t *testing.T) {
	for cmd := range all(New()) {
		words := strings.Fields(cmd.CommandPath())
		if cmd.Name() == "help" || slices.Contains(words, "completion") {
			continue
		}
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			root, out := New(), &bytes.Buffer{}
			root.SetOut(out)
			root.SetArgs(append(words[1:], "--help"))
			if err := root.Execute(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "help", strings.Join(words[min(1, len(words)-1):], "-")+".txt")
			if *update {
				if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), want) {
				t.Errorf("the help differs from %s (go test ./cmd/cli -update rewrites it):\n%s", file, out)
			}
		})
	}
}

// TestEveryCommandIsDocumented: a short text, exit codes, and no flag without a word about it.
func TestEveryCommandIsDocumented(t *testing.T) {
	for cmd := range all(New()) {
		if cmd.Hidden || !cmd.HasParent() || cmd.Name() == "help" || strings.Contains(cmd.CommandPath(), " completion") {
			continue
		}
		if cmd.Short == "" || cmd.Annotations["exit"] == "" {
			t.Errorf("%s: no short text or no exit codes", cmd.CommandPath())
		}
	}
}
