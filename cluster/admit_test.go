package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lockfs/lockfs/cluster/clusterpb"
	"github.com/lockfs/lockfs/lockd/state"
)

// client returns a connection to a host as another one has it.
func (h *gossiper) client(to *gossiper) clusterpb.ClusterClient {
	h.all.t.Helper()
	c, err := h.port.Connect(context.Background(), to.book.own)
	if err != nil {
		h.all.t.Fatal(err)
	}
	h.all.t.Cleanup(func() { c.Close() })
	return clusterpb.NewClusterClient(c)
}

func TestRequestsAreChecked(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start().ready()
	w := g.host("a", a).start() // waits, since its name is taken
	ask, ctx := w.client(a), testContext(t)
	for name, change := range map[string]func(*clusterpb.AdmitRequest){
		"no name":             func(r *clusterpb.AdmitRequest) { r.Name = "" },
		"control characters":  func(r *clusterpb.AdmitRequest) { r.Name = "w\x1b[2J" },
		"a path":              func(r *clusterpb.AdmitRequest) { r.Name = "../w" },
		"a long name":         func(r *clusterpb.AdmitRequest) { r.Name = strings.Repeat("w", 65) },
		"no address":          func(r *clusterpb.AdmitRequest) { r.Address = "" },
		"no port":             func(r *clusterpb.AdmitRequest) { r.Address = "10.0.0.1" },
		"port 0":              func(r *clusterpb.AdmitRequest) { r.Address = "10.0.0.1:0" },
		"a long address":      func(r *clusterpb.AdmitRequest) { r.Address = strings.Repeat("w", 300) + ":1" },
		"an odd address":      func(r *clusterpb.AdmitRequest) { r.Address = "x@10.0.0.1\n:1" },
		"an odd gossip":       func(r *clusterpb.AdmitRequest) { r.Gossip = "\x00:1" },
		"an odd version":      func(r *clusterpb.AdmitRequest) { r.Version = "1\n2" },
		"a version too long":  func(r *clusterpb.AdmitRequest) { r.Version = strings.Repeat("1", 65) },
		"a name not in ASCII": func(r *clusterpb.AdmitRequest) { r.Name = "w\u00ff" },
	} {
		r := w.request()
		r.Name = "w"
		change(r)
		if answer, err := ask.Admit(ctx, r); err != nil || answer.GetError().GetKind() != clusterpb.ErrorKind_INVALID {
			t.Errorf("%s: %v, %v", name, answer, err)
		}
	}
	r := w.request()
	r.Name, r.Host = "w", newID()
	if _, err := ask.Admit(ctx, r); status.Code(err) != codes.PermissionDenied {
		t.Error("a host announces another:", err)
	}
	for what, call := range map[string]func() error{
		"leave": func() error {
			_, err := ask.Leave(ctx, &clusterpb.LeaveRequest{Name: "a", Operator: true, Force: true})
			return err
		},
		"prepare": func() error { _, err := ask.Prepare(ctx, &clusterpb.PrepareRequest{Host: a.id()}); return err },
		"hosts":   func() error { _, err := ask.Hosts(ctx, &clusterpb.HostsRequest{}); return err },
	} {
		if err := call(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s by a host that is no member: %v", what, err)
		}
	}
	if answer, err := a.client(w).Admit(ctx, a.request()); err != nil || answer.GetError().GetKind() != clusterpb.ErrorKind_NOT_FOUNDED {
		t.Error("a host that waits admits another:", answer, err)
	}
	a.are("a:voter")
}

func TestAnotherVersion(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start().ready()
	w := g.host("a", a).start()
	r := w.request()
	r.Name, r.Commands = "w", state.Version+1
	answer, err := w.client(a).Admit(testContext(t), r)
	if err != nil || answer.GetError().GetKind() != clusterpb.ErrorKind_VERSION || !strings.Contains(answer.Error.Text, "version") {
		t.Fatal(answer, err)
	}
	if w.admitted(answer) {
		t.Error("admitted")
	}
	<-w.Failed()
	if text := w.Err().Error(); !strings.Contains(text, "does not admit this host") {
		t.Error(text)
	}
}

// A member asks for another to be removed in the name of that one.
func TestAHostLeavesForItselfOnly(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start().ready()
	b := g.host("b", a).start().ready()
	a.are("a:voter b:voter")
	answer, err := b.client(a).Leave(testContext(t), &clusterpb.LeaveRequest{Host: a.id()})
	if err != nil || answer.Error == nil {
		t.Error(answer, err)
	}
	answer, err = b.client(a).Leave(testContext(t), &clusterpb.LeaveRequest{Name: strings.Repeat("\x1b", 1<<16), Operator: true})
	if err != nil || answer.GetError().GetKind() != clusterpb.ErrorKind_UNKNOWN_HOST || len(answer.Error.Text) > 8192 {
		t.Error(answer.GetError().GetKind(), err)
	}
	a.are("a:voter b:voter")
}

