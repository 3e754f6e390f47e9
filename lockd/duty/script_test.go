package duty

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// TestScripts runs the golden scripts. Every directive begins with a time in seconds, and before it happens all that is due
// until then is shown and applied:
//
//	run at=S
//	lead|follow|hand-over       the tenure, and what a follower has to hand over
//	open HOST TTL               seconds
//	renew SESSION STAMP
//	lose|find                   what is proposed from now on is not applied, or is again
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		r := &script{d: New(), s: state.New()}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var at float64
			d.ScanArgs(t, "at", &at)
			r.out.Reset()
			r.until(t, int64(at*1e9))
			for _, line := range strings.Split(d.Input, "\n") {
				r.line(t, line)
				r.until(t, r.now)
			}
			return r.out.String()
		})
	})
}

type script struct {
	d    *Duty
	s    *state.State
	now  int64
	lost bool
	out  strings.Builder
}

// until does what is due up to a time.
func (r *script) until(t *testing.T, end int64) {
	for {
		at, ok := r.d.Next()
		if !ok || at > end {
			break
		}
		r.now = max(r.now, at)
		cmds, ended := r.d.Due(r.now, r.now)
		if len(cmds) == 0 {
			t.Fatalf("nothing is due at %d", at)
		}
		fmt.Fprintf(&r.out, "%.1f:", float64(r.now)/1e9)
		for _, c := range cmds {
			switch op := c.Op.(type) {
			case *statepb.Command_Renew:
				for _, x := range op.Renew.Renewals {
					fmt.Fprintf(&r.out, " renew %d@%d", x.Session, x.Stamp)
				}
			case *statepb.Command_EndSession:
				fmt.Fprintf(&r.out, " end %d renewed=%d", op.EndSession.Session, op.EndSession.RenewedIndex)
			}
		}
		for _, x := range ended {
			fmt.Fprintf(&r.out, " (%s after %v)", x.Host, x.TTL)
		}
		r.out.WriteByte('\n')
		if !r.lost {
			r.apply(t, cmds...)
		}
	}
	r.now = max(r.now, end)
}

func (r *script) apply(t *testing.T, cmds ...*statepb.Command) {
	changes, err := r.s.Apply(r.s.View().Index()+1, state.Encode(cmds))
	if err != nil {
		t.Fatal(err)
	}
	r.d.Applied(r.now, changes)
}

func (r *script) line(t *testing.T, line string) {
	verb, args, _ := strings.Cut(line, " ")
	switch verb {
	case "":
	case "lead":
		r.d.Lead(r.now, r.s.View())
	case "follow":
		r.d.Follow()
	case "hand-over":
		fmt.Fprintf(&r.out, "%v\n", r.d.HandOver())
	case "open":
		var host string
		var ttl float64
		fmt.Sscan(args, &host, &ttl)
		r.apply(t, &statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{
			Host: host, Nonce: 1, Ttl: int64(ttl * float64(time.Second)),
		}}})
	case "renew":
		var session uint64
		var stamp int64
		fmt.Sscan(args, &session, &stamp)
		r.d.Renew(r.now, session, stamp)
	case "lose", "find":
		r.lost = verb == "lose"
	default:
		t.Fatalf("line %q", line)
	}
}
