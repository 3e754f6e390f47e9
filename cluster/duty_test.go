package cluster

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// dutyTest is a duty whose proposals are applied at once to a state, and a line for each of them with its time.
type dutyTest struct {
	*duty
	start time.Time
	state *state.State
	index uint64
	lines []string
	lost  atomic.Bool // proposals go nowhere
}

func newDutyTest() *dutyTest {
	d := &dutyTest{start: time.Now(), state: state.New()}
	d.duty = newDuty(slog.New(slog.DiscardHandler), func(cmds []*statepb.Command) {
		for _, c := range cmds {
			switch op := c.Op.(type) {
			case *statepb.Command_Renew:
				var of []string
				for _, r := range op.Renew.Renewals {
					of = append(of, fmt.Sprintf("%d@%d", r.Session, r.Stamp))
				}
				d.line("renew %s", strings.Join(of, " "))
			case *statepb.Command_EndSession:
				d.line("end %d renewed %d", op.EndSession.Session, op.EndSession.RenewedIndex)
			}
		}
		if !d.lost.Load() {
			go d.apply(cmds...)
		}
	})
	return d
}

// open opens a session of ten seconds.
func (d *dutyTest) open(host string, nonce uint64) {
	d.apply(&statepb.Command{Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{Host: host, Nonce: nonce}}})
}

func (d *dutyTest) line(f string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf("%.1f ", time.Since(d.start).Seconds())+fmt.Sprintf(f, args...))
}

func (d *dutyTest) apply(cmds ...*statepb.Command) {
	d.index++
	changes, err := d.state.Apply(d.index, state.Encode(cmds))
	if err != nil {
		panic(err)
	}
	d.watch(changes)
}

func (d *dutyTest) want(t *testing.T, lines ...string) {
	t.Helper()
	synctest.Wait()
	if !slices.Equal(d.lines, lines) {
		t.Errorf("proposed:\n%s\nwant:\n%s", strings.Join(d.lines, "\n"), strings.Join(lines, "\n"))
	}
	d.lines = nil
}

func TestRenewalsAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDutyTest()
		d.open("a", 1)
		d.open("b", 2)
		d.lead(true, d.state.View)
		time.Sleep(3 * time.Second)
		d.renew(1, 100) // waits a hundredth of the TTL for others
		d.renew(2, 200) // together
		time.Sleep(500 * time.Millisecond)
		d.renew(1, 101) // a tenth of the TTL after the last
		d.renew(1, 102) // the newest counts
		time.Sleep(5 * time.Second)
		d.want(t, "3.1 renew 1@100 2@200", "4.1 renew 1@102")
		// Without the lead they are kept.
		d.lead(false, nil)
		d.renew(2, 201)
		time.Sleep(5 * time.Second)
		d.want(t)
		d.lead(true, d.state.View)
		d.want(t, "13.5 renew 2@201")
		d.stop()
	})
}

func TestSessionsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDutyTest()
		d.open("a", 1) // session 1
		d.open("b", 2) // session 2
		time.Sleep(8 * time.Second)
		d.lead(true, d.state.View) // afresh from here: until 18
		time.Sleep(6 * time.Second)
		d.renew(2, 7) // applied at 14.1, as entry 3: until 24.1
		time.Sleep(5 * time.Second)
		d.want(t, "14.1 renew 2@7", "18.0 end 1 renewed 1")
		d.open("c", 3) // at 19, as entry 5
		d.lost.Store(true)
		time.Sleep(8 * time.Second)
		d.want(t, "24.1 end 2 renewed 3", "25.1 end 2 renewed 3", "26.1 end 2 renewed 3")
		d.lead(false, nil)
		time.Sleep(time.Minute)
		d.want(t)
		d.lost.Store(false)
		d.lead(true, d.state.View)
		time.Sleep(time.Minute)
		d.want(t, "97.0 end 2 renewed 3", "97.0 end 5 renewed 5")
		d.stop()
	})
}
