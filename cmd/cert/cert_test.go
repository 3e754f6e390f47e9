package cert

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kit is a directory with a CA and what a host needs, and a clock.
type kit struct {
	t     *testing.T
	dir   string
	ca    Pair
	files Files
	clock time.Time
	log   bytes.Buffer
}

func newKit(t *testing.T) *kit {
	k := &kit{t: t, dir: t.TempDir(), clock: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	k.ca = k.newCA()
	k.files = Files{CA: filepath.Join(k.dir, "ca.pem"), Cert: filepath.Join(k.dir, "a.pem"), Key: filepath.Join(k.dir, "a-key.pem")}
	k.write(k.files.CA, k.ca.Cert)
	k.put(k.host(k.ca, "127.0.0.1"))
	return k
}

func (k *kit) newCA() Pair {
	k.t.Helper()
	p, err := NewCA("test", CADays, k.clock)
	if err != nil {
		k.t.Fatal(err)
	}
	return p
}

func (k *kit) host(ca Pair, addresses ...string) Pair {
	k.t.Helper()
	a, err := ParseAuthority(ca)
	if err != nil {
		k.t.Fatal(err)
	}
	p, err := a.Host("a", addresses, HostDays, k.clock)
	if err != nil {
		k.t.Fatal(err)
	}
	return p
}

func (k *kit) write(name string, text []byte) {
	k.t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		k.t.Fatal(err)
	}
}

// put puts a pair in the place of the host's, with a time of modification that was not there before.
func (k *kit) put(p Pair) {
	k.t.Helper()
	k.write(k.files.Cert, p.Cert)
	k.write(k.files.Key, p.Key)
	k.clock = k.clock.Add(time.Second)
	for _, name := range []string{k.files.Cert, k.files.Key} {
		if err := os.Chtimes(name, k.clock, k.clock); err != nil {
			k.t.Fatal(err)
		}
	}
}

func (k *kit) load(host string) (*Source, error) {
	return load(k.files, host, slog.New(slog.NewTextHandler(&k.log, nil)), func() time.Time { return k.clock })
}

// TestHandshake: two hosts with what was made and loaded accept each other, and nobody else.
func TestHandshake(t *testing.T) {
	k := newKit(t)
	a, err := k.load("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.load("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if err := handshake(t, a.TLS(), b.TLS()); err != nil {
		t.Errorf("hosts of one CA: %v", err)
	}
	other := newKit(t)
	c, err := other.load("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if handshake(t, a.TLS(), c.TLS()) == nil || handshake(t, c.TLS(), a.TLS()) == nil {
		t.Error("hosts of different CAs accept each other")
	}
}

// handshake connects a dialer with an acceptor that demands a certificate, over TCP on loopback.
func handshake(t *testing.T, client, server *tls.Config) error {
	t.Helper()
	server = server.Clone()
	server.ClientAuth = tls.RequireAndVerifyClientCert
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.SetDeadline(time.Now().Add(30 * time.Second))
			_, err = c.Write([]byte("hello"))
			c.Close()
		}
		accepted <- err
	}()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", l.Addr().String(), client)
	if err == nil {
		_, err = io.ReadAll(c)
		c.Close()
	}
	return errors.Join(err, <-accepted)
}

