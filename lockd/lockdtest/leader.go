package lockdtest

import (
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Lead makes the log end sessions that are not renewed in time, as a leader does: a session is timed from applying its
// opening or renewal, by its own time to live, and its end names the last renewal, so that a later one saves it. It runs
// until Close.
func (l *Log) Lead() {
	l.work.Add(1)
	go func() {
		defer l.work.Done()
		tick := time.NewTicker(state.MinTTL / 20)
		defer tick.Stop()
		type seen struct {
			renewed uint64
			at      time.Time
		}
		sessions := make(map[uint64]seen)
		for {
			select {
			case <-l.stopped:
				return
			case <-tick.C:
			}
			now := time.Now()
			for s := range l.View().Sessions() {
				last, ok := sessions[s.ID]
				if !ok || last.renewed != s.Renewed {
					sessions[s.ID] = seen{s.Renewed, now}
					continue
				}
				if now.Sub(last.at) >= s.TTL {
					l.expire(s)
				}
			}
		}
	}()
}

// expire ends a session unless it was renewed meanwhile.
func (l *Log) expire(s state.Session) {
	l.Command(&statepb.Command{TimeUnixNs: time.Now().UnixNano(), Op: &statepb.Command_EndSession{EndSession: &statepb.EndSession{
		Session: s.ID, RenewedIndex: s.Renewed, Reason: statepb.EndReason_EXPIRED,
	}}})
}
