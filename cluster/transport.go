package cluster

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// DefaultBind is where a host listens unless it is told otherwise: on loopback, for a cluster of one.
const DefaultBind = "127.0.0.1:7420"

// stream is the TCP port, and the address that the other hosts use.
type stream struct {
	net.Listener
	advertise net.Addr
	ip        net.IP // of advertise, now
}

// named is an address whose host is a DNS name. Others get it as it is: they look it up for each connection, and a
// certificate can be valid for it.
type named string

func (a named) Network() string { return "tcp" }
func (a named) String() string  { return string(a) }

// listen opens the TCP port. advertise, if not empty, is the address that the other hosts use.
func listen(bind, advertise string) (*stream, error) {
	l, err := net.Listen("tcp", bind)
	if err != nil {
		return nil, listenError(bind, "--bind", err)
	}
	s := &stream{Listener: l, advertise: l.Addr()}
	if advertise != "" {
		a, err := net.ResolveTCPAddr("tcp", advertise)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("--advertise %s: %w", advertise, err)
		}
		s.advertise, s.ip = a, a.IP
		if host, _, _ := net.SplitHostPort(advertise); net.ParseIP(host) == nil {
			s.advertise = named(advertise)
		}
	} else if a, ok := l.Addr().(*net.TCPAddr); ok {
		s.ip = a.IP
	}
	if s.ip.IsUnspecified() {
		l.Close()
		return nil, fmt.Errorf("listen on %s: other hosts cannot reach %s; "+
			"name an address that they can with --advertise ADDR:PORT", bind, s.advertise)
	}
	return s, nil
}

// listenError says why a port cannot be had and what to do.
func listenError(at, flag string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &refusal{ErrInUse, fmt.Sprintf("listen on %s: another program has this port, perhaps another lockfs daemon; "+
			"use that one's mount, or name another port with %s ADDR:PORT (port 0: any that is free)", at, flag)}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this machine has no such address; name one of its own with %s ADDR:PORT", at, flag)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: not permitted; name a port above 1023 with %s ADDR:PORT", at, flag)
	}
	return fmt.Errorf("listen on %s: %w; name an address and port with %s ADDR:PORT", at, err, flag)
}
