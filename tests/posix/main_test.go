// Package posix tests the view posix with the lockfs program: what programs that bring their own lock protocol rely on.
package posix

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

func TestMain(m *testing.M) {
	harness.MainBuilt(m, map[string]harness.Program{"actor": actor.Program, "differ": differ})
}

// TestPlays runs each play on a native file system and then on a mount: what is wanted is what the kernel does.
func TestPlays(t *testing.T) {
	plays, err := filepath.Glob("testdata/*.play")
	if err != nil || len(plays) == 0 {
		t.Fatal("no plays", err)
	}
	d := harness.Start(t, "posix")
	for _, play := range plays {
		name := strings.TrimSuffix(filepath.Base(play), ".play")
		t.Run(name+"/native", func(t *testing.T) { actor.Play(t, play, t.TempDir()) })
		t.Run(name+"/lockfs", func(t *testing.T) {
			dir := filepath.Join(d.Posix, name)
			d.Run(t, "mkdir "+dir, 0)
			actor.Play(t, play, dir)
		})
	}
	if strings.Contains(d.Log(), "panic") {
		t.Error(d.Log())
	}
}

// TestDiffer makes random calls on a native file system and on a mount.
func TestDiffer(t *testing.T) {
	d := harness.Start(t, "posix")
	seeds := []uint64{1, 2, 3, 4, rand.Uint64(), rand.Uint64()}
	for _, seed := range seeds {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			r := d.Run(t, fmt.Sprintf("mkdir $P/%[1]d && $C differ %[1]d 4000 %[2]s $P/%[1]d", seed, t.TempDir()), time.Minute)
			if r.Code != 0 {
				t.Errorf("exit code %d\n%s", r.Code, r.Out)
			}
		})
	}
}
