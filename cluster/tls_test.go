package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/lockfs/lockfs/cluster/wire"
)

// TestClusterWithTLS forms a cluster whose every connection is TLS, and shuts out a host without.
func TestClusterWithTLS(t *testing.T) {
	authority := newTestCA(t)
	c := newTestCluster(t, 3, testOptions{config: func(i int, c *Config) { c.TLS = authority.issue(t) }})
	for i, n := range c.followers() {
		insist(t, func() error { return propose(n.Node, openSession(n.name(), uint64(i+1))) })
	}
	c.agree()
	plain, err := Open(Config{Dir: filepath.Join(t.TempDir(), "data"), Name: "z", Bind: "127.0.0.9:0", Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer plain.Close()
	if _, err := plain.port.Connect(t.Context(), c.leader().address); !wire.RefusedAs(err, wire.NeedTLS) {
		t.Errorf("a host without TLS: %v", err)
	}
}

// testCA issues certificates for the addresses of a testCluster.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t *testing.T) *testCA {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	c, err = x509.ParseCertificate(der)
	must(t, err)
	return &testCA{c, key}
}

func (a *testCA) issue(t *testing.T) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 2), net.IPv4(127, 0, 0, 3), net.IPv4(127, 0, 0, 4)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool}
}
