package wire

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
)

// logged is a log that can be asked what is in it.
type logged struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), s)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// testPort is a port on loopback with its log.
type testPort struct {
	*Port
	log  *logged
	self atomic.Pointer[Identity]
}

func newPort(t testing.TB, self Identity, change ...func(*Config)) *testPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &testPort{log: &logged{}}
	p.self.Store(&self)
	c := Config{Listener: l, Self: func() Identity { return *p.self.Load() }, Logger: slog.New(slog.NewTextHandler(p.log, nil))}
	for _, f := range change {
		f(&c)
	}
	if p.Port, err = New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// echo serves both purposes: it sends back what it gets.
func (p *testPort) echo() *testPort {
	for _, purpose := range []Purpose{Raft, RPC} {
		l := p.Listen(purpose)
		p.work.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				p.work.Go(func() { io.Copy(c, c); c.Close() })
			}
		})
	}
	return p
}

func (p *testPort) at() string { return p.Addr().String() }

// dial dials and, if that worked, sees something come back.
func dial(t testing.TB, from, to *testPort, purpose Purpose) error {
	t.Helper()
	c, err := from.Dial(t.Context(), to.at(), purpose)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	const word = "hello"
	if _, err := io.WriteString(c, word); err != nil {
		t.Fatal(err)
	}
	var b [len(word)]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatal(err)
	}
	return nil
}

// eventually waits for something that another goroutine is about to do.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// noLeaks checks, after all else of the test, that every goroutine ended.
func noLeaks(t testing.TB) {
	ignore := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		err := goleak.Find(ignore) // which gives them less than half a second
		for end := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(end); {
			err = goleak.Find(ignore)
		}
		if err != nil {
			t.Error(err)
		}
	})
}

func TestConnections(t *testing.T) {
	noLeaks(t)
	authority := newCA(t)
	for _, test := range []struct {
		name string
		opt  func(*Config)
	}{{"plain", func(*Config) {}}, {"TLS", authority.with(t)}} {
		t.Run(test.name, func(t *testing.T) {
			a, b := newPort(t, Identity{"c", "a"}, test.opt), newPort(t, Identity{"c", "b"}, test.opt).echo()
			for _, purpose := range []Purpose{Raft, RPC} {
				if err := dial(t, a, b, purpose); err != nil {
					t.Error(purpose, err)
				}
			}
			c, err := a.Dial(t.Context(), b.at(), RPC)
			if err != nil {
				t.Fatal(err)
			}
			if c.Peer() != (Identity{"c", "b"}) {
				t.Errorf("peer %+v", c.Peer())
			}
			if got := a.log.String() + b.log.String(); got != "" {
				t.Errorf("logged: %s", got)
			}
			b.Drop("a")
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("the connection of a dropped host lives")
			}
			b.Close()
			if err := dial(t, a, b, RPC); err == nil {
				t.Error("a closed port answers")
			}
		})
	}
}

