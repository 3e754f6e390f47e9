package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// dialTimeout bounds a connection's making, so that a host that comes back is found again soon.
const dialTimeout = 3 * time.Second

// Dial makes a connection to another host's port. Its error is a *Refused if one of the two sides does not want the
// other; that was logged.
func (p *Port) Dial(ctx context.Context, address string, purpose Purpose) (*Conn, error) {
	self := p.config.Self()
	if purpose == Raft && self.Cluster == "" {
		return nil, &Refused{Code: NoMember, Address: address, Text: "this host is no member of a cluster yet"}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	stop := context.AfterFunc(p.stop, cancel)
	defer stop()
	c, err := p.dial(ctx, address, purpose, self)
	var r *Refused
	if errors.As(err, &r) && r.Code != Starting && p.stop.Err() == nil {
		p.log.Warn(r.Code.String()+" "+address, "no connection: "+r.Text, "to", address, "for", purpose,
			"host", unknown(r.Peer.Host), "cluster", unknown(r.Peer.Cluster))
	}
	return c, err
}

func (p *Port) dial(ctx context.Context, address string, purpose Purpose, self Identity) (c *Conn, err error) {
	raw, err := p.config.Dial(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	late := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if err != nil {
			late()
			raw.Close()
		}
	}()
	setUserTimeout(raw)
	conn := raw
	if p.config.TLS != nil {
		t := tls.Client(raw, p.clientTLS(address))
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, tlsFailed(address, err)
		}
		conn = t
	}
	if _, err := conn.Write((preface{version: Version, purpose: purpose, from: self}).encode()); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	a, err := readAnswer(conn)
	if err != nil {
		return nil, p.unanswered(ctx, address, err)
	}
	if err := p.accepts(a, address, purpose, self); err != nil {
		return nil, err
	}
	if !late() {
		return nil, fmt.Errorf("connect to %s: %w", address, context.Cause(ctx))
	}
	c = &Conn{Conn: conn, port: p, purpose: purpose, peer: a.from, dialed: true}
	if !p.add(c) {
		return nil, fmt.Errorf("connect to %s: %w", address, net.ErrClosed)
	}
	return c, nil
}

// clientTLS is the configuration for an address.
func (p *Port) clientTLS(address string) *tls.Config {
	c := p.config.TLS
	if c.ServerName != "" || c.InsecureSkipVerify {
		return c
	}
	c = c.Clone()
	if host, _, err := net.SplitHostPort(address); err == nil {
		c.ServerName = host
	}
	return c
}

// unanswered says why there is no answer to the preface.
func (p *Port) unanswered(ctx context.Context, address string, err error) error {
	var a *alien
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("connect to %s: no answer: %w", address, context.Cause(ctx))
	case isRemote(err):
		return certificateRefused(address, err)
	case errors.As(err, &a), errors.Is(err, errMalformed):
		return &Refused{Code: NotLockfs, Address: address, Text: "no lockfs daemon answers there"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("connect to %s: it closed the connection without an answer", address)
	}
	return fmt.Errorf("connect to %s: %w", address, err)
}

// accepts says whether the answer is yes, and of whom it should be.
func (p *Port) accepts(a answer, address string, purpose Purpose, self Identity) error {
	refused := &Refused{Code: a.code, Address: address, Peer: a.from, Text: a.text}
	switch {
	case a.code != ok:
		if a.text == "" {
			refused.Text = a.code.String()
		}
		return refused
	case a.version != Version:
		refused.Code = OtherVersion
	case a.from.Host == "":
		refused.Code = Malformed
	case a.from.Host == self.Host:
		refused.Code = SameHost
	case a.from.Cluster != self.Cluster && a.from.Cluster != "" && self.Cluster != "":
		refused.Code = OtherCluster
	case purpose == Raft && a.from.Cluster == "":
		refused.Code = NoMember
	default:
		return nil
	}
	refused.Text, _ = reasons(refused.Code, preface{version: Version, from: self}, a.from)
	return refused
}

func setUserTimeout(c net.Conn) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	if rc, err := s.SyscallConn(); err == nil {
		rc.Control(func(fd uintptr) {
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout/time.Millisecond))
		})
	}
}

// At is the address of a host as StreamLayer dials it: with the id that has to answer there.
func At(host, address string) raft.ServerAddress { return raft.ServerAddress(host + "@" + address) }

// StreamLayer returns the port as raft's transport wants it. It dials what At made, and nothing else: were another host to
// answer, raft would take its word, and its vote, for that of the host it meant.
func (p *Port) StreamLayer() raft.StreamLayer { return streamLayer{p.Listen(Raft), p} }

type streamLayer struct {
	net.Listener
	port *Port
}

// redialAfter is the pause before a daemon that is not there is tried again.
const redialAfter = 50 * time.Millisecond

// dial waits for a daemon that is not there, as long as ctx allows. raft doubles its own pause with each failure, up to 10 s, and so would
// leave a host that comes back alone for about as long as it was away.
func (s streamLayer) dial(ctx context.Context, address string) (*Conn, error) {
	for {
		c, err := s.port.Dial(ctx, address, Raft)
		if !errors.Is(err, syscall.ECONNREFUSED) && !RefusedAs(err, Starting) {
			return c, err
		}
		select {
		case <-time.After(redialAfter):
		case <-ctx.Done():
			return nil, err
		case <-s.port.stop.Done():
			return nil, err
		}
	}
}

// Dial is raft's.
func (s streamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	host, address, ok := strings.Cut(string(to), "@")
	if !ok {
		return nil, fmt.Errorf("connect to %s: no host is named that should be there", to)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := s.dial(ctx, address)
	if err != nil {
		return nil, err // and no *Conn that is nil
	}
	if c.peer.Host != host {
		c.Close()
		return nil, fmt.Errorf("connect to %s: host %s is there, and not host %s", address, c.peer.Host, host)
	}
	return c, nil
}
