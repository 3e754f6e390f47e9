package wire

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
)

// MaxMessage bounds a gRPC message, in bytes.
const MaxMessage = 20 << 20

// What one connection may have under way before its reader has to take something. Fixed sizes, so that grpc does not
// measure the bandwidth with pings.
const (
	streamWindow = 1 << 20
	connWindow   = 4 << 20
)

// aliveEvery is how often a connection without traffic is tried, and aliveFor how long the answer may take.
const (
	aliveEvery = 10 * time.Second
	aliveFor   = 5 * time.Second
)

// maxStreams bounds the calls that one host may have under way.
const maxStreams = 64

// NewServer returns a gRPC server to serve Listen(RPC) with.
func (p *Port) NewServer(opts ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(handshaken{}),
		grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxConcurrentStreams(maxStreams),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connWindow),
		grpc.ConnectionTimeout(handshakeTimeout), grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: aliveEvery, Timeout: aliveFor}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: aliveEvery / 2, PermitWithoutStream: true}),
	}, opts...)...)
}

// Client is one connection for gRPC calls. When it breaks they fail, and it stays broken: it is up to the caller to Connect
// again.
type Client struct {
	*grpc.ClientConn
	conn *Conn
}

// Peer is who the other side said it is.
func (c *Client) Peer() Identity { return c.conn.Peer() }

// Close ends all calls and the connection. The connection comes first: grpc would try for seconds to say goodbye over one that
// is stuck.
func (c *Client) Close() error { return errors.Join(c.conn.Close(), c.ClientConn.Close()) }

var errBroken = errors.New("the connection is broken")

// Connect makes a connection to another host for gRPC calls. Its errors are those of Dial.
func (p *Port) Connect(ctx context.Context, address string) (*Client, error) {
	conn, err := p.Dial(ctx, address, RPC)
	if err != nil {
		return nil, err
	}
	var used atomic.Bool
	cc, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errBroken
			}
			return conn, nil
		}),
		grpc.WithTransportCredentials(handshaken{}), grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: aliveEvery, Timeout: aliveFor}),
	)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &Client{cc, conn}, nil
}

// PeerOf returns who is calling, as its preface said, within a gRPC handler.
func PeerOf(ctx context.Context) (Identity, bool) {
	if p, there := peer.FromContext(ctx); there {
		if a, is := p.AuthInfo.(authInfo); is {
			return a.peer, true
		}
	}
	return Identity{}, false
}

// handshaken are gRPC's credentials for connections whose TLS, if any, and preface are through.
type handshaken struct{}

type authInfo struct {
	credentials.CommonAuthInfo
	peer Identity
}

func (authInfo) AuthType() string { return "lockfs" }

func (handshaken) shake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, is := c.(*Conn)
	if !is {
		return nil, nil, errors.New("this connection has no preface")
	}
	level := credentials.NoSecurity
	if conn.port.server != nil {
		level = credentials.PrivacyAndIntegrity
	}
	return c, authInfo{credentials.CommonAuthInfo{SecurityLevel: level}, conn.peer}, nil
}

func (h handshaken) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.shake(c)
}

func (h handshaken) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.shake(c)
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "lockfs"}
}

func (h handshaken) Clone() credentials.TransportCredentials { return h }

func (handshaken) OverrideServerName(string) error { return nil }