// TestRefusals wants the reason told to both sides.
func TestRefusals(t *testing.T) {
	noLeaks(t)
	member := Identity{"c1", "b"}
	for _, test := range []struct {
		name           string
		from, to       Identity
		purpose        Purpose
		code           Code
		dialer, taker  string // in the logs
		change         func(*Config)
		notServedThere bool
	}{
		{name: "member to member", from: Identity{"c1", "a"}, to: member, purpose: Raft},
		{name: "new host asks member", from: Identity{"", "a"}, to: member, purpose: RPC},
		{name: "member tells new host", from: Identity{"c1", "a"}, to: Identity{"", "b"}, purpose: RPC},
		{name: "two new hosts", from: Identity{"", "a"}, to: Identity{"", "b"}, purpose: RPC},
		{name: "another cluster", from: Identity{"c2", "a"}, to: member, purpose: RPC, code: OtherCluster,
			dialer: "it belongs to cluster c1 and this host to cluster c2", taker: "it belongs to cluster c2 and this host to cluster c1"},
		{name: "raft of another cluster", from: Identity{"c2", "a"}, to: member, purpose: Raft, code: OtherCluster,
			dialer: "never merge", taker: "never merge"},
		{name: "raft to a new host", from: Identity{"c1", "a"}, to: Identity{"", "b"}, purpose: Raft, code: Starting,
			dialer: "it is still starting"},
		{name: "the same host", from: Identity{"c1", "b"}, to: member, purpose: RPC, code: SameHost,
			dialer: "same host id", taker: "same host id"},
		{name: "removed", from: Identity{"c1", "a"}, to: member, purpose: Raft, code: Removed,
			dialer: "this host was removed from the cluster", taker: "it was removed from the cluster",
			change: func(c *Config) { c.Removed = func(host string) bool { return host == "a" } }},
		{name: "busy", from: Identity{"c1", "a"}, to: member, purpose: Raft, code: Busy,
			dialer: "it has too many connections", taker: "this host has too many connections",
			change: func(c *Config) { c.limits = limits{pending: 8, perAddr: 8, open: -1} }},
		{name: "starting", from: Identity{"c1", "a"}, to: member, purpose: Raft, code: Starting,
			dialer: "it is still starting", notServedThere: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			change := func(*Config) {}
			if test.change != nil {
				change = test.change
			}
			a, b := newPort(t, test.from), newPort(t, test.to, change)
			if !test.notServedThere {
				b.echo()
			}
			for range 3 {
				err := dial(t, a, b, test.purpose)
				if test.code == ok {
					if err != nil {
						t.Fatal(err)
					}
					continue
				}
				if !RefusedAs(err, test.code) || !strings.Contains(err.Error(), test.dialer) {
					t.Fatalf("error %v", err)
				}
			}
			if test.code == ok || test.code == Starting {
				return
			}
			eventually(t, "both logs have it, once: "+a.log.String()+b.log.String(), func() bool {
				return a.log.count(test.dialer) == 1 && b.log.count(test.taker) == 1
			})
			if a.log.count("\n") != 1 || b.log.count("\n") != 1 {
				t.Errorf("logged more:\n%s%s", a.log, b.log)
			}
		})
	}
	t.Run("raft of a new host", func(t *testing.T) {
		a, b := newPort(t, Identity{"", "a"}), newPort(t, member).echo()
		if err := dial(t, a, b, Raft); !RefusedAs(err, NoMember) {
			t.Error(err)
		}
	})
	t.Run("becomes a member", func(t *testing.T) {
		a, b := newPort(t, Identity{"", "a"}), newPort(t, member).echo()
		if err := dial(t, a, b, RPC); err != nil {
			t.Error(err)
		}
		a.self.Store(&Identity{"c1", "a"})
		if err := dial(t, a, b, Raft); err != nil {
			t.Error(err)
		}
	})
}

// TestImpostors dial what answers in other ways.
func TestImpostors(t *testing.T) {
	noLeaks(t)
	id := Identity{"c1", "b"}
	for _, test := range []struct {
		name   string
		answer string
		code   Code
	}{
		{"newer version", string(answer{version: Version + 1, code: OtherVersion, from: id, text: "too old"}.encode()), OtherVersion},
		{"newer version says yes", string(answer{version: Version + 1, from: id}.encode()), OtherVersion},
		{"unknown code", string(answer{version: Version, code: 200, from: id}.encode()), 200},
		{"yes from another cluster", string(answer{version: Version, from: Identity{"c2", "b"}}.encode()), OtherCluster},
		{"yes from nobody", string(answer{version: Version}.encode()), Malformed},
		{"yes from this host", string(answer{version: Version, from: Identity{"c1", "a"}}.encode()), SameHost},
		{"SSH", "SSH-2.0-OpenSSH_9.6\r\n", NotLockfs},
		{"too long", magic + "\x01\x00\xff\xff" + strings.Repeat("x", 1<<16), NotLockfs},
		{"malformed", magic + "\x01\x00\x00\x02\xff\xff", NotLockfs},
		{"closed", "", 0},
		{"cut off", magic + "\x01", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				readPreface(c)
				io.WriteString(c, test.answer)
				linger(c)
				c.Close()
			}()
			a := newPort(t, Identity{"c1", "a"})
			_, err = a.Dial(t.Context(), l.Addr().String(), Raft)
			if err == nil || test.code != 0 && !RefusedAs(err, test.code) {
				t.Errorf("error %v", err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r == 0 || r == '\n' || r == utf8.RuneError }) {
				t.Errorf("what was sent is in the error: %q", err)
			}
		})
	}
	t.Run("silent", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a := newPort(t, Identity{"c1", "a"})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := a.Dial(ctx, l.Addr().String(), Raft); err == nil || !strings.Contains(err.Error(), "no answer") {
			t.Error(err)
		}
	})
}

// ca is an authority for certificates.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newCA(t testing.TB) *ca {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a := &ca{key: key, pool: x509.NewCertPool()}
	a.cert, _ = x509.ParseCertificate(der)
	a.pool.AddCert(a.cert)
	return a
}

