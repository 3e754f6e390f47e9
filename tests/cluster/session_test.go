package cluster

import (
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// TestDaemonKilled kills the daemon of a host that holds a lock. Its programs may go on working until its lease ends, so
// nobody gets the lock before; at the end of its session another host does.
func TestDaemonKilled(t *testing.T) {
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: ttl})
	follower := c.Others(c.Leader())[0]
	d, other := c.Hosts[follower], c.Hosts[c.Leader()]
	holder, waiter := actor.Start(t, d.Lock), actor.Start(t, other.Lock)
	holder.Must("ok", "open f rdwr,creat a", "write f old", "fsync f", "write f lost")
	token := number(holder.Do("token f"))
	waiter.Begin("open f rdwr,creat a")
	if got, waits := waiter.Waits(); !waits {
		t.Fatal(got)
	}
	until := lease(t, d)
	d.Kill()
	granted(t, waiter, until)
	waiter.Must(`"old"`, "pread f 0 10")
	waiter.Must("0", "xattr a user.lockfs.valid")
	if now := number(waiter.Do("token f")); now <= token {
		t.Errorf("token %d after %d", now, token)
	}
	waiter.Must("ok", "pwrite f 0 new", "close f")

	t.Run("comes back", func(t *testing.T) {
		d.Start()
		c.Settle()
		holder.Must("ENOTCONN", "pwrite f 0 x")
		back := actor.Start(t, d.Lock)
		back.Must("ok", "open f rdwr,creat a")
		back.Must(`"new"`, "pread f 0 10")
		back.Must("1", "xattr a user.lockfs.valid")
	})
}

// TestDaemonRestarts kills daemons and starts them again at once: while a program still has a file of the old mount open,
// its locks stand until the old session's end; with nobody there, or after a reboot, they are free at once.
func TestDaemonRestarts(t *testing.T) {
	const hour = "1h" // a session that nobody waits for
	c := harness.StartCluster(t, harness.ClusterOptions{TTL: ttl})
	follower := c.Others(c.Leader())[0]
	d, other := c.Hosts[follower], c.Hosts[c.Leader()]
	waiter := actor.Start(t, other.Lock)

	t.Run("in use", func(t *testing.T) {
		holder := actor.Start(t, d.Lock)
		holder.Must("ok", "open f rdwr,creat used")
		until := lease(t, d)
		d.Kill()
		d.Launch("--session-ttl", hour)
		waiter.Begin("open f rdwr,creat used")
		granted(t, waiter, until)
		d.Ready(limit)
		holder.Must("ENOTCONN", "pread f 0 1")
		waiter.Must("ok", "close f")
		holder.Kill()
	})
	if t.Failed() {
		return
	}

	free := func(t *testing.T, file, why string) {
		t.Helper()
		before := len(d.Log())
		d.Start("--session-ttl", hour, "--log-level", "debug")
		if strings.Contains(d.Log()[before:], "that this one may not look at") {
			t.Skip("NOT TESTED: somebody copied the mounts, and not all processes can be looked at")
		}
		if log := d.Log()[before:]; !strings.Contains(log, why) {
			t.Fatalf("the daemon does not say %q:\n%s", why, log)
		}
		becomes(t, waiter, "ok", "open f rdwr,nonblock,creat "+file)
		waiter.Must("0", "xattr "+file+" user.lockfs.valid")
		waiter.Must("ok", "close f")
	}
	t.Run("not in use", func(t *testing.T) {
		holder := actor.Start(t, d.Lock)
		holder.Must("ok", "open f rdwr,creat unused", "write f one", "fsync f")
		d.Kill()
		holder.Kill()
		free(t, "unused", "nobody has its mounts open")
	})
	t.Run("rebooted", func(t *testing.T) {
		holder := actor.Start(t, d.Lock)
		holder.Must("ok", "open f rdwr,creat booted", "write f one", "fsync f")
		d.Kill()
		otherBoot(t, d)
		free(t, "booted", "the machine was booted since")
		holder.Must("ENOTCONN", "pread f 0 1")
	})
}

// otherBoot changes the boot id that a daemon, which has ended, left in its data directory.
func otherBoot(t *testing.T, d *harness.Daemon) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(d.Dir, "data", "lockfs.db"), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("daemon"))
		var record map[string]any
		if err := json.Unmarshal(b.Get([]byte("mounts"))[4:], &record); err != nil {
			return err
		}
		record["boot_id"] = "another"
		text, err := json.Marshal(record)
		if err != nil {
			return err
		}
		sum := crc32.Checksum(append([]byte("daemon\x00mounts\x00"), text...), crc32.MakeTable(crc32.Castagnoli))
		return b.Put([]byte("mounts"), append(binary.LittleEndian.AppendUint32(nil, sum), text...))
	})
	if err != nil {
		t.Fatal(err)
	}
}
