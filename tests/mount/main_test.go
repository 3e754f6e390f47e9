// Package mount tests lockfs on real mounts: what issue and README promise to a person at a shell.
package mount

import (
	"testing"

	"github.com/lockfs/lockfs/tests/harness"
)

func TestMain(m *testing.M) { harness.Main(m, programs) }
