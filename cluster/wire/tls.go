package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
)

// alpn keeps a certificate's other uses apart from this one.
const alpn = "lockfs"

// mutual returns the configurations of the two sides.
func mutual(c *tls.Config) (client, server *tls.Config, err error) {
	server, client = c.Clone(), c.Clone()
	if server.ClientCAs == nil {
		server.ClientCAs = c.RootCAs
	}
	if server.ClientCAs == nil || c.RootCAs == nil && !c.InsecureSkipVerify {
		return nil, nil, errors.New("TLS: the cluster's CA is not given; name its certificate with --tls-ca")
	}
	if len(c.Certificates) == 0 && (c.GetCertificate == nil || c.GetClientCertificate == nil) {
		return nil, nil, errors.New("TLS: this host's certificate is not given; name it and its key with --tls-cert and --tls-key")
	}
	server.ClientAuth = tls.RequireAndVerifyClientCert
	server.SessionTicketsDisabled = true // a certificate counts now, not when it was first seen
	for _, c := range []*tls.Config{client, server} {
		c.MinVersion = tls.VersionTLS13
		c.NextProtos = []string{alpn}
	}
	return client, server, nil
}

// tlsRefused says what came of a TLS handshake with a dialer, and tells it if it does without TLS.
func (p *Port) tlsRefused(raw net.Conn, err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) {
		if string(header.RecordHeader[:]) == magic[:len(header.RecordHeader)] {
			return p.refuse(raw, NeedTLS, preface{}, Identity{})
		}
		return &Refused{Code: NotLockfs, Address: raw.RemoteAddr().String(), Text: errNotLockfs.Error()}
	}
	text := ""
	switch {
	case errors.Is(err, io.EOF) || errors.Is(err, context.DeadlineExceeded) || isNet(err):
		return err
	case isRemote(err):
		text = fmt.Sprintf("it does not accept this host's certificate (%v): both must have certificates of the cluster's CA, and "+
			"this host's must be valid for its address", unwrapRemote(err))
	default:
		text = fmt.Sprintf("its certificate is not accepted (%v): it must have one of the cluster's CA", err)
	}
	return &Refused{Code: Certificate, Address: raw.RemoteAddr().String(), Text: text}
}

// tlsFailed says what came of a TLS handshake with an acceptor.
func tlsFailed(address string, err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		if string(header.RecordHeader[:]) == magic[:len(header.RecordHeader)] {
			text, _ := reasons(NoTLS, preface{}, Identity{})
			return &Refused{Code: NoTLS, Address: address, Text: text}
		}
		return &Refused{Code: NotLockfs, Address: address, Text: errNotLockfs.Error()}
	case isRemote(err):
		return certificateRefused(address, err)
	case errors.Is(err, io.EOF) || isNet(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return fmt.Errorf("connect to %s: TLS: %w", address, err)
	}
	return &Refused{Code: Certificate, Address: address, Text: fmt.Sprintf("its certificate is not accepted (%v): it must have one of "+
		"the cluster's CA, valid for its address", err)}
}

// certificateRefused is the other side's alert about this host's certificate. In TLS 1.3 it comes after the handshake.
func certificateRefused(address string, err error) error {
	return &Refused{Code: Certificate, Address: address, Text: fmt.Sprintf("it does not accept this host's certificate (%v): both must have "+
		"certificates of the cluster's CA", unwrapRemote(err))}
}

// isRemote says whether err is an alert of the other side.
func isRemote(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func unwrapRemote(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// isNet says whether err is of the connection and not of TLS.
func isNet(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op != "remote error" && op.Op != "local error"
}
