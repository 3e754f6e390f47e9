// Package durability tests what the lockfs program keeps and what it lets go of when it ends: by kill -9, by SIGTERM, with a
// damaged data directory, on a full disk.
package durability

import (
	"testing"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

func TestMain(m *testing.M) {
	harness.OwnMounts()
	harness.MainBuilt(m, map[string]harness.Program{"actor": actor.Program, "load": load})
}