// issue returns a host's configuration. change may spoil the certificate.
func (a *ca) issue(t testing.TB, change func(*x509.Certificate)) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "host"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: a.pool}
}

func (a *ca) with(t testing.TB) func(*Config) {
	return func(c *Config) { c.TLS = a.issue(t, nil) }
}

func TestTLS(t *testing.T) {
	noLeaks(t)
	ours, theirs := newCA(t), newCA(t)
	set := func(tc *tls.Config) func(*Config) { return func(c *Config) { c.TLS = tc } }
	mixed := theirs.issue(t, nil) // a certificate of another CA, but trusts this one
	mixed.RootCAs = ours.pool
	for _, test := range []struct {
		name          string
		dials, takes  func(*Config)
		code          Code
		dialer, taker string
	}{
		{name: "good", dials: ours.with(t), takes: ours.with(t)},
		{"wrong CA", theirs.with(t), ours.with(t), Certificate,
			"its certificate is not accepted", "it does not accept this host's certificate"},
		{"dialer's certificate of the wrong CA", set(mixed), ours.with(t), Certificate,
			"it does not accept this host's certificate", "its certificate is not accepted"},
		{"expired", set(ours.issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), ours.with(t), Certificate,
			"it does not accept this host's certificate", "its certificate is not accepted"},
		{"no client's certificate", set(ours.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })), ours.with(t), Certificate,
			"it does not accept this host's certificate", "its certificate is not accepted"},
		{"for another address", ours.with(t), set(ours.issue(t, func(c *x509.Certificate) { c.IPAddresses = nil; c.DNSNames = []string{"elsewhere"} })), Certificate,
			"valid for its address", "it does not accept this host's certificate"},
		{"plain to TLS", func(*Config) {}, ours.with(t), NeedTLS, "it wants TLS and this host has none", "it has no TLS and this host wants it"},
		{"TLS to plain", ours.with(t), func(*Config) {}, NoTLS, "it has no TLS and this host wants it", "it wants TLS and this host has none"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := newPort(t, Identity{"c", "a"}, test.dials), newPort(t, Identity{"c", "b"}, test.takes).echo()
			err := dial(t, a, b, Raft)
			if test.code == ok {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !RefusedAs(err, test.code) || !strings.Contains(err.Error(), test.dialer) {
				t.Fatalf("error %v", err)
			}
			eventually(t, "both logs have it", func() bool { return a.log.count(test.dialer) == 1 && b.log.count(test.taker) == 1 })
			t.Logf("dialer:   %sacceptor: %s", a.log, b.log)
		})
	}
	t.Run("no certificate", func(t *testing.T) {
		b := newPort(t, Identity{"c", "b"}, ours.with(t)).echo()
		c, err := tls.Dial("tcp", b.at(), &tls.Config{RootCAs: ours.pool, NextProtos: []string{alpn}, ServerName: "127.0.0.1"})
		if err == nil {
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			t.Error("taken without a certificate")
		}
		eventually(t, "it is logged", func() bool { return b.log.count("didn't provide a certificate") == 1 })
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		b := newPort(t, Identity{"c", "b"}, ours.with(t)).echo()
		old := ours.issue(t, nil)
		old.MaxVersion, old.ServerName = tls.VersionTLS12, "127.0.0.1"
		if c, err := tls.Dial("tcp", b.at(), old); err == nil {
			c.Close()
			t.Error("taken with TLS 1.2")
		}
	})
	t.Run("no CA", func(t *testing.T) {
		if _, _, err := mutual(&tls.Config{}); err == nil {
			t.Error("the system's CAs would do")
		}
	})
}

