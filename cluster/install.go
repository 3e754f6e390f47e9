package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/lockfs/lockfs/lockd/state"
)

// snapshotStore is raft's store of snapshots, on disk. One that comes from the leader (raft calls it installing) takes the place of
// the one that is there and of the log, and raft has no checksum for its way through the network; so nothing is
// touched before all of it is there and was read as a state.
type snapshotStore struct {
	*raft.FileSnapshotStore
	dir     string
	sending sending
	replace func(by installed) error // called just before an installed one takes its place
	room    func() error             // not nil: there is no room for more
	unknown func(error)              // an installed one is of a newer version
	stall   time.Duration            // for how long nothing may come of one from the leader before hangUp
	hangUp  func(why string)         // breaks the connections with the leader
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

func openSnapshots(dir string, log hclog.Logger) (*snapshotStore, error) {
	s, err := raft.NewFileSnapshotStoreWithLogger(dir, retainSnapshots, log)
	return &snapshotStore{FileSnapshotStore: s, dir: filepath.Join(dir, snapsName)}, err
}

// Create begins a snapshot.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration, membersIndex uint64,
	trans raft.Transport) (raft.SnapshotSink, error) {
	to, err := s.FileSnapshotStore.Create(version, index, term, members, membersIndex, trans)
	if err != nil {
		left, _ := filepath.Glob(filepath.Join(s.dir, fmt.Sprintf("%d-%d-*%s", term, index, tmpSuffix)))
		for _, path := range left {
			os.RemoveAll(path)
		}
		return nil, err
	}
	sink := &snapshotSink{SnapshotSink: to, store: s, is: installed{index, term}}
	if s.hangUp != nil {
		sink.stalled = time.AfterFunc(s.stall, func() { s.hangUp("nothing more comes of it") })
	}
	return sink, nil
}

// snapshotStall is how long raft waits for more of a snapshot from the leader; it does nothing else meanwhile, follows no other leader
// and gives no vote. A leader that is stopped or cut off in the middle would hold it up for as long as the connection lasts.
const snapshotStall = 5 * time.Second

// The bytes that a snapshot from the leader may have, and after how many of them the room is looked at.
const (
	maxInstalled = 16 << 30
	roomStep     = 1 << 20
)

// snapshotSink is a snapshot that is being written: the leader's, unless Persist makes it this host's own.
type snapshotSink struct {
	raft.SnapshotSink
	store *snapshotStore
	is    installed
	own   bool

	stalled *time.Timer // nil, or runs while more is to come
	size    int64
	asked   int64          // the size when there was room
	check   *io.PipeWriter // to who reads along; nil before the first byte
	verdict chan error     // 1: what that one says
}

func (s *snapshotSink) Write(b []byte) (int, error) {
	if !s.own {
		if s.stalled != nil {
			s.stalled.Reset(s.store.stall)
		}
		if err := s.look(b); err != nil {
			return 0, err
		}
	}
	return s.SnapshotSink.Write(b)
}

// mine makes it one that this host writes.
func (s *snapshotSink) mine() {
	s.own = true
	s.arrived()
}

// arrived says that nothing more is to come.
func (s *snapshotSink) arrived() {
	if s.stalled != nil {
		s.stalled.Stop()
	}
}

// look has bytes from the leader looked at.
func (s *snapshotSink) look(b []byte) error {
	s.size += int64(len(b))
	if s.size > maxInstalled {
		return fmt.Errorf("the leader's snapshot has more than %d bytes", maxInstalled)
	}
	if s.size-s.asked >= roomStep {
		if err := s.store.room(); err != nil {
			return err
		}
		s.asked = s.size
	}
	s.begin()
	_, err := s.check.Write(b)
	return err
}

// begin begins to read along.
func (s *snapshotSink) begin() {
	if s.check != nil {
		return
	}
	from, to := io.Pipe()
	s.check, s.verdict = to, make(chan error, 1)
	go func() {
		got, err := state.Read(from)
		if err == nil && got.View().Index() > s.is.Index {
			err = fmt.Errorf("it is of entry %d and should be of entry %d", got.View().Index(), s.is.Index)
		}
		if err != nil {
			err = fmt.Errorf("the leader's snapshot is refused: %w", err)
		}
		from.CloseWithError(err)
		s.verdict <- err
	}()
}

// Close puts the snapshot in its place. The leader's must be whole.
func (s *snapshotSink) Close() error {
	s.arrived()
	if !s.own {
		s.begin()
		s.check.Close()
		err := <-s.verdict
		if errors.Is(err, state.ErrUnknown) {
			s.store.unknown(err)
		}
		if err == nil {
			err = s.store.replace(s.is)
		}
		if err != nil {
			s.SnapshotSink.Cancel()
			s.remove()
			return err
		}
	}
	err := s.SnapshotSink.Close()
	if err != nil {
		s.remove()
	}
	return err
}

// Cancel drops what was written.
func (s *snapshotSink) Cancel() error {
	s.arrived()
	if s.check != nil {
		s.check.CloseWithError(io.ErrUnexpectedEOF)
		<-s.verdict
	}
	err := s.SnapshotSink.Cancel()
	s.remove()
	if !s.own && s.store.hangUp != nil {
		s.store.hangUp("it is not taken") // else raft would read all that is still to come
	}
	return err
}

// remove removes what raft leaves when the end cannot be written.
func (s *snapshotSink) remove() { os.RemoveAll(filepath.Join(s.store.dir, s.ID()+tmpSuffix)) }

// roomToInstall returns an error if the disk has no room for more of a snapshot.
func (n *Node) roomToInstall() error {
	have, err := free(n.config.Dir)
	if err == nil && have < n.config.limits.segment+n.reserve.missing()+roomStep {
		err = fmt.Errorf("%w: there is none for the leader's snapshot", ErrNoSpace)
	}
	return err
}

// replacedBy notes that a snapshot is about to take the log's place.
func (n *Node) replacedBy(by installed) error {
	n.journal.replacedBy(by)
	return n.store.putJSON(bucketLog, keyInstalled, by)
}

// hangUp breaks the connections with the leader, whose snapshot is not to go on.
func (n *Node) hangUp(why string) {
	l := n.leader()
	n.seldom.Warn("snapshot "+why, "the leader's snapshot is broken off", "leader", l.address, "reason", why)
	n.port.Drop(string(l.id))
}
