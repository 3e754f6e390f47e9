package cluster

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// killDir names the data directory to a process that is to be killed.
const killDir = "LOCKFS_TEST_KILL_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDir); dir != "" {
		hammer(dir)
		os.Exit(1)
	}
	if dir := os.Getenv(followDir); dir != "" {
		follow(dir)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// killConfig makes segments and snapshots so often that many kills fall into the making of one.
func killConfig(dir string) Config {
	return Config{
		Dir: dir, Name: "alpha", Bind: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		limits: logLimits{entries: 300, bytes: 1 << 40, trailing: 40, trailingBytes: 1 << 30, segment: 32 << 10},
	}
}

// hammer makes files without end and writes the name of each to stdout once its proposal is done. Names go on from
// what is there.
func hammer(dir string) {
	check := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "hammer:", err)
			os.Exit(1)
		}
	}
	n, err := Open(killConfig(dir))
	check(err)
	h := newTestHost()
	check(n.Start(h))
	<-n.ready
	nodes, _ := h.now().Counts()
	nonce := uint64(os.Getpid())
	check(propose(n, openSession("alpha", nonce)))
	var s uint64
	for x := range h.now().Sessions() {
		if x.Nonce == nonce {
			s = x.ID
		}
	}
	slots := make(chan struct{}, 16)
	for seq := uint64(1); ; seq++ {
		slots <- struct{}{}
		name := fmt.Sprintf("f%d", nodes+seq)
		cmds := []*statepb.Command{makeFile(s, seq, name)}
		n.Propose(state.Encode(cmds), func(err error) {
			check(err)
			os.Stdout.WriteString(name + "\n")
			<-slots
		})
	}
}

// TestKill kills a process that makes files at random moments, many times over, and wants every file back that it said
// was made, a data directory that passes verification, and none of the files out of order.
func TestKill(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	dir := filepath.Join(t.TempDir(), "data")
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	total := 0
	for round := range rounds {
		acked := hammerAndKill(t, dir, time.Duration(rnd.IntN(120))*time.Millisecond)
		total += len(acked)
		if _, err := os.Stat(filepath.Join(dir, storeName)); err != nil && len(acked) == 0 {
			continue // killed before there was anything
		}
		if _, err := verify(dir); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		n, h := start(t, killConfig(dir))
		view := h.now()
		for _, name := range acked {
			if view.Lookup(state.Root, name) == nil {
				t.Fatalf("round %d: %s was made and is gone", round, name)
			}
		}
		count, last := 0, 0
		for f := range view.ReadDir(state.Root, "") {
			i, err := strconv.Atoi(strings.TrimPrefix(f.Name, "f"))
			if err != nil {
				t.Fatal(err)
			}
			count, last = count+1, max(last, i)
		}
		if count > 0 && last != count+1 { // the root counts too
			t.Fatalf("round %d: %d files, the last is f%d", round, count, last)
		}
		stop(t, n)
	}
	t.Logf("%d files over %d kills", total, rounds)
	if total == 0 {
		t.Fatal("nothing was ever made")
	}
}

// hammerAndKill runs a hammer for so long after its first file and returns the names that it wrote.
func hammerAndKill(t *testing.T, dir string, after time.Duration) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var timer *time.Timer
	early := time.AfterFunc(after, func() { // some are killed while they start
		if after < 15*time.Millisecond {
			cmd.Process.Kill()
		}
	})
	defer early.Stop()
	var names []string
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // a name that was cut off was not said
		}
		names = append(names, strings.TrimSuffix(line, "\n"))
		if timer == nil {
			timer = time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
	}
	cmd.Wait()
	if cmd.ProcessState.Exited() {
		t.Fatalf("it ended by itself: %v", cmd.ProcessState)
	}
	return names
}
