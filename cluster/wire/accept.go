package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// listener hands connections for one purpose to whoever accepts them.
type listener struct {
	port   *Port
	conns  chan *Conn
	open   atomic.Bool
	once   sync.Once
	closed chan struct{}
}

func newListener(p *Port) *listener {
	return &listener{port: p, conns: make(chan *Conn), closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
	case <-l.port.stop.Done():
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

func (l *listener) Close() error {
	l.open.Store(false)
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.port.config.Advertise }

// The pause after accept(2) failed, as it does for want of descriptors.
const (
	minAcceptPause = 5 * time.Millisecond
	maxAcceptPause = time.Second
)

func (p *Port) accept() {
	pause := time.Duration(0)
	for {
		c, err := p.config.Listener.Accept()
		if err != nil {
			if p.stop.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			p.log.Warn("accept", "no connections can be taken now", "err", err)
			pause = min(max(2*pause, minAcceptPause), maxAcceptPause)
			select {
			case <-time.After(pause):
			case <-p.stop.Done():
			}
			continue
		}
		pause = 0
		from := addrOf(c.RemoteAddr())
		if !p.begin(c, from) {
			p.log.Warn("pending "+from.String(), "too many connections have yet to say who they are: this one is closed", "from", c.RemoteAddr())
			c.Close()
			continue
		}
		p.work.Go(func() { p.take(c) })
	}
}

// addrOf returns the IP address, for counting.
func addrOf(a net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// take does TLS and the preface with a dialer and hands the connection on.
func (p *Port) take(raw net.Conn) {
	ctx, cancel := context.WithTimeout(p.stop, p.config.handshake)
	defer cancel()
	deadline, _ := ctx.Deadline()
	raw.SetDeadline(deadline)
	c, err := p.meet(ctx, raw)
	p.through(raw)
	if err != nil {
		raw.Close()
		p.tell(raw, err)
		return
	}
	raw.SetDeadline(time.Time{})
	l := p.listener(c.purpose)
	select {
	case l.conns <- c:
	case <-l.closed:
		c.Close()
	case <-ctx.Done():
		c.Close()
	}
}

// meet returns the connection if it is wanted. Otherwise the dialer was told why, if that could be done.
func (p *Port) meet(ctx context.Context, raw net.Conn) (*Conn, error) {
	setUserTimeout(raw)
	conn := raw
	if p.server != nil {
		t := tls.Server(raw, p.server)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, p.tlsRefused(raw, err)
		}
		conn = t
	}
	self := p.config.Self()
	pre, err := readPreface(conn)
	if err != nil {
		var a *alien
		switch {
		case errors.As(err, &a) && a.tls():
			return nil, p.refuse(conn, NoTLS, preface{}, self)
		case errors.Is(err, errMalformed):
			return nil, p.refuse(conn, Malformed, pre, self)
		}
		return nil, err
	}
	if code := p.judge(pre, self); code != ok {
		return nil, p.refuse(conn, code, pre, self)
	}
	c := &Conn{Conn: conn, port: p, purpose: pre.purpose, peer: pre.from}
	if !p.add(c) {
		return nil, p.refuse(conn, Busy, pre, self)
	}
	if _, err := conn.Write(answer{version: Version, from: self}.encode()); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// refuse tells the dialer why, and returns the error for this host.
func (p *Port) refuse(c net.Conn, code Code, pre preface, self Identity) error {
	dialer, acceptor := reasons(code, pre, self)
	a := answer{version: Version, code: code, text: dialer}
	if code != Malformed && code != NoTLS && code != NeedTLS {
		a.from = self
	}
	if _, err := c.Write(a.encode()); err == nil {
		linger(c)
	}
	return &Refused{Code: code, Address: c.RemoteAddr().String(), Peer: pre.from, Text: acceptor}
}

// linger lets the other side read what was written: closing a connection with something unread resets it, and what
// was sent is lost.
func linger(c net.Conn) {
	if w, ok := c.(interface{ CloseWrite() error }); ok && w.CloseWrite() == nil {
		c.SetReadDeadline(time.Now().Add(lingerFor))
		io.CopyN(io.Discard, c, lingerBytes)
	}
}

// tell logs why a connection came to nothing. That one just ended is nothing to tell: port scans and health checks do so. Nor is
// that this host is still starting.
func (p *Port) tell(c net.Conn, err error) {
	var r *Refused
	switch {
	case p.stop.Err() != nil || errors.Is(err, io.EOF) || RefusedAs(err, Starting):
	case errors.As(err, &r):
		p.log.Warn(r.Code.String()+" "+addrOf(c.RemoteAddr()).String()+r.Peer.Host, "a connection is refused: "+r.Text,
			"from", r.Address, "host", unknown(r.Peer.Host), "cluster", unknown(r.Peer.Cluster))
	default:
		p.log.Warn("broken "+addrOf(c.RemoteAddr()).String(), "a connection came to nothing before it said who it is", "from", c.RemoteAddr(), "err", err)
	}
}
