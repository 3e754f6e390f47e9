package lockd

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bootTime returns CLOCK_BOOTTIME in ns: unlike the clock of package time it goes on while the machine is suspended.
//
// Reading it is a system call to a Go program, and every request reads it. So it is computed from the monotonic clock, which is
// read without one, plus the time spent suspended. Suspension also shows in the clock of day, which runs ahead of the
// monotonic one by it: only when the distance of these two has changed is CLOCK_BOOTTIME itself read again. (A
// step or slewing of the clock of day costs a reading too many, no more.)
func bootTime() int64 {
	t := time.Now()
	mono := int64(t.Sub(clockStart))
	ahead := t.UnixNano() - mono
	o := clockOffsets.Load()
	if o == nil || ahead-o.wall > clockDrift || o.wall-ahead > clockDrift {
		o = &offsets{wall: ahead, boot: readBootTime() - mono}
		clockOffsets.Store(o)
	}
	return mono + o.boot
}

// clockDrift is by how much the clocks may part before CLOCK_BOOTTIME is read: a shorter suspension goes unnoticed.
const clockDrift = int64(time.Millisecond)

// offsets are what the clock of day and CLOCK_BOOTTIME are ahead of the monotonic clock since clockStart.
type offsets struct{ wall, boot int64 }

var (
	clockStart   = time.Now()
	clockOffsets atomic.Pointer[offsets]
)

func readBootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("lockd: CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return ts.Nano()
}
