package cluster

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lockfs/lockfs/cluster/clusterpb"
	"github.com/lockfs/lockfs/cluster/wire"
	"github.com/lockfs/lockfs/lockd/state"
)

// service answers other hosts.
type service struct {
	clusterpb.UnimplementedClusterServer
	node *Node
}

// serve starts answering other hosts' calls.
func (n *Node) serve() {
	n.rpc = n.port.NewServer()
	clusterpb.RegisterClusterServer(n.rpc, &service{node: n})
	l := n.port.Listen(wire.RPC)
	n.ended.Go(func() { n.rpc.Serve(l) })
}

// tenure is a time in which this host leads, from its barrier on.
type tenure struct {
	term uint64
	over chan struct{} // closed at its end
}

// tenureState is the present tenure.
type tenureState struct {
	mu      sync.Mutex
	now     *tenure       // nil: none
	changed chan struct{} // closed and replaced when now changed, or when there will be none
}

// set begins a tenure, or with nil ends it.
func (s *tenureState) set(t *tenure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		close(s.now.over)
	}
	s.now = t
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *tenureState) get() (*tenure, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.changed
}

var errNotLeading = status.Error(codes.FailedPrecondition, "this host is not the leader")

// tenure returns the present tenure. If raft has just made this host the leader it waits for the tenure to begin.
func (n *Node) tenure(ctx context.Context) (*tenure, error) {
	for {
		t, changed := n.tenureState.get()
		if t != nil {
			return t, nil
		}
		if n.raft.State() != raft.Leader {
			return nil, errNotLeading
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-n.stop:
			return nil, errNotLeading
		}
	}
}

// Forward takes a follower's proposals and renewals, for as long as this tenure lasts.
func (s *service) Forward(stream clusterpb.Cluster_ForwardServer) error {
	n := s.node
	if err := s.members(stream.Context()); err != nil {
		return err
	}
	t, err := n.tenure(stream.Context())
	if err != nil {
		return err
	}
	from, _ := wire.PeerOf(stream.Context())
	if _, is := n.configured(raft.ServerID(from.Host)); !is {
		return status.Error(codes.PermissionDenied, "the host is no member of the cluster")
	}
	err = stream.Send(&clusterpb.ForwardOut{Accepted: &clusterpb.Accepted{Term: t.term, Index: n.stateIndex(), Name: n.Name()}})
	if err != nil {
		return err
	}
	f := &forwarded{node: n, stream: stream, wake: make(chan struct{}, 1), slots: make(chan struct{}, flightEntries)}
	ended := make(chan error, 2)
	n.ended.Go(func() { ended <- f.receive(t) })
	n.ended.Go(func() { ended <- f.send() })
	select {
	case err := <-ended:
		return err
	case <-t.over:
	case <-n.stop:
	}
	return errNotLeading // and both goroutines end, since the stream does
}

// forwarded is a follower's stream on the leader. Its entries go the way of this host's own, but never wait for another
// leader.
type forwarded struct {
	node   *Node
	stream clusterpb.Cluster_ForwardServer
	wake   chan struct{} // 1: the first of list is answered
	slots  chan struct{} // flightEntries: one for each of list

	mu   sync.Mutex
	sent uint64  // id of the last entry whose answer was sent
	list []reply // to those after it
}

// reply is what came of an entry.
type reply struct {
	known bool
	err   *clusterpb.Error // nil: applied
}

// receive hands on what comes, until the stream ends or misbehaves.
func (f *forwarded) receive(t *tenure) error {
	id := uint64(0)
	for {
		in, err := f.stream.Recv()
		if err != nil {
			return err
		}
		for _, r := range in.Renewals {
			f.node.duty.renew(r.GetSession(), r.GetStamp())
		}
		for _, e := range in.Entries {
			if id++; e.GetId() != id {
				return status.Errorf(codes.InvalidArgument, "entry %d comes where %d should", e.GetId(), id)
			}
			select {
			case f.slots <- struct{}{}:
			case <-t.over:
				return errNotLeading
			case <-f.stream.Context().Done():
				return f.stream.Context().Err()
			}
			f.propose(id, e.GetEntry())
		}
	}
}

