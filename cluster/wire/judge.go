package wire

import "fmt"

// judge says whether a connection is wanted.
func (p *Port) judge(pre preface, self Identity) Code {
	same := pre.from.Cluster == self.Cluster
	switch {
	case pre.version != Version:
		return OtherVersion
	case pre.from.Host == self.Host:
		return SameHost
	case !same && pre.from.Cluster != "" && self.Cluster != "":
		return OtherCluster
	case pre.purpose == Raft && pre.from.Cluster == "":
		return NoMember
	case pre.purpose == Raft && self.Cluster == "": // the leader comes before its word that this host is admitted
		return Starting
	case same && self.Cluster != "" && p.config.Removed != nil && p.config.Removed(pre.from.Host):
		return Removed
	case !p.listener(pre.purpose).open.Load():
		return Starting
	}
	return ok
}

// reasons says why a connection is refused: to the dialer, for whom "it" is the acceptor, and in the acceptor's log, where
// "it" is the dialer.
func reasons(c Code, pre preface, self Identity) (dialer, acceptor string) {
	switch c {
	case Malformed:
		return "it cannot understand this host's preface", "it sent a malformed preface"
	case OtherVersion:
		const s = "it speaks version %d of the protocol and this host version %d: run versions of lockfs on both hosts that go together"
		return fmt.Sprintf(s, Version, pre.version), fmt.Sprintf(s, pre.version, Version)
	case SameHost:
		const s = "it has the same host id as this host: it is this very host, or one of the two data directories is a copy of the " +
			"other; remove the copy, and join with an empty --data-dir"
		return s, s
	case OtherCluster:
		const s = "it belongs to cluster %s and this host to cluster %s, and two clusters never merge: "
		return fmt.Sprintf(s+"to join that cluster start this host with --reset, else take that address out of its --join",
				self.Cluster, pre.from.Cluster),
			fmt.Sprintf(s+"to let it join this cluster start it with --reset, else take this host's address out of its --join",
				pre.from.Cluster, self.Cluster)
	case NoMember:
		return "this host is no member of a cluster yet", "it is no member of a cluster yet"
	case Removed:
		return "this host was removed from the cluster; to join again start it with --reset",
			"it was removed from the cluster; to let it join again start it with --reset"
	case NeedTLS:
		return "it wants TLS and this host has none: start this host with --tls-ca, --tls-cert and --tls-key",
			"it has no TLS and this host wants it: start it with --tls-ca, --tls-cert and --tls-key"
	case NoTLS:
		return "it has no TLS and this host wants it: start it with --tls-ca, --tls-cert and --tls-key",
			"it wants TLS and this host has none: start this host with --tls-ca, --tls-cert and --tls-key"
	case Busy:
		return "it has too many connections; again later", "this host has too many connections"
	case Starting:
		return "it is still starting", "this host is still starting"
	}
	return c.String(), c.String()
}
