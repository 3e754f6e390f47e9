package mount

import (
	"fmt"
	"testing"

	"github.com/lockfs/lockfs/tests/harness"
)

// TestUnchangedIsCached counts what reaches the daemon when the same is looked at again and again.
func TestUnchangedIsCached(t *testing.T) {
	d := harness.Start(t, "lock", "posix")
	s := d.Shell(t)
	s.OK("mkdir $M/d; for i in 1 2 3; do echo value$i > $M/d/f$i; done; sleep 1.2; cat $M/d/f1 $P/d/f1; ls $M/d $P/d")
	const n = 1000
	for _, test := range []struct {
		path, what string
		each       int // requests that each may take
	}{
		{"$M/d/f1", "stat", 0},
		{"$M/d/f1", "read", 0},
		{"$M/d/f1", "cat", 3}, // OPEN, FLUSH, RELEASE
		{"$M/d", "list", 0},
		{"$M/d", "stat", 0},
		{"$M/d/.lock", "stat", 0},
		{"$P/d/f1", "read", 0},
		{"$P/d", "list", 0},
	} {
		before := d.Reads()
		s.OK(fmt.Sprintf("$C again %s %d %s", test.path, n, test.what))
		if took := d.Reads() - before; took > test.each*n+50 {
			t.Errorf("%s of %s: %d requests for %d times, want at most %d each", test.what, test.path, took, n, test.each)
		}
	}
}
