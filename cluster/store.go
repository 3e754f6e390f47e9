package cluster

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"
)

// store is the file lockfs.db, a bbolt database of small values that are seldom written: who this host is, raft's
// term and vote, the list of the log's segments, and what a restart needs to know of this run. Every value has a
// checksum, because bbolt checks none.
type store struct {
	db *bbolt.DB
}

var _ raft.StableStore = (*store)(nil)

// The buckets of lockfs.db.
const (
	bucketIdentity = "identity" // keyIdentity
	bucketRaft     = "raft"     // raft's own keys
	bucketLog      = "log"      // keySegments, keyKept, keyInstalled
	bucketDaemon   = "daemon"   // keyMounts, keyPeers, keyStopped
)

var buckets = []string{bucketIdentity, bucketRaft, bucketLog, bucketDaemon}

// The keys that are not raft's; their values are JSON.
const (
	keyIdentity  = "identity"  // Identity
	keySegments  = "segments"  // types.PersistentState
	keyKept      = "kept"      // kept, once it was decided
	keyInstalled = "installed" // installed
	keyMounts    = "mounts"    // Record
	keyPeers     = "peers"     // []string: gossip addresses of the other hosts
	keyStopped   = "stopped"   // stopped, only after a clean stop
)

// keyCurrentTerm is raft's (api.go).
const keyCurrentTerm = "CurrentTerm"

// FormatVersion is that of the data directory as this program writes it. It reads no other yet.
const FormatVersion = 1

// Identity is what a data directory is: made with it and kept, but for Name. It says how far the host has come with its
// cluster, so that a crash in between neither founds a second one nor forgets a first.
type Identity struct {
	Format  int       `json:"format"`  // FormatVersion of the program that made the directory
	Cluster string    `json:"cluster"` // the cluster's id, made with the cluster; empty: none yet
	Host    string    `json:"host"`    // this host's id in raft
	Name    string    `json:"name"`    // this host's name, see Config.Name
	Created time.Time `json:"created"`
	Founded bool      `json:"founded"` // the first log entry is there
	Joined  bool      `json:"joined"`  // the host was admitted to the cluster, and did not found it
	Left    bool      `json:"left"`    // it left the cluster or was removed from it
}

// stopped is the mark of a clean stop: the log ended with this entry. A log that ends elsewhere was damaged since.
type stopped struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// kept is where the log is kept. Until it is said, it is on disk if there is any. Once it is on disk it stays there.
type kept struct {
	Memory bool `json:"memory"` // the log's files count for nothing
}

// installed names the newest snapshot that did not come of this host's own log but takes its place: the leader's, or an
// operator's. It is noted before that snapshot is there.
type installed struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// storeSize is allocated at once, many times what the values need, so that no vote and no change of segments
// ever waits for room on the disk.
const storeSize = 256 << 10

var errSum = errors.New("the value's checksum does not match it")

// newID returns a random id of 128 bits in hex.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// createStore makes lockfs.db whole or not at all. fill, which may be nil, puts further values into it.
func createStore(dir string, id Identity, fill func(*store) error) (err error) {
	path := filepath.Join(dir, storeName)
	tmp := path + tmpSuffix
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s, err := openStore(tmp)
	if err != nil {
		return err
	}
	err = s.db.Update(func(tx *bbolt.Tx) error {
		for _, b := range buckets {
			if _, err := tx.CreateBucket([]byte(b)); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = s.putJSON(bucketIdentity, keyIdentity, id)
	}
	if err == nil && fill != nil {
		err = fill(s)
	}
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	if err := extend(tmp, storeSize); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

func openStore(path string) (*store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoStatistics: true})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &store{db: db}, nil
}

func (s *store) Close() error { return s.db.Close() }

// seal returns a value with its checksum, which covers where it belongs too.
func seal(bucket, key string, value []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, sealSum(bucket, key, value)), value...)
}

// unseal returns the value that seal was given. It shares b's memory.
func unseal(bucket, key string, b []byte) ([]byte, error) {
	if len(b) < 4 || sealSum(bucket, key, b[4:]) != binary.LittleEndian.Uint32(b) {
		return nil, errSum
	}
	return b[4:], nil
}

func sealSum(bucket, key string, value []byte) uint32 {
	sum := crc32.Update(0, castagnoli, []byte(bucket+"\x00"+key+"\x00"))
	return crc32.Update(sum, castagnoli, value)
}

// get returns a copy of a value, nil if there is none.
func (s *store) get(bucket, key string) (value []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket)).Get([]byte(key))
		if b == nil {
			return nil
		}
		v, err := unseal(bucket, key, b)
		value = append([]byte{}, v...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s/%s: %w", bucket, key, err)
	}
	return value, nil
}

func (s *store) put(bucket, key string, value []byte) error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucket)).Put([]byte(key), seal(bucket, key, value))
	})
	if err != nil {
		return fmt.Errorf("write %s/%s: %w", bucket, key, err)
	}
	return nil
}

func (s *store) delete(bucket, key string) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Delete([]byte(key)) })
}

func (s *store) putJSON(bucket, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.put(bucket, key, b)
}

// Get, Set, GetUint64 and SetUint64 are raft's stable store. A key that is not there is nil or 0.
func (s *store) Get(key []byte) ([]byte, error) { return s.get(bucketRaft, string(key)) }

func (s *store) Set(key, value []byte) error { return s.put(bucketRaft, string(key), value) }

func (s *store) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("read %s: %d bytes are no number", key, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

func (s *store) SetUint64(key []byte, v uint64) error {
	return s.Set(key, binary.LittleEndian.AppendUint64(nil, v))
}

// segments returns the list of the log's segments; its zero value if the log was never opened.
func (s *store) segments() (types.PersistentState, error) {
	var list types.PersistentState
	b, err := s.get(bucketLog, keySegments)
	if err != nil || b == nil {
		return list, err
	}
	return list, json.Unmarshal(b, &list)
}
