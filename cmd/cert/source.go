package cert

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// Files are what a host shows and what it trusts, in PEM.
type Files struct {
	CA   string // the cluster's; several while one replaces the other
	Cert string // this host's, with what lies between it and the CA, if anything
	Key  string // of Cert
}

// soon is how long before its end a certificate is warned of, at most once in warnEvery.
const (
	soon      = 30 * 24 * time.Hour
	warnEvery = 24 * time.Hour
)

// Source is a host's certificate, as it is on disk.
type Source struct {
	files Files
	host  string // what others dial
	roots *x509.CertPool
	log   *slog.Logger
	now   func() time.Time

	mu     sync.Mutex
	cert   *tls.Certificate
	stamp  stamp // of the files that cert was read from, or that were refused since
	warned time.Time
}

// stamp tells one version of the two files from another.
type stamp [2]struct {
	at   time.Time
	size int64
}

// Load reads and verifies the files: the certificate must be of the CA, belong to the key, permit both uses, be valid now,
// and for host, which is what others dial. The key must be its owner's alone.
func Load(f Files, host string, log *slog.Logger) (*Source, error) {
	return load(f, host, log, time.Now)
}

func load(f Files, host string, log *slog.Logger, now func() time.Time) (*Source, error) {
	s := &Source{files: f, host: host, roots: x509.NewCertPool(), log: log, now: now}
	text, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, err
	}
	cas, err := parseCerts(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.CA, err)
	}
	for _, ca := range cas {
		if !ca.IsCA {
			return nil, fmt.Errorf("%s: the certificate of %s is no CA's; name the one that lockfs cert ca made", f.CA, subject(ca))
		}
		s.roots.AddCert(ca)
	}
	if s.stamp, err = s.look(); err != nil {
		return nil, err
	}
	if s.cert, err = s.read(); err != nil {
		return nil, err
	}
	s.warn()
	return s, nil
}

// TLS is for all connections between hosts.
func (s *Source) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: s.roots, ClientCAs: s.roots, Time: s.now,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.current(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.current(), nil },
	}
}

// Expires is when the present certificate ends.
func (s *Source) Expires() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cert.Leaf.NotAfter
}

// current is the certificate for a handshake: that on disk, or if that one is no good the last that was.
func (s *Source) current() *tls.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, err := s.look(); err == nil && now != s.stamp {
		s.stamp = now
		switch c, err := s.read(); {
		case err != nil:
			s.log.Warn("the new certificate is not used, the old one is", "err", err)
		default:
			s.cert, s.warned = c, time.Time{}
			s.log.Info("a new certificate is used", "file", s.files.Cert, "until", day(c.Leaf.NotAfter))
		}
	}
	s.warn()
	return s.cert
}

// look takes the stamp of the files.
func (s *Source) look() (st stamp, err error) {
	for i, name := range []string{s.files.Cert, s.files.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return st, err
		}
		st[i].at, st[i].size = info.ModTime(), info.Size()
	}
	return st, nil
}

// read reads the files and verifies them.
func (s *Source) read() (*tls.Certificate, error) {
	text, err := os.ReadFile(s.files.Cert)
	if err != nil {
		return nil, err
	}
	key, err := ReadSecret(s.files.Key)
	if err != nil {
		return nil, err
	}
	certs, err := parseCerts(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.files.Cert, err)
	}
	pair, err := tls.X509KeyPair(text, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %s; both must be of one lockfs cert host", s.files.Cert, s.files.Key,
			strings.TrimPrefix(err.Error(), "tls: "))
	}
	pair.Leaf = certs[0]
	if err := s.verify(certs); err != nil {
		return nil, fmt.Errorf("%s: %w", s.files.Cert, err)
	}
	return &pair, nil
}

// verify says what other hosts would have against a certificate.
func (s *Source) verify(certs []*x509.Certificate) error {
	leaf, now, between := certs[0], s.now(), x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate ended on %s; make a new one with lockfs cert host", day(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is valid from %s on; is this host's clock right?", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	for _, use := range []struct {
		name string
		use  x509.ExtKeyUsage
	}{{"server", x509.ExtKeyUsageServerAuth}, {"client", x509.ExtKeyUsageClientAuth}} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: s.roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use.use}})
		if err != nil {
			return fmt.Errorf("it is not accepted as a %s's certificate of the CA in %s: %s; make one with lockfs cert host", use.name,
				s.files.CA, strings.TrimPrefix(err.Error(), "x509: "))
		}
	}
	if err := leaf.VerifyHostname(s.host); err != nil {
		return fmt.Errorf("it is valid for %s, but others dial this host as %s; make one with lockfs cert host NAME --address %s",
			strings.Join(names(leaf), ", "), s.host, s.host)
	}
	return nil
}

// warn tells of an end that is near. mu is held, or nobody else has s.
func (s *Source) warn() {
	now, end := s.now(), s.cert.Leaf.NotAfter
	if end.Sub(now) > soon || now.Sub(s.warned) < warnEvery {
		return
	}
	s.warned = now
	s.log.Warn("this host's certificate ends soon: make a new one with lockfs cert host and put it in its place, no restart is needed",
		"file", s.files.Cert, "ends", day(end))
}

// ReadSecret reads a file that nobody but its owner may read.
func ReadSecret(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fmt.Errorf("it is no key's file")}
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so others may read the key; chmod 600 %s", name, perm, name)
	}
	text := make([]byte, info.Size())
	n, err := f.ReadAt(text, 0)
	if err != nil && n < len(text) {
		return nil, err
	}
	return text, nil
}
