package lockd

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockd/process"
)

// machine is the processes of this machine.
type machine struct{}

func (machine) Look(tid uint32) (process.Info, error) { return process.Look(tid) }
func (machine) Comm(tid uint32) string                { return process.Comm(tid) }
func (machine) Owner(tid uint32) Owner                { return process.OwnerOf(tid) }

func (machine) CanLetGo(d []process.Descriptor, waiting func(tid uint32) bool) bool {
	return process.CanLetGo(d, waiting)
}

// bootTime returns CLOCK_BOOTTIME: unlike the clock of package time it goes on while the machine is suspended.
func bootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("lockd: CLOCK_BOOTTIME: " + err.Error()) // Linux has it since 2.6.39
	}
	return ts.Nano()
}
