package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockd/state"
)

// What a process that follows, and is to be killed, is told.
const (
	followDir     = "LOCKFS_TEST_FOLLOW_DIR"
	followCluster = "LOCKFS_TEST_FOLLOW_CLUSTER"
	followBind    = "LOCKFS_TEST_FOLLOW_BIND"
	followMode    = "LOCKFS_TEST_FOLLOW_MODE"
)

// The ways to follow.
const (
	plainly    = ""
	inMemory   = "memory"  // with its log in memory, from its first start on
	preparing  = "prepare" // takes the log to disk meanwhile
	installing = "install" // is killed when a snapshot of the leader's is there and the log not yet dropped
)

// follower is a node in a process of its own.
type follower struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	id   raft.ServerID
	bind string
	read sync.WaitGroup

	mu      sync.Mutex
	changed chan struct{}
	index   uint64 // applied
	digest  string
	durable bool   // it said so
	acked   uint64 // applied since it did
	at      raft.ServerAddress
}

// run starts it.
func (f *follower) run(leader *Node, mode string) {
	f.t.Helper()
	f.index, f.acked, f.at, f.changed = 0, 0, "", make(chan struct{})
	f.cmd = exec.Command(os.Args[0])
	f.cmd.Env = append(os.Environ(), followDir+"="+f.dir, followCluster+"="+leader.Identity().Cluster, followBind+"="+f.bind, followMode+"="+mode)
	f.cmd.Stderr = os.Stderr
	out, err := f.cmd.StdoutPipe()
	must(f.t, err)
	must(f.t, f.cmd.Start())
	f.read.Go(func() { f.hear(out) })
}

// hear reads what it says until it is dead.
func (f *follower) hear(out io.Reader) {
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return // a line that was cut off was not said
		}
		f.mu.Lock()
		var index uint64
		var digest string
		if n, _ := fmt.Sscanf(line, "applied %d %s", &index, &digest); n == 2 {
			f.index, f.digest = index, digest
			if f.durable {
				f.acked = index
			}
		}
		fmt.Sscanf(line, "at %s %s", &f.id, &f.at)
		if line == "durable\n" {
			f.durable = true
		}
		close(f.changed)
		f.changed = make(chan struct{})
		f.mu.Unlock()
	}
}

// await waits until something holds of what it said.
func (f *follower) await(what string, holds func() bool) {
	f.t.Helper()
	late := time.After(60 * time.Second)
	for {
		f.mu.Lock()
		done, changed := holds(), f.changed
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-late:
			f.t.Fatalf("never: %s", what)
		}
	}
}

// join makes it a member that has no vote.
func (f *follower) join(leader *Node) {
	f.t.Helper()
	f.await("its address", func() bool { return f.at != "" })
	f.bind = string(f.at)
	must(f.t, leader.raft.AddNonvoter(f.id, f.at, 0, 0).Error())
}

// kill kills it if it is not dead yet, and says what it left.
func (f *follower) kill() *contents {
	f.t.Helper()
	f.cmd.Process.Kill()
	f.read.Wait()
	f.cmd.Wait()
	if f.cmd.ProcessState.Exited() {
		f.t.Fatalf("it ended by itself: %v", f.cmd.ProcessState)
	}
	was, err := verify(f.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.durable && was.inMemory() {
		f.t.Fatal("its log was on disk and is in memory again")
	}
	have := was.last
	if was.snapshot != nil {
		have = max(have, was.snapshot.Index)
	}
	if f.acked > have {
		f.t.Fatalf("entry %d was applied and is gone: there is %d", f.acked, have)
	}
	return was
}

// killedHost says what is applied.
type killedHost struct {
	mode     string
	restored int
}

func (h *killedHost) Applied(index uint64, _ []state.Change, view *state.View) { h.say(view) }

func (h *killedHost) Restored(view *state.View) {
	if h.restored++; h.restored == 2 && h.mode == installing { // the first is from this disk
		unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
	h.say(view)
}

func (h *killedHost) say(view *state.View) {
	os.Stdout.WriteString(fmt.Sprintf("applied %d %x\n", view.Index(), view.Digest()))
}

// follow is what the process does.
func follow(dir string) {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "follow:", err)
			os.Exit(1)
		}
	}
	c := killConfig(dir)
	c.Name, c.Bind, c.joins, c.limits = "beta", os.Getenv(followBind), os.Getenv(followCluster), tinyLog
	mode := os.Getenv(followMode)
	n, err := Open(c)
	check(err)
	if mode == inMemory {
		check(n.keepInMemory())
	}
	check(n.Start(&killedHost{mode: mode}))
	os.Stdout.WriteString(fmt.Sprintf("at %s %s\n", n.id(), n.trans.LocalAddr()))
	if mode == preparing {
		for n.prepare(context.Background()) != nil {
			time.Sleep(time.Millisecond)
		}
		os.Stdout.WriteString("durable\n")
	}
	<-n.failed
	check(n.Err())
}

