package lockd_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/lockdtest"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestFrom is what OnChange is told of who made a change: the call that waits for it, and nobody else's.
func TestFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := lockdtest.New()
		defer log.Close()
		hosts := make([]*lockd.Host, 2)
		made := make([]map[string]any, 2)
		for i := range hosts {
			m := log.Member()
			h := lockd.New(lockd.Config{Name: fmt.Sprint("host", i), Log: m, Now: func() int64 { return time.Now().UnixNano() }})
			m.Attach(h)
			made[i] = map[string]any{}
			h.OnChange(func(_ uint64, changes []state.Change, from []any) {
				for j, c := range changes {
					if c.Kind.Tree() && c.Session != 0 {
						made[i][c.Kind.String()+" "+c.Name] = nil
						if j < len(from) {
							made[i][c.Kind.String()+" "+c.Name] = from[j]
						}
					}
				}
			})
			if err := h.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			hosts[i] = h
		}
		create := func(c *lockd.Call, name string) {
			op := &statepb.Make{Parent: state.Root, Name: []byte(name), Perm: 0o644}
			if _, err := hosts[0].Do(c, &statepb.Command{Op: &statepb.Command_Make{Make: op}}); err != nil {
				t.Error(err)
			}
		}
		go create(&lockd.Call{From: "x"}, "a") // in one entry, or more
		go create(&lockd.Call{From: "y"}, "b")
		go create(&lockd.Call{}, "c")
		go create(nil, "d")
		synctest.Wait()
		rename := &statepb.Rename{Parent: state.Root, Name: []byte("a"), NewParent: state.Root, NewName: []byte("b")}
		if _, err := hosts[0].Rename(&lockd.Call{From: "z"}, rename); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := map[string]any{"made a": "x", "made b": "y", "made c": nil, "made d": nil, "removed b": "z", "moved a": "z"}
		if fmt.Sprint(made[0]) != fmt.Sprint(want) {
			t.Errorf("told %v, want %v", made[0], want)
		}
		for change, from := range made[1] {
			if from != nil {
				t.Errorf("the other host was told that %s is of %v", change, from)
			}
		}
		if len(made[1]) != len(want) {
			t.Errorf("the other host was told %v", made[1])
		}
	})
}