// TestRenewed: a certificate put in place is used at the next handshake; one that is no good is not, nor half of a new one.
func TestRenewed(t *testing.T) {
	k := newKit(t)
	s, err := k.load("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	first := s.current()
	if s.current() != first {
		t.Error("a certificate that is the same is read again")
	}
	next := k.host(k.ca, "127.0.0.1")
	old, err := os.ReadFile(k.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	k.put(Pair{next.Cert, old})
	if s.current() != first || !strings.Contains(k.log.String(), "the new certificate is not used") {
		t.Errorf("a certificate without its key is used:\n%s", &k.log)
	}
	k.put(next)
	second := s.current()
	if second == first || s.Expires() != second.Leaf.NotAfter {
		t.Errorf("the new certificate is not used:\n%s", &k.log)
	}
	k.put(k.host(k.newCA(), "127.0.0.1"))
	if s.current() != second {
		t.Error("a certificate of another CA is used")
	}
	k.put(k.host(k.ca, "127.0.0.2"))
	if s.current() != second {
		t.Error("a certificate for another address is used")
	}
}

// TestRefused: what Load says of files that others would not accept.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(k *kit)
		want string
	}{
		{"another CA", func(k *kit) { k.put(k.host(k.newCA(), "127.0.0.1")) }, "not accepted as a server's certificate of the CA"},
		{"another key", func(k *kit) { k.put(Pair{k.host(k.ca, "127.0.0.1").Cert, k.host(k.ca, "127.0.0.1").Key}) }, "private key does not match"},
		{"another address", func(k *kit) { k.put(k.host(k.ca, "127.0.0.2", "a.example")) }, "it is valid for 127.0.0.2, a.example, but others dial this host as 127.0.0.1"},
		{"ended", func(k *kit) { k.clock = k.clock.AddDate(3, 0, 0) }, "ended on 2032-04-05; make a new one"},
		{"clock", func(k *kit) { k.clock = k.clock.AddDate(-3, 0, 0) }, "is this host's clock right?"},
		{"rights", func(k *kit) { os.Chmod(k.files.Key, 0o640) }, "has mode 0640, so others may read the key; chmod 600"},
		{"no CA", func(k *kit) { k.files.CA = k.files.Cert }, "is no CA's"},
		{"no PEM", func(k *kit) { k.write(k.files.CA, []byte("hello")) }, "there is no certificate in it"},
		{"client only", func(k *kit) { k.put(k.use(x509.ExtKeyUsageClientAuth)) }, "as a server's certificate"},
		{"server only", func(k *kit) { k.put(k.use(x509.ExtKeyUsageServerAuth)) }, "as a client's certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKit(t)
			c.do(k)
			if _, err := k.load("127.0.0.1"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// use makes a certificate that permits one use only.
func (k *kit) use(use x509.ExtKeyUsage) Pair {
	k.t.Helper()
	a, err := ParseAuthority(k.ca)
	if err != nil {
		k.t.Fatal(err)
	}
	c := &x509.Certificate{NotBefore: k.clock.Add(-skew), NotAfter: k.clock.AddDate(1, 0, 0), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{use}}
	p, err := sign(c, a.key, a.cert, a.key)
	if err != nil {
		k.t.Fatal(err)
	}
	return p
}

// TestWarns of an end that is near, once a day and not before.
func TestWarns(t *testing.T) {
	k := newKit(t)
	s, err := k.load("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	count := func() int { s.current(); return strings.Count(k.log.String(), "ends soon") }
	if n := count(); n != 0 {
		t.Errorf("%d warnings at the beginning", n)
	}
	k.clock = s.Expires().Add(-soon + time.Hour)
	if count(); count() != 1 {
		t.Errorf("not one warning:\n%s", &k.log)
	}
	k.clock = k.clock.Add(warnEvery)
	if count() != 2 {
		t.Errorf("no second warning:\n%s", &k.log)
	}
}

// TestHostEndsWithItsCA: no certificate outlives the one that signed it.
func TestHostEndsWithItsCA(t *testing.T) {
	now := time.Now()
	p, err := NewCA("short", 10, now)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAuthority(p)
	if err != nil {
		t.Fatal(err)
	}
	h, err := a.Host("a", []string{"127.0.0.1"}, HostDays, now)
	if err != nil {
		t.Fatal(err)
	}
	if certs, err := parseCerts(h.Cert); err != nil || !certs[0].NotAfter.Equal(a.cert.NotAfter) {
		t.Errorf("%v, %v", certs[0].NotAfter, err)
	}
	if _, err := a.Host("a", []string{"127.0.0.1"}, HostDays, now.AddDate(1, 0, 0)); err == nil {
		t.Error("a CA that ended signs")
	}
	for _, address := range []string{"0.0.0.0", "a b", "-x", "1.2.3.4:7420", ""} {
		if _, err := a.Host("a", []string{address}, HostDays, now); err == nil {
			t.Errorf("a certificate for %q", address)
		}
	}
}

func TestGossipKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	for _, c := range []struct{ text, want string }{
		{NewGossipKey(), ""},
		{"AAAAAAAAAAAAAAAAAAAAAA==", ""},
		{"AAAA", "a key of 3 bytes, want 16, 24 or 32"},
		{"%", "not base64"},
		{"", "a key of 0 bytes"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := ReadGossipKey(file)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || err == nil && len(key) < 16 {
			t.Errorf("%q: %d bytes, %v", c.text, len(key), err)
		}
	}
	if one, other := NewGossipKey(), NewGossipKey(); one == other {
		t.Error("two keys are the same")
	}
}
