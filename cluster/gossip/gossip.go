package gossip

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"

	"github.com/lockfs/lockfs/cluster/seldom"
)

// Config is what a Gossip needs; Bind must be set.
type Config struct {
	Bind      string       // ADDR:PORT to listen on, UDP and TCP; port 0: any that is free
	Advertise net.IP       // what others reach it under; nil: that of Bind
	Key       []byte       // encrypts everything: 16, 24 or 32 bytes; nil: nothing is encrypted
	Logger    *slog.Logger // nil: slog.Default()
	Fast      bool         // for tests: failures are found within a second or two
}

// State is what gossip thinks of a member.
type State uint8

const (
	Alive  State = iota
	Failed       // it does not answer
	Left         // it said that it stops
)

// Member is a host as gossip knows it.
type Member struct {
	ID      string // of the host
	Cluster string // id; empty: it waits to be admitted to one
	Name    string
	Address string // TCP, of raft and forwarding
	Version string // of the program
	Durable bool   // its log is on disk
	Gossip  string // ADDR:PORT; set by Members only
	State   State  // likewise
}

// The intervals. Idle hosts should cost next to nothing: a probe of one other host each probeEvery, and silence otherwise. A
// host that is gone is known to have failed after some 5 s.
const (
	probeEvery    = 2 * time.Second
	probeFor      = 1 * time.Second
	gossipEvery   = 2 * time.Second
	reconnect     = 10 * time.Second // between attempts to find those that failed
	forgetAfter   = 24 * time.Hour
	tcpTimeout    = 3 * time.Second
	leaveFor      = time.Second // at most, for telling the others
	leaveLinger   = 100 * time.Millisecond
	minJoinPause  = 250 * time.Millisecond
	maxJoinPause  = 10 * time.Second
	maxKnownHosts = 1 << 10 // of Members; who floods us with more is ignored
)

// Gossip is this host's part in the gossip.
type Gossip struct {
	config    Config
	log       *slog.Logger
	seldom    *seldom.Log
	to        *log.Logger
	transport *memberlist.NetTransport
	advertise net.IP
	port      int

	self    atomic.Pointer[Member]
	changed chan struct{} // 1
	events  chan serf.Event
	stop    chan struct{}
	ended   sync.WaitGroup
	serf    *serf.Serf // nil until Start
	join    func() []string
}

// Listen takes the port; nothing is told or heard before Start. The caller must Close it.
func Listen(c Config) (*Gossip, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	host, port, err := net.SplitHostPort(c.Bind)
	if err != nil {
		return nil, err
	}
	ip, err := net.ResolveIPAddr("ip", host)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		config: c, log: c.Logger, seldom: seldom.New(c.Logger), advertise: c.Advertise,
		changed: make(chan struct{}, 1), events: make(chan serf.Event, 256), stop: make(chan struct{}),
	}
	if ip.IP == nil {
		ip.IP = net.IPv4zero
	}
	if g.advertise == nil {
		g.advertise = ip.IP
	}
	if g.advertise.IsUnspecified() {
		return nil, fmt.Errorf("other hosts cannot reach %s", g.advertise)
	}
	g.to = log.New(lines{g}, "", 0)
	g.transport, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{ip.IP.String()}, BindPort: int(number), Logger: g.to,
	})
	if err != nil {
		return nil, inUse(ip.IP, int(number), err)
	}
	g.port = g.transport.GetAutoBindPort()
	return g, nil
}

// inUse gives the reason why a port cannot be had its kind, which memberlist does not.
func inUse(ip net.IP, port int, err error) error {
	l, tcp := net.ListenTCP("tcp", &net.TCPAddr{IP: ip, Port: port})
	if tcp == nil {
		l.Close()
	}
	c, udp := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: port})
	if udp == nil {
		c.Close()
	}
	return cmp.Or(tcp, udp, err)
}

// Addr is what other hosts reach it under.
func (g *Gossip) Addr() string { return net.JoinHostPort(g.advertise.String(), strconv.Itoa(g.port)) }

// Changed has a token when something about the members may have changed.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

