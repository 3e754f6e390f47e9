package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"
)

// Pair is a certificate and its key, in PEM.
type Pair struct{ Cert, Key []byte }

// Days is how long a certificate lasts.
type Days int

// How long certificates last unless told otherwise, and at most.
const (
	CADays   Days = 3650
	HostDays Days = 825
	MaxDays  Days = 36500
)

// skew is how far hosts' clocks may be behind the one that makes a certificate.
const skew = time.Hour

func (d Days) from(now time.Time) time.Time { return now.Add(time.Duration(d) * 24 * time.Hour) }

// NewCA makes the authority of a cluster: it signs the certificates of hosts and nothing else.
func NewCA(name string, days Days, now time.Time) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	c := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-skew), NotAfter: days.from(now),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	return sign(c, key, c, key)
}

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// ParseAuthority reads what NewCA made.
func ParseAuthority(p Pair) (*Authority, error) {
	certs, err := parseCerts(p.Cert)
	if err != nil {
		return nil, err
	}
	ca := certs[0]
	if !ca.IsCA {
		return nil, fmt.Errorf("it is no CA's certificate but that of %s", subject(ca))
	}
	block, _ := pem.Decode(p.Key)
	if block == nil {
		return nil, fmt.Errorf("the key is not in PEM")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is none of lockfs cert ca")
	}
	if !key.PublicKey.Equal(ca.PublicKey) {
		return nil, fmt.Errorf("certificate and key do not belong together")
	}
	return &Authority{ca, key}, nil
}

// Host makes the certificate of a host that others reach under these addresses, IP addresses or DNS names. It ends no later
// than the authority's own.
func (a *Authority) Host(name string, addresses []string, days Days, now time.Time) (Pair, error) {
	if now.After(a.cert.NotAfter) {
		return Pair{}, fmt.Errorf("the CA's certificate ended on %s", day(a.cert.NotAfter))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	end := days.from(now)
	if end.After(a.cert.NotAfter) {
		end = a.cert.NotAfter
	}
	c := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-skew), NotAfter: end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, address := range addresses {
		if ip := net.ParseIP(address); ip != nil {
			if ip.IsUnspecified() {
				return Pair{}, fmt.Errorf("others cannot reach a host under %s", address)
			}
			c.IPAddresses = append(c.IPAddresses, ip)
		} else if dnsName.MatchString(address) && len(address) <= 253 {
			c.DNSNames = append(c.DNSNames, address)
		} else {
			return Pair{}, fmt.Errorf("%q is neither an IP address nor a DNS name", address)
		}
	}
	return sign(c, key, a.cert, a.key)
}

var dnsName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)

// sign makes the certificate c of a key, signed by the parent's.
func sign(c *x509.Certificate, key *ecdsa.PrivateKey, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		return Pair{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}

// parseCerts reads all certificates of a PEM text, at least one.
func parseCerts(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("there is no certificate in it (in PEM: -----BEGIN CERTIFICATE-----)")
	}
	return certs, nil
}

// subject names a certificate for a person.
func subject(c *x509.Certificate) string {
	if c.Subject.CommonName != "" {
		return c.Subject.CommonName
	}
	return strings.Join(names(c), ", ")
}

// names are the addresses that a certificate is valid for.
func names(c *x509.Certificate) []string {
	var list []string
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	return append(list, c.DNSNames...)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
