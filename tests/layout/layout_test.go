// Package layout checks the shape of the tree: imports point down (DESIGN 2.2), the pure
// cores stay pure, and the top level holds what it should and nothing else.
package layout

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lockfs/lockfs/"

// mayImport lists, for each part of the tree (a prefix of the import path), the parts of this module
// that its packages may import beside their own. A part that is not listed may import nothing.
var mayImport = map[string][]string{
	"lockd/queue":   {},
	"lockd/process": {},
	"lockd/state":   {"lockd/queue"},
	"lockd/table":   {"lockd/state", "lockd/queue"},
	"lockd/duty":    {"lockd/state"},
	"lockd":         {"lockd/table", "lockd/state", "lockd/queue", "lockd/process"},
	"cluster":       {"lockd", "lockd/duty", "lockd/state"},
	"fs/thread":     {},
	"fs/conn":       {"fs/thread"},
	"fs/inotify":    {"fs/thread"},
	"fs/ioc":        {"lockd/queue"},
	"fs":            {"fs/conn", "fs/inotify", "fs/ioc", "lockd", "lockd/state", "lockd/table", "lockd/queue", "lockd/process"},
	"cmd":           {"fs", "fs/ioc", "cluster", "lockd", "lockd/state", "lockd/queue"},
}

// pure are the packages that decide and do no I/O; mustNot is what they may never import, noClock what of package time they
// may never call (durations are numbers).
var (
	pure    = []string{"lockd/queue", "lockd/state", "lockd/table", "lockd/duty"}
	mustNot = []string{"os", "net", "math/rand", "math/rand/v2", "sync", "syscall", "golang.org/x/sys/unix", "log", "log/slog"}
	noClock = regexp.MustCompile(`\btime\.(Now|Since|Until|After|AfterFunc|Sleep|Tick|NewTimer|NewTicker)\b`)
)

// ownOnly names the libraries that one part of the tree alone may import.
var ownOnly = map[string]string{
	"github.com/hanwen/go-fuse": "fs",
	"github.com/hashicorp/raft": "cluster",
	"github.com/hashicorp/serf": "cluster",
	"go.etcd.io/bbolt":          "cluster",
}

var topLevel = []string{".ci", ".git", ".gitignore", ".golangci.yml", "CHANGELOG.md", "LICENSE", "Makefile", "README.md",
	"cluster", "cmd", "examples", "fs", "go.mod", "go.sum", "lockd", "tests"}

func list(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func part(path string) string {
	path = strings.TrimPrefix(path, module)
	best := ""
	for p := range mayImport {
		if (path == p || strings.HasPrefix(path, p+"/")) && len(p) > len(best) {
			best = p
		}
	}
	return best
}

func under(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

func TestImportsPointDown(t *testing.T) {
	for _, line := range list(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		pkg, imports, _ := strings.Cut(line, " ")
		if under(pkg, module+"tests") || under(pkg, module+"examples") || strings.HasSuffix(pkg, "lockdtest") || strings.HasSuffix(pkg, "/sim") {
			continue
		}
		from := part(pkg)
		if from == "" {
			t.Errorf("%s is in no part of the tree that this test knows", pkg)
			continue
		}
		for _, imp := range strings.Fields(imports) {
			if strings.HasPrefix(imp, module) {
				if to := part(imp); to != from && !slices.Contains(mayImport[from], to) {
					t.Errorf("%s imports %s: %s may import %v", pkg, imp, from, mayImport[from])
				}
			}
			for lib, owner := range ownOnly {
				if under(imp, lib) && !under(pkg, module+owner) {
					t.Errorf("%s imports %s, which is for %s alone", pkg, imp, owner)
				}
			}
			if slices.Contains(pure, from) && slices.Contains(mustNot, imp) && !strings.HasSuffix(pkg, "pb") {
				t.Errorf("%s is pure and imports %s", pkg, imp)
			}
		}
	}
}

func TestNoClockInTheCores(t *testing.T) {
	for _, dir := range pure {
		files, err := filepath.Glob(filepath.Join("../..", dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if call := noClock.Find(text); call != nil {
				t.Errorf("%s calls %s", file, call)
			}
			if regexp.MustCompile(`(?m)^\s*go (func|\w+\()`).Match(text) {
				t.Errorf("%s starts a goroutine", file)
			}
		}
	}
}

func TestTopLevel(t *testing.T) {
	cmd := exec.Command("git", "ls-tree", "--name-only", "HEAD")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-tree: %v", err)
	}
	for _, name := range strings.Fields(string(out)) {
		if !slices.Contains(topLevel, name) {
			t.Errorf("%s does not belong to the top level", name)
		}
	}
}