// crashLeader is the only voter of a cluster whose hosts without a vote are killed.
func crashLeader(t *testing.T) (n *Node, write func(entries int) error) {
	t.Helper()
	c := testConfig(t, filepath.Join(t.TempDir(), "data"))
	c.Bind, c.Voters, c.limits = "127.0.12.4:0", 1, tinyLog
	n, h := start(t, c)
	s := session(t, n, h, 1)
	must(t, propose(n, makeFile(s, 1, "f")))
	ino, seq := h.now().Lookup(state.Root, "f").Ino, uint64(1)
	return n, func(entries int) error {
		for range entries {
			seq++
			if err := propose(n, setValue(s, seq, ino, []byte(strings.Repeat(fmt.Sprint(seq), 1000)))); err != nil {
				return err
			}
		}
		return nil
	}
}

// follows waits until a follower has all that the leader has.
func (f *follower) follows(leader *Node) {
	f.t.Helper()
	must(f.t, leader.raft.Barrier(0).Error())
	view := leader.view()
	f.await("the newest entry", func() bool { return f.index >= view.Index() })
	f.mu.Lock()
	defer f.mu.Unlock()
	if digest := fmt.Sprintf("%x", view.Digest()); f.index == view.Index() && f.digest != digest {
		f.t.Fatal("its state is another one")
	}
}

// TestKilledAfterInstall kills a process when the leader's snapshot is on its disk and the log before it is, too. That is
// told from a log that lost its end.
func TestKilledAfterInstall(t *testing.T) {
	leader, write := crashLeader(t)
	f := &follower{t: t, dir: filepath.Join(t.TempDir(), "data"), bind: "127.0.12.5:0"}
	f.run(leader, plainly)
	f.join(leader)
	must(t, write(30))
	f.follows(leader)
	before := f.kill()
	must(t, write(200))
	must(t, leader.Snapshot())
	f.run(leader, installing)
	f.read.Wait()
	was := f.kill()
	if !was.obsolete || was.snapshot == nil || was.snapshot.Index <= before.last {
		t.Fatalf("the case is another one: obsolete %v, snapshot %+v, the log ended with %d", was.obsolete, was.snapshot, before.last)
	}
	// Without the mark it is what a lost end looks like.
	damaged := filepath.Join(t.TempDir(), "data")
	copyDir(t, f.dir, damaged)
	s, err := openStore(filepath.Join(damaged, storeName))
	must(t, err)
	must(t, s.delete(bucketLog, keyInstalled))
	must(t, s.Close())
	c := killConfig(damaged)
	refused(t, c, "the end of the log is missing")

	f.run(leader, plainly)
	must(t, write(3))
	f.follows(leader)
	if was := f.kill(); was.obsolete {
		t.Error("the log that was replaced is still there")
	}
	f.run(leader, plainly)
	f.follows(leader)
	f.kill()
}

// TestKilledFollower kills a process that follows at random moments, many times: while it gets entries and snapshots, with its
// log in memory, while that goes to disk, and after. What it leaves is always in order, and what it once had on disk stays.
func TestKilledFollower(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	leader, write := crashLeader(t)
	var f *follower
	prepared, obsolete, inMem := 0, 0, 0
	had := uint64(0)
	for round := range rounds {
		if f != nil {
			had = f.index
		}
		if round%10 == 0 { // another host
			had = 0
			f = &follower{t: t, dir: filepath.Join(t.TempDir(), "data"), bind: fmt.Sprintf("127.0.12.%d:0", 6+round/10)}
			f.run(leader, inMemory)
			f.join(leader)
		} else {
			mode := plainly
			if round%10 > 3 {
				mode = preparing
			}
			f.run(leader, mode)
		}
		stop, writing := make(chan struct{}), sync.WaitGroup{}
		writing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := write(1); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
		if rnd.IntN(3) > 0 { // else it is killed while it starts
			f.await("that something is applied", func() bool { return f.index > had })
		}
		time.Sleep(time.Duration(rnd.IntN(60)) * time.Millisecond)
		was := f.kill()
		close(stop)
		writing.Wait()
		if was.inMemory() {
			inMem++
		}
		if f.durable {
			prepared++
		}
		if was.obsolete {
			obsolete++
		}
	}
	t.Logf("%d kills: %d with the log in memory, %d after it went to disk, %d between a snapshot and the log", rounds, inMem, prepared, obsolete)
	f.run(leader, preparing)
	f.await("durable", func() bool { return f.durable })
	f.follows(leader)
	f.kill()
}
