package daemon

import (
	"os"
	"runtime/metrics"
	"strconv"
	"time"

	"github.com/lockfs/lockfs/fs"
)

// logPlaces says where a host's copy of the log is.
var logPlaces = map[bool]string{true: "disk", false: "memory"}

// facts are the lines of .lockfs/status on the log and this process. heap is what the last collection, the gc-th, found
// alive.
func (d *daemon) facts() []fs.Fact {
	s := d.node.Status()
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(heap)
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return []fs.Fact{
		{Key: "cluster", Value: s.Cluster}, {Key: "role", Value: s.Role}, {Key: "address", Value: s.Address},
		{Key: "certificate-ends", Value: d.certificateEnds()},
		{Key: "term", Value: number(s.Term)}, {Key: "voters", Value: strconv.Itoa(s.Voters)}, {Key: "nonvoters", Value: strconv.Itoa(s.Others)},
		{Key: "log", Value: logPlaces[s.Durable]},
		{Key: "log-first", Value: number(s.First)}, {Key: "log-last", Value: number(s.Last)}, {Key: "snapshot", Value: number(s.Snapshot)},
		{Key: "log-bytes", Value: strconv.FormatInt(s.LogBytes, 10)}, {Key: "disk-left", Value: strconv.FormatInt(s.Free, 10)},
		{Key: "disk-error", Value: s.DiskError},
		{Key: "version", Value: Version}, {Key: "pid", Value: strconv.Itoa(os.Getpid())},
		{Key: "heap", Value: number(heap[0].Value.Uint64())}, {Key: "gc", Value: number(heap[1].Value.Uint64())},
	}
}

// certificateEnds is when this host's certificate does.
func (d *daemon) certificateEnds() string {
	if d.expires == nil {
		return ""
	}
	return d.expires().UTC().Format(time.RFC3339)
}

// hosts are the files of .lockfs/hosts.
func (d *daemon) hosts() []fs.HostFacts {
	var list []fs.HostFacts
	for _, h := range d.node.Hosts() {
		name := h.Name
		if name == "" {
			name = h.ID // it has yet to say
		}
		session := ""
		if h.Session != 0 {
			session = strconv.FormatUint(h.Session, 10)
		}
		list = append(list, fs.HostFacts{Name: name, Facts: []fs.Fact{
			{Key: "id", Value: h.ID}, {Key: "role", Value: h.Role}, {Key: "state", Value: string(h.State)}, {Key: "address", Value: h.Address},
			{Key: "session", Value: session}, {Key: "renewed", Value: strconv.FormatUint(h.Renewed, 10)},
			{Key: "log", Value: logPlaces[h.Durable]}, {Key: "version", Value: h.Version},
		}})
	}
	return list
}
