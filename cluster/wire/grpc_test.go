package wire

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// asked is a service that notes who asks.
type asked struct {
	*health.Server
	by chan Identity
}

func (a asked) Check(ctx context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	id, _ := PeerOf(ctx)
	a.by <- id
	return a.Server.Check(ctx, r)
}

// serveHealth serves a gRPC service on a port.
func serveHealth(t *testing.T, p *testPort) asked {
	a := asked{health.NewServer(), make(chan Identity, 1)}
	s := p.NewServer()
	grpc_health_v1.RegisterHealthServer(s, a)
	l := p.Listen(RPC)
	p.work.Go(func() { s.Serve(l) })
	t.Cleanup(s.Stop)
	return a
}

func check(c grpc.ClientConnInterface) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := grpc_health_v1.NewHealthClient(c).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	return err
}

// TestCalls makes gRPC calls over the port: the handler knows the caller, and a connection that broke stays broken.
func TestCalls(t *testing.T) {
	noLeaks(t)
	authority := newCA(t)
	for name, opt := range map[string]func(*Config){"plain": func(*Config) {}, "TLS": authority.with(t)} {
		t.Run(name, func(t *testing.T) {
			a, b := newPort(t, Identity{"", "a"}, opt), newPort(t, Identity{"c", "b"}, opt)
			service := serveHealth(t, b)
			c, err := a.Connect(t.Context(), b.at())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.Peer() != (Identity{"c", "b"}) {
				t.Errorf("peer %+v", c.Peer())
			}
			for range 3 {
				if err := check(c); err != nil {
					t.Fatal(err)
				}
				if by := <-service.by; by != (Identity{"", "a"}) {
					t.Errorf("asked by %+v", by)
				}
			}
			b.Drop("a")
			if err := check(c); err == nil {
				t.Error("a broken connection works")
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		a, b := newPort(t, Identity{"other", "a"}), newPort(t, Identity{"c", "b"})
		serveHealth(t, b)
		if _, err := a.Connect(t.Context(), b.at()); !RefusedAs(err, OtherCluster) {
			t.Error(err)
		}
	})
	t.Run("closed unused", func(t *testing.T) {
		a, b := newPort(t, Identity{"c", "a"}), newPort(t, Identity{"c", "b"})
		serveHealth(t, b)
		c, err := a.Connect(t.Context(), b.at())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.conns) != 0 {
			t.Errorf("%d connections are left", len(a.conns))
		}
	})
}
