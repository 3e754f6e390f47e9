package load

import (
	"fmt"
	"strings"
)

// Workload is one row of the table of workloads.
type Workload struct {
	Name    string
	What    string
	Clients []int // how many, unless told otherwise
	Fixed   bool  // Clients cannot be told otherwise
	Beside  bool  // can be measured on a file system that has no locks by open
	Files   bool  // calls of a file system: other services have none such
	Usual   bool  // measured when none is named

	prepare func(*turn) (act, error)
}

// Workloads is the table. W1 to W8 can be measured with every service, the others are calls of a file system.
var Workloads = []Workload{
	{Name: "W1", What: "one client takes and releases one lock", Clients: []int{1}, Beside: true, Usual: true, prepare: preparePairs},
	{Name: "W2", What: "clients each take and release a lock of their own", Clients: []int{16, 64}, Beside: true, Usual: true, prepare: preparePairs},
	{Name: "W3", What: "clients on all hosts want one lock", Clients: []int{16}, Usual: true, prepare: prepareContended},
	{Name: "W4", What: "many locks are held at once (--locks)", Clients: []int{64}, prepare: prepareHeld},
	{Name: "W5", What: "the leader is taken down (--outage): a new lock, and warm locks meanwhile", Clients: []int{4}, prepare: prepareOutage},
	{Name: "W6", What: "clients take and release locks that nobody ever used", Clients: []int{1, 64}, Beside: true, Usual: true, prepare: prepareFresh},
	{Name: "W7", What: "clients read one value that changes ten times a second", Clients: []int{64}, Usual: true, prepare: prepareReaders},
	{Name: "W8", What: "a lock goes back and forth between two hosts", Clients: []int{2}, Fixed: true, Usual: true, prepare: prepareContended},
	{Name: "flock", What: "flock(LOCK_EX) and flock(LOCK_UN) of a lock last used here", Clients: []int{1, 8}, Beside: true, Files: true, Usual: true, prepare: prepareFlock},
	{Name: "read", What: "pread of a value of 64 bytes", Clients: []int{1, 8}, Beside: true, Files: true, Usual: true, prepare: prepareRead},
	{Name: "cat", What: "open(O_RDONLY), read and close of an unchanged value", Clients: []int{1, 8}, Beside: true, Files: true, Usual: true, prepare: prepareCat},
	{Name: "stat", What: "stat of a lock", Clients: []int{1, 8}, Beside: true, Files: true, Usual: true, prepare: prepareStat},
}

func find(name string) (Workload, bool) {
	for _, w := range Workloads {
		if strings.EqualFold(w.Name, name) {
			return w, true
		}
	}
	return Workload{}, false
}

// Find returns the workload of a name; upper and lower case are the same.
func Find(name string) (Workload, bool) { return find(name) }

// own is the name of a thing that one worker alone uses in this round.
func (t *turn) own(worker int) string { return fmt.Sprintf("%s%d", t.Name, worker) }

// neighbour is the worker whose lock this one tries to have in vain; its own, from a second client, if it is alone.
func (t *turn) neighbour() int { return (t.Worker + 1) % t.Workers }

// refused checks that a lock which is held is not granted to a new client on the next host.
func (t *turn) refused(name string) error {
	c, err := t.dial(t.round.Beside)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Fresh(name) // the name is in use: this is the way that leaves nothing open
	if err != nil {
		return err
	}
	got, err := l.Try()
	if err != nil {
		return fmt.Errorf("try a lock that is held: %w", err)
	}
	if got {
		l.Release()
		return fmt.Errorf("%s: %w", name, errGranted)
	}
	return nil
}
