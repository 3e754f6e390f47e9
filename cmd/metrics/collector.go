package metrics

import (
	"cmp"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"github.com/lockfs/lockfs/cluster"
	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockd"
)

// Sources are what is asked. Host and Node are asked only once they have started.
type Sources struct {
	Version string
	Host    *lockd.Host
	Node    *cluster.Node
	Mounts  []*fs.Mounted
	Expires func() time.Time // when the host's certificate does; nil: it has none
}

// Collector gives the figures of a daemon. Sources returns what there is to ask at the moment, nil: nothing yet.
type Collector struct{ sources func() *Sources }

// NewRegistry returns a registry with the figures of a daemon, of the Go runtime and of the process.
func NewRegistry(sources func() *Sources) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(Collector{sources}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Write writes what a registry has as text.
func Write(w io.Writer, from prometheus.Gatherer) error {
	families, err := from.Gather()
	if err != nil {
		return err
	}
	to := expfmt.NewEncoder(w, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := to.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

var _ prometheus.Collector = Collector{}

// Describe tells what figures there may be.
func (Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range described {
		to <- d
	}
}

// Collect gathers the figures.
func (c Collector) Collect(to chan<- prometheus.Metric) {
	s := c.sources()
	if s == nil {
		return
	}
	g := gathering{to}
	g.put(build, 1, s.Version, runtime.Version(), revision)
	g.locks(s.Host.Status())
	g.state(s)
	g.log(s)
	for _, m := range s.Mounts {
		at, view := strings.ToValidUTF8(m.MountPoint(), "\uFFFD"), m.FS().View().String()
		for op, n := range m.Requests() {
			g.put(fuseRequests, float64(n), at, view, op)
		}
		g.put(fuseWaiting, float64(m.Parked()), at, view)
	}
}

// revision is the commit that the program was built from, if the build knew it.
var revision = func() string {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}()

// gathering hands figures over.
type gathering struct{ to chan<- prometheus.Metric }

func (g gathering) put(f figure, value float64, labels ...string) {
	g.to <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

func (g gathering) count(f figure, n uint64, labels ...string) { g.put(f, float64(n), labels...) }

func (g gathering) is(f figure, yes bool, labels ...string) {
	value := 0.0
	if yes {
		value = 1
	}
	g.put(f, value, labels...)
}

// locks are the figures of this host's locks, session and proposals.
func (g gathering) locks(s lockd.Status) {
	c := s.Counters
	g.put(locksHeld, float64(s.Locks-s.Waiting))
	g.put(locksWaiting, float64(s.Waiting))
	g.put(locksCached, float64(s.Cached))
	g.count(grants, c.Warm, "cached")
	g.count(grants, c.Grants-c.Warm, "cold")
	g.count(waits, c.Waits)
	for _, r := range []struct {
		reason string
		n      uint64
	}{{"busy", c.Busy}, {"timeout", c.Timeouts}, {"interrupted", c.Interrupts}} {
		g.count(refused, r.n, r.reason)
	}
	for _, x := range []struct {
		f figure
		n uint64
	}{
		{blocking, c.Blocking}, {recalls, c.Recalls}, {locksLost, c.LocksLost}, {deadlocks, s.Deadlocks}, {rangeRequests, c.RangeLocks},
		{valueCommits, c.Commits}, {reports, c.Reports}, {notices, c.Notices}, {subscribers, uint64(c.Subscribers)}, {sessionsLost, s.Losses},
		{commands, c.Commands}, {entries, c.Entries}, {failed, c.Failed}, {pending, uint64(s.Pending)},
	} {
		g.count(x.f, x.n)
	}
	for _, state := range lockd.States {
		g.is(sessionState, s.State() == state, state)
	}
	g.put(leaseLeft, s.Lease.Seconds())
	g.is(leaderKnown, s.Leader != "")
	g.histogram(commit, c.Commit)
}

// histogram hands a distribution over, as Prometheus has them: each bucket with all below it.
func (g gathering) histogram(desc *prometheus.Desc, l lockd.Latency) {
	buckets, sum := make(map[float64]uint64, len(lockd.LatencyBounds)), uint64(0)
	for i, bound := range lockd.LatencyBounds {
		sum += l.Counts[i]
		buckets[bound.Seconds()] = sum
	}
	sum += l.Counts[len(lockd.LatencyBounds)]
	g.to <- prometheus.MustNewConstHistogram(desc, sum, l.Sum.Seconds(), buckets)
}

// state are the figures of the replicated state.
func (g gathering) state(s *Sources) {
	v := s.Host.View()
	nodes, bytes := v.Counts()
	limits := v.Limits()
	g.count(stateNodes, nodes)
	g.count(stateNodesMax, limits.Nodes)
	g.count(stateBytes, bytes)
	g.count(stateBytesMax, limits.Bytes)
	sessions := 0
	type sums struct{ locks, ranges, reports uint64 }
	of := map[string]sums{} // a host may have a session that has yet to end
	for x := range v.Sessions() {
		sessions++
		h := of[x.Host]
		of[x.Host] = sums{h.locks + x.Locks, h.ranges + x.Ranges, h.reports + x.Reports}
	}
	g.put(stateSessions, float64(sessions))
	for name, h := range of {
		g.count(stateHostLocks, h.locks, name)
		g.count(stateRanges, h.ranges, name)
		g.count(stateReports, h.reports, name)
	}
}

// log are the figures of the log and the cluster.
func (g gathering) log(s *Sources) {
	n := s.Node.Status()
	g.put(host, 1, n.Name, n.Cluster, n.Address)
	g.is(leader, n.Role == "leader")
	g.put(voter, float64(n.Voters))
	for _, x := range []struct {
		f figure
		n uint64
	}{
		{term, n.Term}, {committed, n.Committed}, {applied, n.Applied}, {logFirst, n.First}, {logLast, n.Last}, {snapshotIndex, n.Snapshot},
		{snapshots, n.Snapshots}, {appended, n.Appended}, {forwarded, n.Forwarded}, {received, n.Received},
	} {
		g.count(x.f, x.n)
	}
	g.put(logBytes, float64(n.LogBytes))
	g.put(snapshotBytes, float64(n.SnapBytes))
	g.put(diskLeft, float64(n.Free))
	g.is(diskError, n.DiskError != "")
	if s.Expires != nil {
		g.put(certificate, float64(s.Expires().Unix()))
	}
	type kind struct{ role, state string }
	count := map[kind]int{}
	for _, h := range s.Node.Hosts() {
		count[kind{cmp.Or(h.Role, "none"), string(h.State)}]++
	}
	for k, n := range count {
		g.put(hosts, float64(n), k.role, k.state)
	}
}
