package durability

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/actor"
	"github.com/lockfs/lockfs/tests/harness"
)

// TestKill kills the daemon again and again in the middle of a load, and starts it on the same data and mount points:
// what was acknowledged is there, tokens have grown, and no client hangs.
func TestKill(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	d := harness.Prepare(t, harness.Options{Views: []string{"lock", "posix"}, Args: []string{"--session-ttl", ttl.String()}})
	p := newPromises()
	acknowledged, slowest := 0, time.Duration(0)
	for round := range rounds {
		begin := time.Now()
		d.Start()
		slowest = max(slowest, time.Since(begin))
		if round > 0 {
			p.check(t, d)
		}
		var loads []*loading
		for id := range 4 {
			loads = append(loads, startLoad(t, d, string(rune('a'+id)), p.lastN))
		}
		time.Sleep(time.Duration(50+rnd.IntN(600)) * time.Millisecond)
		d.Kill()
		for _, l := range loads {
			lines := l.end(t, time.Minute)
			acknowledged += len(slices.DeleteFunc(slices.Clone(lines), func(s string) bool { return s[0] != '<' }))
			switch errno := p.hear(t, lines); errno {
			case "ENOTCONN", "ECONNABORTED":
			default:
				t.Errorf("a client of the dead mount got %s", errno)
			}
		}
	}
	d.Start()
	p.check(t, d)
	t.Logf("%d acknowledged changes over %d kills, slowest start %v", acknowledged, rounds, slowest)
	if acknowledged < 50 {
		t.Error("hardly anything was done")
	}
}

// check looks for all that was promised.
func (p *promises) check(t *testing.T, d *harness.Daemon) {
	t.Helper()
	a := actor.Start(t, d.Lock)
	defer a.Kill()
	for key, said := range p.said {
		kind, file, _ := strings.Cut(key, " ")
		text, want := value(a, file), file+" "
		if kind == "count" {
			want = ""
		}
		n, err := strconv.Atoi(strings.TrimPrefix(text, want))
		if err != nil || n < said || n > max(said, p.began[key]) {
			t.Errorf("%s: %q, acknowledged %d, begun %d", key, text, said, p.began[key])
		}
	}
	for file, there := range p.there {
		if got := a.Do("size "+file) != "ENOENT"; got != there {
			t.Errorf("%s is there: %v, want %v", file, got, there)
		}
	}
	begin := time.Now()
	for file, old := range p.tokens {
		a.Must("ok", "open f rdwr "+file)
		if now, _ := strconv.ParseUint(a.Do("token f"), 10, 64); now <= old {
			t.Errorf("%s: token %d after %d", file, now, old)
		}
		a.Must("ok", "close f")
	}
	if took := time.Since(begin); took > ttl+margin {
		t.Errorf("locking what the dead daemon held took %v", took)
	}
}

// value is a file's value without the end of its line; empty if it cannot be read.
func value(a *actor.Actor, file string) string {
	if got := a.Do("open v rdonly " + file); got != "ok" {
		return got
	}
	defer a.Do("close v")
	return strings.TrimSuffix(strings.Trim(a.Do("pread v 0 100"), `"`), `\n`)
}
