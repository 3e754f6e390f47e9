package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lockfs/lockfs/cluster/clusterpb"
	"github.com/lockfs/lockfs/cluster/wire"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// Admit answers a host that announces itself.
func (s *service) Admit(ctx context.Context, req *clusterpb.AdmitRequest) (*clusterpb.AdmitAnswer, error) {
	if from, _ := wire.PeerOf(ctx); from.Host != req.Host {
		return nil, status.Error(codes.PermissionDenied, "a host announces nobody but itself")
	}
	if s.node.Identity().Cluster == "" {
		return &clusterpb.AdmitAnswer{Error: refuse(clusterpb.ErrorKind_NOT_FOUNDED, "this host itself waits to be admitted")}, nil
	}
	return s.node.admit(ctx, req), nil
}

func refuse(kind clusterpb.ErrorKind, format string, args ...any) *clusterpb.Error {
	return &clusterpb.Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// admit does what is still to be done for a host to be a member as it says: it is put on the list, then into raft's configuration,
// always without a vote at first. That may be repeated at any time.
func (n *Node) admit(ctx context.Context, req *clusterpb.AdmitRequest) *clusterpb.AdmitAnswer {
	no := func(e *clusterpb.Error) *clusterpb.AdmitAnswer {
		l := n.leader()
		return &clusterpb.AdmitAnswer{Error: e, Leader: string(l.address), LeaderHost: string(l.id)}
	}
	if err := checkRequest(req); err != nil {
		return no(refuse(clusterpb.ErrorKind_INVALID, "%v", err))
	}
	if req.Commands != state.Version {
		return no(refuse(clusterpb.ErrorKind_VERSION, "its version of lockfs (%s) writes commands of version %d and the cluster's (%s) of "+
			"version %d; run a version on it that goes with the cluster's", req.Version, req.Commands, n.config.Version, state.Version))
	}
	done, err := n.alter(ctx)
	if err != nil {
		return no(toWire(err))
	}
	defer done()
	if e := n.mayAdmit(req); e != nil {
		return no(e)
	}
	h := state.Host{ID: req.Host, Name: req.Name, Address: req.Address, Gossip: req.Gossip, Version: req.Version, Durable: req.Durable}
	if err := n.list(ctx, h); err != nil {
		return no(toWire(err))
	}
	suffrage, err := n.place(raft.ServerID(req.Host), raft.ServerAddress(req.Address))
	if err != nil {
		return no(toWire(err))
	}
	a := &clusterpb.AdmitAnswer{Cluster: n.Identity().Cluster, Suffrage: clusterpb.Suffrage_NONVOTER, Index: n.stateIndex()}
	if suffrage == raft.Voter {
		a.Suffrage = clusterpb.Suffrage_VOTER
	}
	a.Durable = suffrage == raft.Voter || n.voters() < n.config.Voters
	l := n.leader()
	a.Leader, a.LeaderHost = string(l.address), string(l.id)
	return a
}

// alter begins a change of the members: there is one at a time, and only while this host leads. The caller ends it.
func (n *Node) alter(ctx context.Context) (done func(), err error) {
	if _, err := n.tenure(ctx); err != nil {
		return nil, fmt.Errorf("%w: this host is not the leader", ErrNoLeader)
	}
	select {
	case n.altering <- struct{}{}:
		return func() { <-n.altering }, nil
	case <-n.stop:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// mayAdmit says why a host is not to be a member.
func (n *Node) mayAdmit(req *clusterpb.AdmitRequest) *clusterpb.Error {
	view := n.view()
	_, listed := view.Host(req.Host)
	_, configured := n.configured(raft.ServerID(req.Host))
	if n.isRemoved(req.Host) || req.Cluster != "" && !listed && !configured {
		// Only the true leader knows: another one may have admitted it.
		if err := n.raft.VerifyLeader().Error(); err != nil {
			return toWire(fmt.Errorf("%w (%w)", ErrNoLeader, err))
		}
		return refuse(clusterpb.ErrorKind_REMOVED, "it left the cluster or was removed from it")
	}
	if h, taken := view.HostNamed(req.Name); taken && h.ID != req.Host {
		return refuse(clusterpb.ErrorKind_NAME_TAKEN, "the name %s is taken by another host, at %s: give this one another name with --name, or, if "+
			"that host is no more, remove it with `lockfs leave %s` on a host of the cluster", req.Name, h.Address, req.Name)
	}
	return nil
}

// list puts a host on the list of the state, or changes its entry. It returns when that is applied.
func (n *Node) list(ctx context.Context, h state.Host) error {
	was, listed := n.view().Host(h.ID)
	if listed && was == h {
		return nil
	}
	err := n.commit(ctx, &statepb.Command{Op: &statepb.Command_SetHost{SetHost: &statepb.SetHost{
		Id: h.ID, Name: h.Name, Address: h.Address, Gossip: h.Gossip, Version: h.Version, Durable: h.Durable,
	}}})
	if err != nil {
		return err
	}
	if is, there := n.view().Host(h.ID); !there || is != h {
		return fmt.Errorf("host %s cannot be put on the list of hosts: its name is taken, or the list is full", h.Name)
	}
	if listed && was.Address != h.Address {
		n.log.Info("a host has a new address", "host", h.Name, "was", was.Address, "address", h.Address)
	}
	return nil
}

// commit proposes a command of the leader's and waits until it is applied.
func (n *Node) commit(ctx context.Context, c *statepb.Command) error {
	done := make(chan error, 1)
	err := n.proposer.put(proposal{entry: state.Encode([]*statepb.Command{c}), here: true, done: func(err error) { done <- err }})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// place puts a host into raft's configuration, without a vote, if it is new there, and returns what it is. The address that
// raft is given never changes afterwards (raft reads it without its lock while it replicates): addresses knows better ones.
// raft wants no two hosts at one address, so one that comes where another was is given an address where nobody is.
func (n *Node) place(id raft.ServerID, at raft.ServerAddress) (raft.ServerSuffrage, error) {
	if now, there := n.configured(id); there {
		return now.Suffrage, nil
	}
	label := at
	if slices.ContainsFunc(n.book.configured(), func(s raft.Server) bool { return s.Address == at }) {
		label = nowhere(id)
	}
	if err := n.raft.AddNonvoter(id, label, 0, 0).Error(); err != nil {
		return 0, changeError(err)
	}
	n.log.Info("a host was admitted", "host", id, "address", at)
	return raft.Nonvoter, nil
}

// nowhere is an address that leads to no host.
func nowhere(id raft.ServerID) raft.ServerAddress {
	return raft.ServerAddress(string(id) + ".invalid:0")
}

// changeError makes raft's error one that is known on the wire.
func changeError(err error) error {
	if errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipLost) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return fmt.Errorf("%w (%w)", ErrNoLeader, err)
	}
	return err
}

// configured returns a host as it is in raft's configuration.
func (n *Node) configured(id raft.ServerID) (raft.Server, bool) {
	for _, s := range n.book.configured() {
		if s.ID == id {
			return s, true
		}
	}
	return raft.Server{}, false
}

// voters is how many hosts have a vote.
func (n *Node) voters() (count int) {
	for _, s := range n.book.configured() {
		if s.Suffrage == raft.Voter {
			count++
		}
	}
	return count
}

// view is the state as applied here.
func (n *Node) view() *state.View { return n.machine.view.Load() }

// What a host may say of itself.
const (
	maxHostName = 64
	maxHostID   = 64
	maxAddress  = 255
	maxVersion  = 64
)

// CheckName says what is wrong with a host's name: it stands in file names, listings and commands.
func CheckName(name string) error {
	letter := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	if name == "" || len(name) > maxHostName || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") ||
		strings.IndexFunc(name, func(r rune) bool { return !letter(r) }) >= 0 {
		return fmt.Errorf("%q is no name of a host: want 1 to %d letters, digits, - _ and dots, not beginning with - or a dot",
			name[:min(len(name), maxHostName)], maxHostName)
	}
	return nil
}

// checkAddress says what is wrong with an address that another host gave.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	number, numErr := strconv.ParseUint(port, 10, 16)
	odd := func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`@/\"'`, r) }
	if err != nil || numErr != nil || number == 0 || host == "" || len(address) > maxAddress || strings.IndexFunc(host, odd) >= 0 {
		return fmt.Errorf("%q is no address: want ADDR:PORT", address[:min(len(address), maxAddress)])
	}
	return nil
}

// checkRequest says what is wrong with a request.
func checkRequest(req *clusterpb.AdmitRequest) error {
	if err := CheckName(req.Name); err != nil {
		return err
	}
	if err := checkAddress(req.Address); err != nil {
		return err
	}
	if req.Gossip != "" {
		if err := checkAddress(req.Gossip); err != nil {
			return err
		}
	}
	if req.Host == "" || len(req.Host) > maxHostID || len(req.Version) > maxVersion || printable(req.Version) != req.Version {
		return errors.New("its id or version is malformed")
	}
	return nil
}