// TestHostile sends what no host sends. Each is closed within the handshake's time, and the port goes on.
func TestHostile(t *testing.T) {
	noLeaks(t)
	b := newPort(t, Identity{"c", "b"}, func(c *Config) { c.handshake = time.Second }).echo()
	good := string(preface{Version, Raft, Identity{"c", "a"}}.encode())
	for name, sent := range map[string]string{
		"nothing":        "",
		"HTTP":           "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"half":           good[:len(good)/2],
		"no host":        string(preface{Version, Raft, Identity{"c", ""}}.encode()),
		"control bytes":  string(preface{Version, Raft, Identity{"c\n", "a"}}.encode()),
		"other purpose":  string(preface{Version, 77, Identity{"c", "a"}}.encode()),
		"other version":  string(preface{Version + 9, Raft, Identity{"c", "a"}}.encode()),
		"long lengths":   magic + "\x01\x01\xff" + strings.Repeat("\xff", 255),
		"trailing bytes": magic + "\x01\x01\x05\x01c\x01ax",
		"zeros":          strings.Repeat("\x00", 1<<16),
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", b.at())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, sent)
			c.SetReadDeadline(time.Now().Add(30 * time.Second))
			got, err := io.ReadAll(c)
			if ne, is := err.(net.Error); is && ne.Timeout() {
				t.Fatal("it was not closed in time")
			}
			if a, err := readAnswer(strings.NewReader(string(got))); err == nil && a.code == ok {
				t.Errorf("it was taken: %+v", a)
			}
		})
	}
	if err := dial(t, newPort(t, Identity{"c", "a"}), b, Raft); err != nil {
		t.Error(err)
	}
}

// TestTooManyPending: whoever opens connections and says nothing gets no more than his share.
func TestTooManyPending(t *testing.T) {
	noLeaks(t)
	b := newPort(t, Identity{"c", "b"}, func(c *Config) {
		c.handshake = 2 * time.Second
		c.limits = limits{pending: 10, perAddr: 4, open: 10}
	}).echo()
	var silent []net.Conn
	for range 20 {
		c, err := net.Dial("tcp", b.at())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	eventually(t, "the rest is closed", func() bool { return b.log.count("too many") == 1 })
	b.mu.Lock()
	pending := len(b.pending)
	b.mu.Unlock()
	if pending > 4 {
		t.Errorf("%d are pending", pending)
	}
	// From another address it goes on at once.
	a := newPort(t, Identity{"c", "a"}, func(c *Config) {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext(ctx, "tcp", address)
		}
	})
	if err := dial(t, a, b, Raft); err != nil {
		t.Error(err)
	}
	for _, c := range silent {
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a silent connection got an answer")
		} else if ne, is := err.(net.Error); is && ne.Timeout() {
			t.Fatal("a silent connection was not closed")
		}
	}
	eventually(t, "nothing is counted any more", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.pending) == 0 && len(b.from) == 0
	})
}

// TestNobodyAccepts: a connection that is taken but not accepted does not stay for ever.
func TestNobodyAccepts(t *testing.T) {
	noLeaks(t)
	b := newPort(t, Identity{"c", "b"}, func(c *Config) { c.handshake = time.Second })
	b.Listen(Raft)
	a := newPort(t, Identity{"c", "a"})
	c, err := a.Dial(t.Context(), b.at(), Raft)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
}

func FuzzPreface(f *testing.F) {
	f.Add(preface{Version, Raft, Identity{"c", "a"}}.encode())
	f.Add(preface{Version, RPC, Identity{"", "a"}}.encode())
	f.Add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := strings.NewReader(string(b))
		p, err := readPreface(r)
		if err != nil {
			return
		}
		if p.version == Version {
			if err := p.from.check(); err != nil {
				t.Fatal(err)
			}
			if got := string(p.encode()); got != string(b[:len(b)-r.Len()]) {
				t.Fatalf("%q encodes as %q", b, got)
			}
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(answer{Version, ok, Identity{"c", "a"}, ""}.encode())
	f.Add(answer{Version, OtherCluster, Identity{"c", "a"}, "no"}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := readAnswer(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		if len(a.text) > maxText || clean(a.text) != a.text {
			t.Fatalf("text %q", a.text)
		}
		again, err := readAnswer(strings.NewReader(string(a.encode())))
		if err != nil || again != a {
			t.Fatalf("%+v is read back as %+v, %v", a, again, err)
		}
	})
}

// TestRaftWaitsForADaemon: a connection of raft's to a daemon that is not there yet is made when it is.
func TestRaftWaitsForADaemon(t *testing.T) {
	noLeaks(t)
	l, err := net.Listen("tcp", "127.0.12.40:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	refused, made := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	a := newPort(t, Identity{"c", "a"}, func(c *Config) {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
			if err != nil {
				once.Do(func() { close(refused) })
			}
			return conn, err
		}
	})
	go func() {
		c, err := a.StreamLayer().Dial(At("b", address), time.Minute)
		if err == nil {
			c.Close()
		}
		made <- err
	}()
	<-refused
	newPort(t, Identity{"c", "b"}, func(c *Config) {
		c.Listener.Close()
		if c.Listener, err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
	}).echo()
	select {
	case err := <-made:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it was never made")
	}
}
