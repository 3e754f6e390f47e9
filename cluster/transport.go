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
}

// listen opens the TCP port. advertise, if not empty, is the address that the other hosts use.
func listen(bind, advertise string) (*stream, error) {
	l, err := net.Listen("tcp", bind)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, &refusal{ErrInUse, fmt.Sprintf("listen on %s: another program has this port, perhaps another lockfs daemon; "+
			"use that one's mount, or name another port with --bind ADDR:PORT (port 0: any that is free)", bind)}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this machine has no such address; name one of its own with --bind ADDR:PORT", bind)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: not permitted; name a port above 1023 with --bind ADDR:PORT", bind)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w; name an address and port with --bind ADDR:PORT", bind, err)
	}
	s := &stream{Listener: l, advertise: l.Addr()}
	if advertise != "" {
		a, err := net.ResolveTCPAddr("tcp", advertise)
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("--advertise %s: %w", advertise, err)
		}
		s.advertise = a
	}
	if a, ok := s.advertise.(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		l.Close()
		return nil, fmt.Errorf("listen on %s: other hosts cannot reach %s; "+
			"name an address that they can with --advertise ADDR:PORT", bind, a)
	}
	return s, nil
}