// propose hands on one entry.
func (f *forwarded) propose(id uint64, entry []byte) {
	f.mu.Lock()
	f.list = append(f.list, reply{})
	f.mu.Unlock()
	f.node.room.spend(len(entry))
	err := f.node.proposer.put(proposal{entry: entry, here: true, done: func(err error) { f.answer(id, err) }})
	if err != nil {
		f.answer(id, err)
		return
	}
	f.node.received.Add(1)
}

// answer notes what came of an entry.
func (f *forwarded) answer(id uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := id - f.sent - 1
	f.list[i].known = true
	if err != nil {
		f.list[i].err = toWire(err)
	}
	if i == 0 {
		token(f.wake)
	}
}

// send sends answers in order, as many as there are at a time.
func (f *forwarded) send() error {
	for {
		select {
		case <-f.wake:
		case <-f.stream.Context().Done():
			return f.stream.Context().Err()
		}
		if out := f.answers(); out != nil {
			if err := f.stream.Send(out); err != nil {
				return err
			}
		}
	}
}

// answers takes the answers that are there, nil if there are none.
func (f *forwarded) answers() *clusterpb.ForwardOut {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &clusterpb.ForwardOut{}
	for len(f.list) > 0 && f.list[0].known {
		f.sent++
		if err := f.list[0].err; err != nil {
			out.Failed = append(out.Failed, &clusterpb.ForwardFailure{Id: f.sent, Error: err})
		}
		f.list = f.list[1:]
		<-f.slots
	}
	if out.Answered = f.sent; len(f.list) == 0 {
		f.list = nil
	}
	return out
}

// Status tells how this host's part in its cluster stands.
func (s *service) Status(context.Context, *clusterpb.StatusRequest) (*clusterpb.StatusAnswer, error) {
	st := s.node.Status()
	_, id := s.node.raft.LeaderWithID()
	return &clusterpb.StatusAnswer{
		Cluster: st.Cluster, Host: st.Host, Name: st.Name, Address: st.Address, Role: st.Role, Term: st.Term,
		Leader: st.Leader, LeaderHost: string(id), Version: s.node.config.Version, Commands: state.Version, First: st.First, Last: st.Last, Committed: st.Committed, Applied: st.Applied,
		Durable: st.Durable,
	}, nil
}

// Prepare takes this host's log to disk, so that it may become a voter.
func (s *service) Prepare(ctx context.Context, req *clusterpb.PrepareRequest) (*clusterpb.PrepareAnswer, error) {
	if err := s.members(ctx); err != nil {
		return nil, err
	}
	if req.Host != s.node.id() {
		return &clusterpb.PrepareAnswer{Error: refuse(clusterpb.ErrorKind_UNKNOWN_HOST, "this is host %s", s.node.id())}, nil
	}
	if err := s.node.prepare(ctx); err != nil {
		return &clusterpb.PrepareAnswer{Error: toWire(err)}, nil
	}
	s.node.tell()
	return &clusterpb.PrepareAnswer{Durable: s.node.durable()}, nil
}

// members refuses who is no member of this host's cluster.
func (s *service) members(ctx context.Context) error {
	if from, _ := wire.PeerOf(ctx); from.Cluster == "" || from.Cluster != s.node.self().Cluster {
		return status.Error(codes.PermissionDenied, "this is for members of the cluster")
	}
	return nil
}

// Hosts lists the members.
func (s *service) Hosts(ctx context.Context, _ *clusterpb.HostsRequest) (*clusterpb.HostsAnswer, error) {
	if err := s.members(ctx); err != nil {
		return nil, err
	}
	a := &clusterpb.HostsAnswer{Leader: string(s.node.leader().address), Index: s.node.stateIndex()}
	suffrages := map[string]clusterpb.Suffrage{
		"leader": clusterpb.Suffrage_VOTER, "voter": clusterpb.Suffrage_VOTER, "nonvoter": clusterpb.Suffrage_NONVOTER,
	}
	for _, h := range s.node.Hosts() {
		a.Hosts = append(a.Hosts, &clusterpb.HostStatus{
			Host: h.ID, Name: h.Name, Address: h.Address, Suffrage: suffrages[h.Role], Leader: h.Role == "leader", Durable: h.Durable,
			Version: h.Version, Session: h.Session, State: string(h.State),
		})
	}
	return a, nil
}
