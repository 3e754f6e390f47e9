package daemon

import (
	"net"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/lockfs/lockfs/cmd/cert"
	"github.com/lockfs/lockfs/cmd/exit"
)

// Network is how a host meets the others.
type Network struct {
	Bind      string // raft and forwarding
	Advertise string // the address of Bind for others; empty: the same
	Gossip    string // serf
	Join      []string
	Voters    int
	Reset     bool

	TLS           cert.Files
	GossipKeyFile string
	Insecure      bool
}

// Ports that are taken where none is named.
const (
	bindPort   = "7420"
	gossipPort = "7421"
)

func (n *Network) register(f *pflag.FlagSet) {
	f.StringVar(&n.Bind, "bind", "127.0.0.1:"+bindPort, "listen for other hosts on `ADDR:PORT`; port 0 takes a free one")
	f.StringVar(&n.Advertise, "advertise", "", "other hosts reach --bind as `ADDR:PORT` (default the same)")
	f.StringVar(&n.Gossip, "gossip", "", "find other hosts by gossip on `ADDR:PORT`, UDP and TCP (default the address of --bind, port "+gossipPort+")")
	f.StringSliceVar(&n.Join, "join", nil, "join the cluster of the hosts whose gossip addresses are `ADDR[:PORT],...`; never start one")
	f.IntVar(&n.Voters, "voters", 5, "let `N` hosts vote, odd; the same on all hosts")
	f.StringVar(&n.TLS.CA, "tls-ca", "", "trust hosts with certificates of the CA in `FILE`; lockfs cert makes these three")
	f.StringVar(&n.TLS.Cert, "tls-cert", "", "show others the certificate in `FILE`")
	f.StringVar(&n.TLS.Key, "tls-key", "", "whose key is in `FILE`")
	f.StringVar(&n.GossipKeyFile, "gossip-key-file", "", "encrypt gossip with the key in `FILE`; lockfs keygen makes it")
	f.BoolVar(&n.Insecure, "insecure", false, "let everybody in the network of --bind and --gossip read and forge what hosts say")
	f.BoolVar(&n.Reset, "reset", false, "move the old data aside and start as a new host, to join (on the command line only)")
}

// loopback says whether an address is reached from this machine alone.
func loopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// everywhere says whether an address is that of no host, but of all of this host's interfaces.
func everywhere(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// checkAddress says what is wrong with ADDR:PORT; "" if nothing is.
func checkAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil || net.ParseIP(host) == nil && strings.ContainsAny(host, "/ \t\n%") {
		return "want ADDR:PORT"
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "want ADDR:PORT with a port up to 65535"
	}
	return ""
}

// completeNetwork checks the addresses, and that nothing is open to the network that should not be.
func (o *Options) completeNetwork() error {
	n := &o.Network
	if n.Gossip == "" && checkAddress(n.Bind) == "" {
		host, port, _ := net.SplitHostPort(n.Bind)
		if port != "0" {
			port = gossipPort
		}
		n.Gossip = net.JoinHostPort(host, port)
	}
	for _, a := range []struct{ flag, value string }{{"bind", n.Bind}, {"gossip", n.Gossip}, {"advertise", n.Advertise}} {
		if a.value == "" && a.flag == "advertise" {
			continue
		}
		if what := checkAddress(a.value); what != "" {
			return o.bad(a.flag, a.value, "%s", what)
		}
	}
	switch {
	case n.Advertise == "" && everywhere(n.Bind):
		return o.bad("bind", n.Bind, "other hosts cannot reach this host under it: name an address that they can with --advertise ADDR:PORT")
	case n.Advertise != "" && everywhere(n.Advertise):
		return o.bad("advertise", n.Advertise, "other hosts cannot reach this host under it: name an address that they can")
	case n.Advertise != "" && strings.HasSuffix(n.Advertise, ":0"):
		return o.bad("advertise", n.Advertise, "name the port that others reach --bind under")
	case n.Voters%2 == 0:
		return o.bad("voters", strconv.Itoa(n.Voters), "want an odd number: an even one outlives no more failures than the odd one below it")
	}
	if err := o.completeJoin(); err != nil {
		return err
	}
	return o.checkSecure()
}

// completeJoin gives each address of --join its port.
func (o *Options) completeJoin() error {
	for i, a := range o.Join {
		address := strings.TrimSpace(a)
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(strings.Trim(address, "[]"), gossipPort)
		}
		if checkAddress(address) != "" || everywhere(address) || strings.HasSuffix(address, ":0") {
			return o.bad("join", a, "want ADDR or ADDR:PORT, the --gossip of other hosts, separated by commas")
		}
		o.Join[i] = address
	}
	return nil
}

// checkSecure refuses a port that is open to the network and where everybody is believed.
func (o *Options) checkSecure() error {
	given, missing := 0, ""
	for _, f := range []struct{ flag, value string }{{"tls-ca", o.TLS.CA}, {"tls-cert", o.TLS.Cert}, {"tls-key", o.TLS.Key}} {
		if f.value != "" {
			given++
		} else {
			missing = "--" + f.flag
		}
	}
	if given != 0 && given != 3 {
		return exit.Usagef("mount", "%s is missing: --tls-ca, --tls-cert and --tls-key go together", missing)
	}
	if o.Insecure {
		return nil
	}
	const insecure = "make %s, or give --insecure if only trusted hosts are in that network"
	switch {
	case given == 0 && !loopback(o.Bind):
		return o.bad("bind", o.Bind, "it is no loopback address, and without TLS everybody who reaches it can take, break and read locks: "+
			insecure, "certificates with lockfs cert (--tls-ca, --tls-cert, --tls-key)")
	case o.GossipKeyFile == "" && !loopback(o.Gossip):
		return o.bad("gossip", o.Gossip, "it is no loopback address, and without a key everybody who reaches it is taken for a host: "+
			insecure, "a key with lockfs keygen (--gossip-key-file)")
	}
	return nil
}

// secrets reads the files that the settings name. source is nil without TLS.
func (d *daemon) secrets() (source *cert.Source, gossipKey []byte, err error) {
	o := d.o
	if o.GossipKeyFile != "" {
		if gossipKey, err = cert.ReadGossipKey(o.GossipKeyFile); err != nil {
			return nil, nil, unusable("--gossip-key-file", err)
		}
	}
	if o.TLS != (cert.Files{}) {
		host, err := o.dialed()
		if err != nil {
			return nil, nil, err
		}
		if source, err = cert.Load(o.TLS, host, d.log); err != nil {
			return nil, nil, unusable("TLS", err)
		}
	}
	if o.Insecure && (source == nil && !loopback(o.Bind) || gossipKey == nil && !loopback(o.Gossip)) {
		d.log.Warn("--insecure: everybody who reaches the ports of this host can take, break and read its locks", "bind", o.Bind,
			"gossip", o.Gossip)
	}
	return source, gossipKey, nil
}

// dialed is what others dial: the host of --advertise as it is given, else the IP address of --bind.
func (o *Options) dialed() (string, error) {
	if o.Advertise != "" {
		host, _, err := net.SplitHostPort(o.Advertise)
		return host, err
	}
	a, err := net.ResolveTCPAddr("tcp", o.Bind)
	if err != nil {
		return "", &exit.Error{Op: "mount", Path: o.Bind, What: err.Error(), Do: "name an address of this host", Code: exit.NoInput}
	}
	return a.IP.String(), nil
}

func unusable(what string, err error) error {
	return &exit.Error{Op: "mount", Path: what, What: err.Error(), Code: exit.NoInput}
}
