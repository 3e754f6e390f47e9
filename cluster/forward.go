package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lockfs/lockfs/cluster/clusterpb"
)

// What may be under way to the leader from one host, and what goes in one message.
const (
	flightEntries  = 1024
	flightBytes    = 32 << 20
	messageEntries = 256
	messageBytes   = 1 << 20 // unless a single entry has more
)

// link is this host's stream to the leader. While there is one, the proposer's entries and the duty's renewals go there, in
// order. It takes no more from the proposer than may be under way. Outcomes come in order too. When the stream ends,
// whatever the reason, all that is not answered fails: it is not known whether it will be applied, and
// lockd sends it again.
type link struct {
	proposer *proposer
	duty     *duty
	wake     chan struct{} // 1: something to send, or room to send it

	mu       sync.Mutex // before the proposer's
	flight   []proposal // sent and not answered, in order
	bytes    int        // of flight
	answered uint64     // id of the last entry answered; that of flight[0] is the next
}

func newLink(p *proposer, d *duty) *link {
	return &link{proposer: p, duty: d, wake: make(chan struct{}, 1)}
}

func (l *link) kick() { token(l.wake) }

// run serves the stream, whose Accepted was received, until it ends.
func (l *link) run(stream clusterpb.Cluster_ForwardClient) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	if !l.proposer.lend(l) {
		return ErrNoLeader // this host leads, or stops
	}
	var sending sync.WaitGroup
	sending.Go(func() { cancel(l.send(ctx, stream)) })
	err := l.receive(stream)
	cancel(err)
	l.mu.Lock()
	rest := l.proposer.reclaim(l, len(l.flight) > 0)
	l.mu.Unlock()
	sending.Wait()
	l.fail(fmt.Errorf("%w: the stream to it ended (%w)", ErrNoLeader, err), rest)
	return err
}

// send sends what there is, until the context is done. The stream's flow control may hold it up.
func (l *link) send(ctx context.Context, stream clusterpb.Cluster_ForwardClient) error {
	for {
		in := l.next()
		if in == nil {
			select {
			case <-l.wake:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if err := stream.Send(in); err != nil {
			return err // receive gets the reason
		}
	}
}

// next returns the next message, nil if there is nothing to say or no room for it.
func (l *link) next() *clusterpb.ForwardIn {
	in := &clusterpb.ForwardIn{}
	for session, stamp := range l.duty.handOver() {
		in.Renewals = append(in.Renewals, &clusterpb.ForwardRenewal{Session: session, Stamp: stamp})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := min(flightEntries-len(l.flight), messageEntries)
	if entries > 0 && l.bytes < flightBytes {
		batch := l.proposer.takeFor(l, entries, messageBytes)
		id := l.answered + uint64(len(l.flight))
		list := make([]clusterpb.ForwardEntry, len(batch))
		for i, e := range batch {
			id++
			list[i].Id, list[i].Entry = id, e.entry
			in.Entries = append(in.Entries, &list[i])
			l.bytes += len(e.entry)
		}
		l.flight = append(l.flight, batch...)
	}
	if len(in.Entries)+len(in.Renewals) == 0 {
		return nil
	}
	return in
}

// receive handles the outcomes until the stream ends.
func (l *link) receive(stream clusterpb.Cluster_ForwardClient) error {
	for {
		out, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := l.outcomes(out); err != nil {
			return err
		}
	}
}

// outcomes reports what the leader says of some entries.
func (l *link) outcomes(out *clusterpb.ForwardOut) error {
	upTo := out.Answered
	l.mu.Lock()
	n := int64(upTo - l.answered)
	if n < 0 || n > int64(len(l.flight)) {
		l.mu.Unlock()
		return fmt.Errorf("the leader answers entry %d, and %d to %d are under way", upTo, l.answered+1, l.answered+uint64(len(l.flight)))
	}
	first := l.answered + 1
	done := l.flight[:n:n]
	l.flight = l.flight[n:]
	l.answered = upTo
	for _, e := range done {
		l.bytes -= len(e.entry)
	}
	l.mu.Unlock()
	l.kick()
	failed := out.Failed
	for i, e := range done {
		var err error
		if len(failed) > 0 && failed[0].Id == first+uint64(i) {
			err = fromWire(failed[0].Error)
			failed = failed[1:]
		}
		e.end(err)
	}
	return nil
}

// fail reports all that is not answered, and what waited behind it.
func (l *link) fail(err error, rest []proposal) {
	l.mu.Lock()
	all := append(l.flight, rest...)
	l.flight, l.bytes = nil, 0
	l.mu.Unlock()
	if l.proposer.isClosed() {
		err = ErrClosed
	}
	for _, e := range all {
		e.end(err)
	}
}

// kinds are the errors of a proposal that keep their kind on the wire.
var kinds = []struct {
	err  error
	kind clusterpb.ErrorKind
}{
	{ErrNoSpace, clusterpb.ErrorKind_NO_SPACE},
	{ErrTooMany, clusterpb.ErrorKind_TOO_MANY},
	{ErrTooBig, clusterpb.ErrorKind_TOO_BIG},
	{ErrNoLeader, clusterpb.ErrorKind_NOT_LEADER},
	{ErrAlive, clusterpb.ErrorKind_ALIVE},
	{ErrUnknown, clusterpb.ErrorKind_UNKNOWN_HOST},
	{ErrQuorum, clusterpb.ErrorKind_QUORUM},
	{ErrClosed, clusterpb.ErrorKind_NOT_LEADER}, // that host is stopping, not this one
}

// toWire makes an error one for the wire.
func toWire(err error) *clusterpb.Error {
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return &clusterpb.Error{Kind: k.kind, Text: err.Error()}
		}
	}
	return &clusterpb.Error{Kind: clusterpb.ErrorKind_OTHER, Text: err.Error()}
}

// fromWire makes an error of one from the wire.
func fromWire(e *clusterpb.Error) error {
	for _, k := range kinds {
		if e.GetKind() == k.kind {
			return fmt.Errorf("%w (the leader says: %s)", k.err, e.GetText())
		}
	}
	return fmt.Errorf("the leader says: %s", e.GetText())
}

// notNow says whether a stream ended because its other side is not the leader (any more), which is nothing to tell.
func notNow(err error) bool {
	return errors.Is(err, context.Canceled) || status.Code(err) == codes.FailedPrecondition || status.Code(err) == codes.Canceled
}
