package cli

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite the golden help texts")

// TestHelp compares every command's --help with testdata/help.
func TestHelp(t *testing.T) {
	for _, cmd := range append([]*cobra.Command{New()}, New().Commands()...) {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		t.Run(cmd.Name(), func(t *testing.T) {
			root, out := New(), &bytes.Buffer{}
			root.SetOut(out)
			args := []string{"--help"}
			if cmd.HasParent() {
				args = []string{cmd.Name(), "--help"}
			}
			root.SetArgs(args)
			if err := root.Execute(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", "help", cmd.Name()+".txt")
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
	for _, cmd := range New().Commands() {
		if cmd.Hidden || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Short == "" || cmd.Annotations["exit"] == "" {
			t.Errorf("%s: no short text or no exit codes", cmd.Name())
		}
	}
}
