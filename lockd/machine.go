package lockd

import "github.com/lockfs/lockfs/lockd/process"

// machine is the processes of this machine.
type machine struct{}

func (machine) Look(tid uint32) (process.Info, error) { return process.Look(tid) }
func (machine) Tgid(tid uint32) uint32                { return process.Tgid(tid) }
func (machine) Comm(tid uint32) string                { return process.Comm(tid) }
func (machine) Cmdline(pid uint32) string             { return process.Cmdline(pid) }
func (machine) Owner(tid uint32) Owner                { return process.OwnerOf(tid) }

func (machine) CanLetGo(d []process.Descriptor, waiting func(tid uint32) bool) bool {
	return process.CanLetGo(d, waiting)
}
