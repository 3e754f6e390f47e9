package cluster

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"time"
)

// Config says how a host takes part in its cluster. Its zero value, but for Dir, is a cluster of one on loopback.
type Config struct {
	// Dir is the data directory. It is made if it is missing.
	Dir string
	// Name is the host's name in the cluster. Empty: the one it had, at first the machine's.
	Name string
	// Bind is the TCP address to listen on. Empty: DefaultBind.
	Bind string
	// Advertise is the address that other hosts reach Bind under. Empty: the same.
	Advertise string
	// TLS, if not nil, is used for every connection between hosts: see wire.Config.
	TLS *tls.Config
	// Gossip is the address, UDP and TCP, that serf listens on; port 0: any that is free. Other hosts reach it under the
	// host of Advertise. Empty: this host takes no part in gossip.
	Gossip string
	// GossipKey encrypts gossip: 16, 24 or 32 bytes, the same on all hosts. nil: it is not encrypted.
	GossipKey []byte
	// Join are gossip addresses of other hosts. A host with any never founds a cluster by itself: it waits to be
	// admitted to one, or for RequestInit.
	Join []string
	// Voters is how many voters the cluster is to have, odd; the same on all hosts. 0: 5.
	Voters int
	// Reset moves what the data directory holds aside, to Dir/old-TIME, and starts as a new host.
	Reset bool
	// Version is the program's, for listings.
	Version string
	// OpTimeout is how long a proposal waits for a leader before it fails with ErrNoLeader. 0: 5 s.
	OpTimeout time.Duration
	// Logger gets what is worth telling. nil: slog.Default().
	Logger *slog.Logger

	limits     logLimits                  // zero: defaultLogLimits
	openIn     func([]Mount) (Use, error) // nil: inUse
	goneAfter  time.Duration              // 0: goneAfter
	miss, calm time.Duration              // 0: missTimeout, calmTimeout
	fastGossip bool                       // failures are found at once

	bootID string // empty: BootID
	fault  func(op, name string) error

	joins   string                                                      // a new directory is a member's of this cluster, which knows of it
	dial    func(ctx context.Context, address string) (net.Conn, error) // see wire.Config
	noHints bool
}

// logLimits bound what the log takes of the disk and of a start.
type logLimits struct {
	entries       uint64 // a snapshot is taken after so many
	bytes         int64  // or after so many bytes of them, or the size of the last snapshot if that is more
	trailing      uint64 // entries kept before a snapshot, for followers that lag
	trailingBytes int64

	// segment is where the log goes on in the next file. A file is allocated whole, so that an append needs no room; the
	// last batch may go past it.
	segment int64
}

var defaultLogLimits = logLimits{entries: 32 << 10, bytes: 16 << 20, trailing: 4096, trailingBytes: 8 << 20, segment: 4 << 20}

const (
	maxAppend        = 128 // entries in one append to the log and one message to a follower
	cachedEntries    = 256 // for followers that are a little behind
	transportTimeout = 3 * time.Second
	transportPool    = 3
)

// entryOverhead is about what an entry takes in the log beside its data.
const entryOverhead = 48

// housekeeping is how often the reserve is looked after.
const housekeeping = 10 * time.Second

func (c Config) withDefaults() Config {
	if c.Bind == "" {
		c.Bind = DefaultBind
	}
	if c.Voters == 0 {
		c.Voters = 5
	}
	if c.goneAfter == 0 {
		c.goneAfter = goneAfter
	}
	if c.miss == 0 {
		c.miss, c.calm = missTimeout, calmTimeout
	}
	if c.OpTimeout == 0 {
		c.OpTimeout = 5 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.limits == (logLimits{}) {
		c.limits = defaultLogLimits
	}
	if c.openIn == nil {
		c.openIn = inUse
	}
	if c.bootID == "" {
		c.bootID, _ = BootID()
	}
	return c
}

// name is the host's name: as asked for, else as it was, else the machine's.
func (c Config) name(was string) string {
	if c.Name != "" {
		return c.Name
	}
	if was != "" {
		return was
	}
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}
