package main

import (
	"path/filepath"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

// service is what is measured: a lock service that runs on this machine.
type service struct {
	Name string
	What string // for the reader of the table
	Kind kind

	// start starts the servers in a directory and returns when they answer. It is called on the main goroutine.
	start func(s *service, dir string) error
	// dial makes the clients; nil: the clients are processes that use files.
	dial load.Dial
	// not tells what cannot be measured here, by workload, and why.
	not map[string]string
	// leader finds the server that leads: what takes it down, and the addresses of the others. nil: there is none.
	leader func(s *service) (outage func() error, others []string, err error)
	// recover starts again what outage took down, and returns when it answers.
	recover func(s *service) error
	// clear takes away what the processes leave behind.
	clear func(s *service)

	addresses []string
	servers   []*server
}

// kind is what a service promises.
type kind string

const (
	ours       kind = "lockfs"
	replicated kind = "replicated" // three nodes, fsync
	durable    kind = "durable"    // one node, or several that know nothing of each other, fsync
	volatile   kind = "volatile"   // one node, memory
	local      kind = "local"      // one kernel
)

func (s *service) stop() {
	for _, p := range s.servers {
		p.stop()
	}
	if s.clear != nil {
		s.clear(s)
	}
}

// memory is what the servers have resident, in bytes.
func (s *service) memory() (sum int64, err error) {
	for _, p := range s.servers {
		n, err := p.resident()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// services are all that there are. The programs lockfs and loopback are in bin.
func services(bin string) []*service {
	return []*service{
		lockfsService(filepath.Join(bin, "lockfs")),
		etcdMutex(), etcdTransaction(), zookeeper(), consul(),
		redlock(), redisDurable(), redisVolatile(),
		loopback(filepath.Join(bin, "loopback")), tmpfs(),
	}
}

// impatient is at the end of the address of a client of W5, which gives up a call that is not answered soon, and asks
// again: what etcd hands on to a leader that is dead is answered after seven seconds, and ZooKeeper's recipe can wait for
// itself. W5 is about the service, not about that.
const impatient = "#impatient"

func hasty(addresses []string) []string {
	for i := range addresses {
		addresses[i] += impatient
	}
	return addresses
}