// Start begins to gossip, with what others are to know of this host. join gives addresses of others; it is asked again and again
// and must be quick. Called once.
func (g *Gossip) Start(self Member, join func() []string) error {
	g.self.Store(&self)
	m := memberlist.DefaultLANConfig()
	m.BindPort, m.AdvertiseAddr, m.AdvertisePort = g.port, g.advertise.String(), g.port
	m.Transport, m.Logger, m.LogOutput = g.transport, g.to, nil
	m.TCPTimeout, m.ProbeInterval, m.ProbeTimeout = tcpTimeout, probeEvery, probeFor
	m.SuspicionMult, m.SuspicionMaxTimeoutMult = 2, 2
	m.GossipInterval, m.PushPullInterval, m.GossipToTheDeadTime = gossipEvery, 60*time.Second, 30*time.Second
	m.QueueCheckInterval = time.Hour
	m.DeadNodeReclaimTime = time.Nanosecond // the connections check who is at an address
	m.SecretKey = g.config.Key
	c := serf.DefaultConfig()
	c.NodeName, c.Tags, c.EventCh, c.Logger, c.LogOutput = self.ID, tags(self), g.events, g.to, nil
	c.MemberlistConfig, c.Merge = m, g
	c.EnableNameConflictResolution, c.DisableCoordinates = false, true
	c.ReconnectInterval, c.ReconnectTimeout, c.TombstoneTimeout = reconnect, forgetAfter, forgetAfter
	c.QueueCheckInterval, c.ReapInterval = time.Hour, time.Minute
	c.BroadcastTimeout, c.LeavePropagateDelay = leaveFor, leaveLinger
	c.EventBuffer, c.QueryBuffer = 16, 16
	if g.config.Fast {
		m.ProbeInterval, m.ProbeTimeout, m.GossipInterval = 200*time.Millisecond, 150*time.Millisecond, 50*time.Millisecond
		c.ReconnectInterval = time.Second
	}
	s, err := serf.Create(c)
	if err != nil {
		return err
	}
	g.serf, g.join = s, join
	g.ended.Go(g.hear)
	g.ended.Go(g.find)
	return nil
}

// Tell tells the others of a change in what they know of this host.
func (g *Gossip) Tell(self Member) error {
	if *g.self.Swap(&self) == self {
		return nil
	}
	g.touch()
	return g.serf.SetTags(tags(self))
}

func tags(m Member) map[string]string {
	return map[string]string{
		"cluster": m.Cluster, "name": m.Name, "addr": m.Address, "version": m.Version, "durable": strconv.FormatBool(m.Durable),
	}
}

func member(m serf.Member) Member {
	return Member{
		ID: m.Name, Cluster: m.Tags["cluster"], Name: m.Tags["name"], Address: m.Tags["addr"], Version: m.Tags["version"],
		Durable: m.Tags["durable"] == "true", Gossip: net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port))), State: states[m.Status],
	}
}

var states = map[serf.MemberStatus]State{serf.StatusAlive: Alive, serf.StatusLeaving: Alive, serf.StatusLeft: Left, serf.StatusFailed: Failed}

