package gossip

import (
	"bytes"
	"errors"
	"log/slog"
	"syscall"
	"testing"
	"time"
)

func start(t *testing.T, ip string, self Member, key []byte, join ...*Gossip) *Gossip {
	t.Helper()
	g, err := Listen(Config{Bind: ip + ":0", Key: key, Logger: slog.New(slog.DiscardHandler), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close(false) })
	var at []string
	for _, j := range join {
		at = append(at, j.Addr())
	}
	if err := g.Start(self, func() []string { return at }); err != nil {
		t.Fatal(err)
	}
	return g
}

// eventually waits until a host knows of these others, by id and cluster.
func eventually(t *testing.T, g *Gossip, want map[string]string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := map[string]string{}
		for _, m := range g.Members() {
			if m.State == Alive {
				got[m.ID] = m.Cluster
			}
		}
		same := len(got) == len(want)
		for id, cluster := range want {
			same = same && got[id] == cluster
		}
		if same {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s knows %v, and should know %v", g.self.Load().ID, got, want)
		}
	}
}

func TestWhatOthersKnow(t *testing.T) {
	a := start(t, "127.0.11.60", Member{ID: "a", Cluster: "x", Name: "one", Address: "127.0.11.60:1", Version: "v", Durable: true}, nil)
	b := start(t, "127.0.11.61", Member{ID: "b"}, nil, a)
	eventually(t, a, map[string]string{"b": ""})
	eventually(t, b, map[string]string{"a": "x"})
	want := Member{ID: "a", Cluster: "x", Name: "one", Address: "127.0.11.60:1", Version: "v", Durable: true, Gossip: a.Addr()}
	if m := b.Members()[0]; m != want {
		t.Errorf("%+v", m)
	}
	if err := b.Tell(Member{ID: "b", Cluster: "x"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, a, map[string]string{"b": "x"})
}

// One that waits to be admitted knows hosts of two clusters, which never hear of each other through it.
func TestClustersNeverMerge(t *testing.T) {
	a := start(t, "127.0.11.60", Member{ID: "a", Cluster: "x"}, nil)
	b := start(t, "127.0.11.61", Member{ID: "b", Cluster: "y"}, nil, a)
	w := start(t, "127.0.11.62", Member{ID: "w"}, nil, a, b)
	eventually(t, w, map[string]string{"a": "x", "b": "y"})
	eventually(t, a, map[string]string{"w": ""})
	eventually(t, b, map[string]string{"w": ""})
	c := start(t, "127.0.11.63", Member{ID: "c", Cluster: "y"}, nil, w)
	eventually(t, b, map[string]string{"w": "", "c": "y"}) // so c's word went round, by way of w or past it
	eventually(t, c, map[string]string{"w": "", "b": "y"})
	eventually(t, a, map[string]string{"w": ""})
	for _, m := range a.serf.Members() {
		if m.Name != "a" && m.Name != "w" {
			t.Error("a gossips with", m.Name)
		}
	}
}

func TestKeys(t *testing.T) {
	key := bytes.Repeat([]byte{1}, 32)
	a := start(t, "127.0.11.60", Member{ID: "a", Cluster: "x"}, key)
	start(t, "127.0.11.61", Member{ID: "b", Cluster: "x"}, bytes.Repeat([]byte{2}, 32), a)
	start(t, "127.0.11.62", Member{ID: "c", Cluster: "x"}, nil, a)
	d := start(t, "127.0.11.63", Member{ID: "d", Cluster: "x"}, key, a)
	eventually(t, d, map[string]string{"a": "x"})
	eventually(t, a, map[string]string{"d": "x"})
}

func TestHostsThatGo(t *testing.T) {
	a := start(t, "127.0.11.60", Member{ID: "a", Cluster: "x"}, nil)
	b := start(t, "127.0.11.61", Member{ID: "b", Cluster: "x"}, nil, a)
	c := start(t, "127.0.11.62", Member{ID: "c", Cluster: "x"}, nil, a)
	eventually(t, a, map[string]string{"b": "x", "c": "x"})
	b.serf.Leave()
	c.serf.Shutdown()
	eventually(t, a, map[string]string{})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		m := a.Members()
		if len(m) == 2 && m[0].State == Left && m[1].State == Failed {
			break
		}
		if time.Now().After(end) {
			t.Fatal(m)
		}
	}
	// One comes back at another address.
	start(t, "127.0.11.63", Member{ID: "c", Cluster: "x"}, nil, a)
	eventually(t, a, map[string]string{"c": "x"})
}

func TestThePortIsTaken(t *testing.T) {
	a := start(t, "127.0.11.60", Member{ID: "a"}, nil)
	if _, err := Listen(Config{Bind: a.Addr()}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Error(err)
	}
	if _, err := Listen(Config{Bind: "0.0.0.0:0"}); err == nil {
		t.Error("nobody can reach 0.0.0.0")
	}
}
