package fs

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockd/queue"
)

func TestParseAlias(t *testing.T) {
	for _, test := range []struct {
		name  string
		base  string
		want  alias
		errno syscall.Errno
	}{
		{"orders", "orders", alias{}, 0},
		{"orders@ex", "orders", alias{kind: aliasMode, mode: queue.EX}, 0},
		{"a@pr@nl", "a@pr", alias{kind: aliasMode, mode: queue.NL}, 0},
		{"a@b", "a@b", alias{}, 0},
		{"a@EX", "a@EX", alias{}, 0},
		{"a@exx", "a@exx", alias{}, 0},
		{"a@ex@", "a@ex@", alias{}, 0},
		{"a@", "a@", alias{}, 0},
		{"a@,", "a@,", alias{}, 0},
		{"a@zz,wait=soon", "a@zz,wait=soon", alias{}, 0},
		{"user@host", "user@host", alias{}, 0},
		{".lock@cw", ".lock", alias{kind: aliasMode, mode: queue.CW}, 0},
		{"a@ex,wait=5s", "a", alias{kind: aliasMode, mode: queue.EX, wait: 5 * time.Second}, 0},
		{"a@ex,async", "a", alias{kind: aliasMode, mode: queue.EX, async: true}, 0},
		{"a@pw,async,wait=1m30s", "a", alias{kind: aliasMode, mode: queue.PW, async: true, wait: 90 * time.Second}, 0},
		{"a@pw,wait=0s", "a", alias{kind: aliasMode, mode: queue.PW, wait: -1}, 0},
		{"a@events", "a", alias{kind: aliasEvents}, 0},
		{"a@token", "a", alias{kind: aliasToken}, 0},
		{"a@sequencer", "a", alias{kind: aliasSequencer}, 0},
		{"a@ex,wait=soon", "a", alias{}, syscall.EINVAL},
		{"a@ex,wait=", "a", alias{}, syscall.EINVAL},
		{"a@ex,wait=5", "a", alias{}, syscall.EINVAL},
		{"a@ex,wait=-5s", "a", alias{}, syscall.EINVAL},
		{"a@ex,wait=+5s", "a", alias{}, syscall.EINVAL},
		{"a@ex,wait=1s,wait=2s", "a", alias{}, syscall.EINVAL},
		{"a@ex,wait=999999h", "a", alias{}, syscall.EINVAL},
		{"a@ex,", "a", alias{}, syscall.EINVAL},
		{"a@ex,,async", "a", alias{}, syscall.EINVAL},
		{"a@ex,async,async", "a", alias{}, syscall.EINVAL},
		{"a@ex,headque", "a", alias{}, syscall.EINVAL},
		{"a@events,async", "a", alias{}, syscall.EINVAL},
		{"@ex", "", alias{}, syscall.EINVAL},
	} {
		base, got, errno := parseAlias(test.name)
		if base != test.base || errno != test.errno || errno == 0 && got != test.want {
			t.Errorf("parseAlias(%q) = %q, %+v, %v, want %q, %+v, %v", test.name, base, got, errno, test.base, test.want, test.errno)
		}
	}
}

// FuzzAlias checks the grammar against its wording: the last @, exactly a known word, then the end or a comma.
func FuzzAlias(f *testing.F) {
	for _, s := range []string{"a", "a@ex", "a@ex,wait=5s", "a@ex,async", "a@ex,wait=soon", "@", "@@", "a@events,", "a@zz,x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		base, a, errno := parseAlias(name)
		if a.kind == 0 {
			if base != name || errno != 0 {
				t.Fatalf("%q is plain, but base %q errno %v", name, base, errno)
			}
			at := strings.LastIndexByte(name, '@')
			word, _, _ := strings.Cut(name[at+1:], ",")
			if _, known := aliasWords[word]; at >= 0 && known {
				t.Fatalf("%q was taken for plain", name)
			}
			return
		}
		if !strings.HasPrefix(name, base+"@") || strings.Contains(name[len(base)+1:], "@") {
			t.Fatalf("%q: base %q is not what stands before its last @", name, base)
		}
		if errno != 0 {
			if errno != syscall.EINVAL {
				t.Fatalf("%q: %v", name, errno)
			}
			return
		}
		if base == "" || (a.kind == aliasMode) != a.mode.Valid() || a.wait > maxAliasWait || a.wait < -1 {
			t.Fatalf("%q: base %q, %+v", name, base, a)
		}
		if a.kind != aliasMode && (a.wait != 0 || a.async) {
			t.Fatalf("%q has options: %+v", name, a)
		}
	})
}