// The leader admitted a host, and its answer was lost, or the host stopped before it had noted it.
func TestTheAnswerIsLost(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start().ready()
	w := g.host("a", a).start()
	eventually(t, "it knows a", func() bool { return len(w.heard()) == 1 })
	r := w.request()
	r.Name = "w"
	for range 2 {
		if answer, err := w.client(a).Admit(testContext(t), r); err != nil || answer.Error != nil {
			t.Fatal(answer, err)
		}
	}
	host := w.id()
	w.stop()
	if w.config.Join = nil; w.tryStart() == nil {
		t.Fatal("a host that was to join founds a cluster")
	}
	w.config.Join, w.config.Name = []string{a.config.Gossip}, "w"
	w.start().ready()
	if id := w.Identity(); id.Host != host || !id.Joined || id.Cluster != a.Identity().Cluster {
		t.Error(id)
	}
	a.are("a:voter w:voter")
}

// A host was admitted and noted it, and stopped before anything of the log came.
func TestAdmittedAndNothingCame(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start().ready()
	w := g.host("w", a)
	w.config.joins = a.Identity().Cluster
	n, err := Open(w.config)
	must(t, err)
	must(t, n.Close())
	if id := n.Identity(); !id.Joined || id.Founded {
		t.Fatal(id)
	}
	h := state.Host{ID: n.id(), Name: "w", Address: "127.0.11.11:9"}
	must(t, a.list(testContext(t), h))
	_, err = a.place(raft.ServerID(h.ID), raft.ServerAddress(h.Address))
	must(t, err)
	w.start().ready()
	if id := w.Identity(); id.Host != h.ID || !id.Founded {
		t.Error(id)
	}
	a.are("a:voter w:voter")
}

// A host has the cluster's id and the leader, sure to be it, does not know it: it was removed, perhaps long ago.
func TestRemovedLongAgo(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start().ready()
	w := g.host("w", a)
	w.config.joins = a.Identity().Cluster
	w.start()
	select {
	case <-w.Failed():
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if err := w.Err(); !errors.Is(err, ErrRemoved) {
		t.Error(err)
	}
	a.are("a:voter")
}

// RequestInit was cut off after each of its steps; the next start goes on, with the same cluster.
func TestFoundingIsCutOff(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a")
	a.config.Join = []string{"127.0.11.99:7421"}
	a.start()
	must(t, a.become(func(id *Identity) { id.Cluster = newID() }))
	cluster := a.Identity().Cluster
	must(t, os.WriteFile(filepath.Join(a.config.Dir, initName), nil, 0o600))
	a.crash()
	a.start().ready()
	if id := a.Identity(); id.Cluster != cluster || !id.Founded {
		t.Error(id)
	}
	a.stop()
	if _, err := os.Stat(filepath.Join(a.config.Dir, initName)); err == nil {
		t.Error("the request is still there")
	}
	a.start().ready()
	if id := a.Identity(); id.Cluster != cluster {
		t.Error(id)
	}
}

func TestResetIsCutOff(t *testing.T) {
	g := newGossipers(t)
	a := g.host("a").start().ready()
	was := a.Identity()
	a.stop()
	must(t, os.MkdirAll(filepath.Join(a.config.Dir, oldPrefix+"1"), 0o700))
	must(t, os.Rename(filepath.Join(a.config.Dir, logName), filepath.Join(a.config.Dir, oldPrefix+"1", logName)))
	if err := a.tryStart(); err == nil {
		t.Fatal("a directory of which a part was moved aside is used")
	}
	a.config.Reset = true
	a.start().ready()
	if id := a.Identity(); id.Host == was.Host || id.Cluster == was.Cluster {
		t.Error(id)
	}
	list, err := os.ReadDir(a.config.Dir)
	must(t, err)
	old := slices.DeleteFunc(list, func(e os.DirEntry) bool { return !isOld(e.Name()) })
	if len(old) != 2 {
		t.Error(old)
	}
	a.stop()
	a.start().ready() // what was moved aside is in nobody's way
}

func FuzzCheckAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1:7420", "[::1]:1", "host:65535", ":1", "a@b:1", "[fe80::1%eth0]:7420"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if checkAddress(s) == nil && (len(s) > maxAddress || strings.ContainsAny(s, "@\n\x00 ")) {
			t.Errorf("%q", s)
		}
	})
}
