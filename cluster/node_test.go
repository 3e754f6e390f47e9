package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockd"
	"github.com/lockfs/lockfs/lockd/state"
	"github.com/lockfs/lockfs/lockd/state/statepb"
)

// lockd's host and this package fit each other.
var (
	_ lockd.Log = (*Node)(nil)
	_ Host      = (*lockd.Host)(nil)
)

// testHost records what a node tells its host.
type testHost struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every call
	changes  []state.Change
	view     *state.View
	index    uint64
	restored int
}

func newTestHost() *testHost { return &testHost{changed: make(chan struct{})} }

func (h *testHost) Applied(index uint64, changes []state.Change, view *state.View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.index, h.view = index, view
	h.changes = append(h.changes, changes...)
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *testHost) Restored(view *state.View) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.view = view
	h.restored++
	close(h.changed)
	h.changed = make(chan struct{})
}

// await waits until something holds of the host's view.
func (h *testHost) await(t testing.TB, what string, holds func(*state.View) bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		h.mu.Lock()
		view, changed := h.view, h.changed
		h.mu.Unlock()
		if view != nil && holds(view) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("never saw: %s", what)
		}
	}
}

func (h *testHost) now() *state.View {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.view
}

// quietly is a logger for tests, at debug level into the test's own log.
func quietly(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b))
	return len(b), nil
}

func testConfig(t testing.TB, dir string) Config {
	return Config{Dir: dir, Name: "alpha", Bind: "127.0.0.1:0", Logger: quietly(t)}
}

// start opens and starts a node and waits until it is ready.
func start(t testing.TB, c Config) (*Node, *testHost) {
	t.Helper()
	n, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	h := newTestHost()
	if err := n.Start(h); err != nil {
		n.Close()
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return n, h
}

func stop(t testing.TB, n *Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// propose proposes commands and waits for the outcome.
func propose(n *Node, cmds ...*statepb.Command) error {
	done := make(chan error, 1)
	n.Propose(state.Encode(cmds), func(err error) { done <- err })
	return <-done
}

// openSession opens a session that no test outlasts.
func openSession(host string, nonce uint64) *statepb.Command {
	return &statepb.Command{TimeUnixNs: 1, Op: &statepb.Command_OpenSession{OpenSession: &statepb.OpenSession{
		Host: host, Nonce: nonce, Version: "test", BootId: "boot", Ttl: int64(10 * time.Minute),
	}}}
}

func makeFile(session, seq uint64, name string) *statepb.Command {
	return &statepb.Command{Session: session, Seq: seq, TimeUnixNs: 1, Op: &statepb.Command_Make{Make: &statepb.Make{
		Parent: state.Root, Name: []byte(name), Perm: 0o644,
	}}}
}

// session opens a session and returns its id.
func session(t testing.TB, n *Node, h *testHost, nonce uint64) uint64 {
	t.Helper()
	if err := propose(n, openSession(n.Name(), nonce)); err != nil {
		t.Fatal(err)
	}
	var id uint64
	for s := range h.now().Sessions() {
		if s.Nonce == nonce {
			id = s.ID
		}
	}
	if id == 0 {
		t.Fatal("the session is not there")
	}
	return id
}

func TestProposeApplyReopen(t *testing.T) {
	dir := t.TempDir() + "/data"
	n, h := start(t, testConfig(t, dir))
	id := n.Identity()
	s := session(t, n, h, 7)
	if err := propose(n, makeFile(s, 1, "a"), makeFile(s, 2, "b")); err != nil {
		t.Fatal(err)
	}
	if h.now().Lookup(state.Root, "b") == nil {
		t.Fatal("b is not there when its proposal is done")
	}
	stop(t, n)
	if err := propose(n, makeFile(s, 3, "c")); !errors.Is(err, ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}

	n, h = start(t, testConfig(t, dir))
	if got := n.Identity(); got.Cluster != id.Cluster || got.Host != id.Host || !got.Founded {
		t.Fatalf("identity %+v, was %+v", got, id)
	}
	h.await(t, "both files", func(v *state.View) bool {
		return v.Lookup(state.Root, "a") != nil && v.Lookup(state.Root, "b") != nil
	})
}