// Members returns what is known of the other hosts, by id: those of this host's cluster and those that wait to be admitted
// to one. A host that waits itself is shown those of every cluster.
func (g *Gossip) Members() []Member {
	self := g.self.Load()
	var all []Member
	for _, s := range g.serf.Members() {
		m := member(s)
		if m.ID == self.ID || s.Status == serf.StatusNone || foreign(m.Cluster, self.Cluster) {
			continue
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return all[:min(len(all), maxKnownHosts)]
}

// foreign says whether two hosts are of different clusters.
func foreign(a, b string) bool { return a != "" && b != "" && a != b }

// NotifyMerge is serf's question whether to take notice of a member that is said to be alive, or of all that another host
// knows, itself included. One that waits to be admitted may know hosts of several clusters; each of them is asked about again.
func (g *Gossip) NotifyMerge(members []*serf.Member) error {
	self := g.self.Load()
	for _, m := range members {
		if !foreign(m.Tags["cluster"], self.Cluster) {
			return nil
		}
	}
	return errForeign
}

var errForeign = errors.New("it is of another cluster, and two clusters never merge")

// Forget drops a member that will not come back.
func (g *Gossip) Forget(id string) { g.serf.RemoveFailedNode(id) }

// hear turns events into tokens.
func (g *Gossip) hear() {
	for {
		select {
		case <-g.events:
			g.touch()
		case <-g.stop:
			return
		}
	}
}

func (g *Gossip) touch() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// find joins the gossip of those at the given addresses while any of them is not among the living members.
func (g *Gossip) find() {
	pause := minJoinPause
	for {
		if missing := g.missing(); len(missing) > 0 {
			g.tryJoin(missing)
			pause = min(2*pause, maxJoinPause)
		} else {
			pause = maxJoinPause
		}
		select {
		case <-time.After(pause):
		case <-g.stop:
			return
		}
	}
}

// tryJoin joins at each of the addresses. One that does not answer takes its time, so it looks between two whether to stop.
func (g *Gossip) tryJoin(all []string) {
	for _, at := range all {
		select {
		case <-g.stop:
			return
		default:
		}
		switch _, err := g.serf.Join([]string{at}, true); {
		case err == nil:
		case strings.Contains(err.Error(), errForeign.Error()): // memberlist keeps but the text
			g.seldom.Warn("foreign", "a host to join is of another cluster, and two clusters never merge: to join that one, start this host with --reset",
				"at", at, "cluster", g.self.Load().Cluster)
		default:
			g.log.Debug("gossip finds nobody", "at", at, "err", err)
		}
	}
}

// missing are the addresses to join at that no living member has.
func (g *Gossip) missing() (all []string) {
	there := map[string]bool{g.Addr(): true}
	for _, m := range g.serf.Members() {
		if m.Status == serf.StatusAlive {
			there[net.JoinHostPort(m.Addr.String(), strconv.Itoa(int(m.Port)))] = true
		}
	}
	for _, a := range g.join() {
		ctx, cancel := context.WithTimeout(context.Background(), tcpTimeout)
		resolved, err := resolve(ctx, a)
		cancel()
		if err != nil {
			g.seldom.Warn("resolve "+a, "an address to join at is none", "address", a, "err", err)
			continue
		}
		if !there[resolved] {
			there[resolved] = true
			all = append(all, resolved)
		}
	}
	return all
}

// resolve returns an address with its IP.
func resolve(ctx context.Context, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if net.ParseIP(host) != nil {
		return address, nil
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(ips[0].String(), port), nil
}

// Close ends it. With leave the others are told, so that they need not find out; it takes up to two seconds.
func (g *Gossip) Close(leave bool) error {
	close(g.stop)
	if g.serf == nil {
		return g.transport.Shutdown()
	}
	if leave && len(g.Members()) > 0 {
		if err := g.serf.Leave(); err != nil {
			g.log.Debug("gossip", "err", err)
		}
	}
	err := g.serf.Shutdown()
	g.ended.Wait()
	return err
}

// lines takes what serf and memberlist log: at most a line a minute of each kind, and one level lower than they think.
type lines struct{ g *Gossip }

var levels = []struct {
	prefix string
	level  slog.Level
}{{"[ERR] ", slog.LevelInfo}, {"[WARN] ", slog.LevelDebug}, {"[INFO] ", slog.LevelDebug}, {"[DEBUG] ", slog.LevelDebug}}

func (l lines) Write(b []byte) (int, error) {
	for _, x := range levels {
		text, is := bytes.CutPrefix(bytes.TrimSpace(b), []byte(x.prefix))
		if !is || !l.g.log.Enabled(context.Background(), x.level) {
			continue
		}
		kind, _, _ := bytes.Cut(text[min(len(text), len("memberlist: ")):], []byte(":"))
		if again, due := l.g.seldom.Due(string(kind)); due || x.level == slog.LevelDebug {
			l.g.log.Log(context.Background(), x.level, "gossip: "+string(text), "unlogged", again)
		}
	}
	return len(b), nil
}
