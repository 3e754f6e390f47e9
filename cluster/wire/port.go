package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/lockfs/lockfs/cluster/seldom"
)

// Config is what a Port needs. Listener and Self must be set.
type Config struct {
	Listener net.Listener // of TCP; the Port closes it
	// Advertise is the address that other hosts use, which the listeners give as theirs. nil: the Listener's.
	Advertise net.Addr
	// TLS, if not nil, is used for every connection in both directions: it must have the certificate of this host and in RootCAs
	// the cluster's CA. The Port sees to it that it is TLS 1.3 and mutual. Without ServerName the certificate
	// of a host must be valid for the address that is dialed.
	TLS *tls.Config
	// Self says who this host is, now; asked for each connection. It must be quick.
	Self func() Identity
	// Removed says whether a host was removed from the cluster; nil: none was. It must be quick.
	Removed func(host string) bool
	// Dial makes TCP connections; nil: a net.Dialer.
	Dial func(ctx context.Context, address string) (net.Conn, error)
	// Logger is told of refused connections. nil: slog.Default().
	Logger *slog.Logger

	handshake time.Duration // 0: handshakeTimeout
	limits    limits        // zero: defaultLimits
}

// limits bound what others can make this host spend.
type limits struct {
	pending int // connections whose preface is not through yet
	perAddr int // of these, from one IP address
	open    int // connections taken
}

var defaultLimits = limits{pending: 256, perAddr: 64, open: 2048}

const (
	handshakeTimeout = 5 * time.Second // for TLS and preface
	lingerFor        = time.Second     // for a refused dialer to read why
	lingerBytes      = 64 << 10        // what it may still send meanwhile

	// userTimeout is for how long what was sent may stay unacknowledged before the connection counts as broken.
	userTimeout = 10 * time.Second
)

// Port is the TCP port of a host, and its connections.
type Port struct {
	config Config
	server *tls.Config // nil: no TLS
	log    *seldom.Log
	raft   *listener
	rpc    *listener

	stop context.Context // done when closed
	end  context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	conns   map[*Conn]struct{}      // taken and made
	taken   int                     // of conns
	pending map[net.Conn]netip.Addr // not through yet
	from    map[netip.Addr]int      // of pending
}

// New returns a Port that accepts connections. It refuses those of a purpose until Listen was called for it.
func New(c Config) (*Port, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Advertise == nil {
		c.Advertise = c.Listener.Addr()
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	if c.handshake == 0 {
		c.handshake = handshakeTimeout
	}
	if c.limits == (limits{}) {
		c.limits = defaultLimits
	}
	p := &Port{
		config: c, log: seldom.New(c.Logger),
		conns: map[*Conn]struct{}{}, pending: map[net.Conn]netip.Addr{}, from: map[netip.Addr]int{},
	}
	p.stop, p.end = context.WithCancel(context.Background())
	if c.TLS != nil {
		var err error
		if p.config.TLS, p.server, err = mutual(c.TLS); err != nil {
			return nil, err
		}
	}
	p.raft, p.rpc = newListener(p), newListener(p)
	p.work.Go(p.accept)
	return p, nil
}

func (p *Port) listener(purpose Purpose) *listener {
	if purpose == Raft {
		return p.raft
	}
	return p.rpc
}

// Listen returns the connections of others for a purpose. Closing it refuses further ones, and leaves the others alone.
func (p *Port) Listen(purpose Purpose) net.Listener {
	l := p.listener(purpose)
	l.open.Store(true)
	return l
}

// Addr is the address that other hosts use.
func (p *Port) Addr() net.Addr { return p.config.Advertise }

// Close closes the port and every connection, and returns when all goroutines ended.
func (p *Port) Close() error {
	p.mu.Lock()
	p.closed = true
	conns := make([]net.Conn, 0, len(p.conns)+len(p.pending))
	for c := range p.conns {
		conns = append(conns, c)
	}
	for c := range p.pending {
		conns = append(conns, c)
	}
	p.mu.Unlock()
	p.end()
	err := p.config.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	for _, c := range conns {
		c.Close()
	}
	p.work.Wait()
	return err
}

// Drop closes every connection with a host, as when it was removed.
func (p *Port) Drop(host string) {
	p.mu.Lock()
	var conns []*Conn
	for c := range p.conns {
		if c.peer.Host == host {
			conns = append(conns, c)
		}
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// add notes a connection whose preface is through; false: the port is closed or has too many.
func (p *Port) add(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !c.dialed && p.taken >= p.config.limits.open {
		return false
	}
	p.conns[c] = struct{}{}
	if !c.dialed {
		p.taken++
	}
	return true
}

func (p *Port) remove(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, there := p.conns[c]; !there {
		return
	}
	delete(p.conns, c)
	if !c.dialed {
		p.taken--
	}
}

// begin notes a connection that has yet to say who it is; false: there are too many.
func (p *Port) begin(c net.Conn, from netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.pending) >= p.config.limits.pending || p.from[from] >= p.config.limits.perAddr {
		return false
	}
	p.pending[c] = from
	p.from[from]++
	return true
}

func (p *Port) through(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, there := p.pending[c]
	if !there {
		return
	}
	delete(p.pending, c)
	if p.from[from]--; p.from[from] == 0 {
		delete(p.from, from)
	}
}

// Conn is a connection whose preface is through.
type Conn struct {
	net.Conn
	port    *Port
	purpose Purpose
	peer    Identity
	dialed  bool // by this host
	once    sync.Once
	err     error
}

// Peer is who the other side said it is. Its Cluster is empty if it was no member then.
func (c *Conn) Peer() Identity { return c.peer }

// Close closes the connection.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.port.remove(c)
		c.err = c.Conn.Close()
	})
	return c.err
}
