package fs

import (
	"strings"
	"syscall"
	"testing"
)

func TestParseView(t *testing.T) {
	for _, v := range []View{ViewLock, ViewPosix, ViewDlmfs} {
		if got, ok := ParseView(v.String()); !ok || got != v {
			t.Errorf("ParseView(%q) = %v, %v", v, got, ok)
		}
	}
	if _, ok := ParseView("nfs"); ok {
		t.Error("nfs is a view")
	}
}

func TestCheckMake(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, test := range []struct {
		view   View
		name   string
		dir    bool
		inRoot bool
		want   syscall.Errno
	}{
		{ViewLock, long, true, false, 0},
		{ViewPosix, "$a", false, true, 0},
		{ViewDlmfs, "domain", true, true, 0},
		{ViewDlmfs, "domain", true, false, syscall.EPERM},
		{ViewDlmfs, "lock", false, true, syscall.EACCES},
		{ViewDlmfs, "lock", false, false, 0},
		{ViewDlmfs, "$lock", false, false, syscall.EINVAL},
		{ViewDlmfs, strings.Repeat("x", 31), false, false, 0},
		{ViewDlmfs, strings.Repeat("x", 32), false, false, syscall.EINVAL},
		{ViewDlmfs, strings.Repeat("x", 63), true, true, 0},
		{ViewDlmfs, strings.Repeat("x", 64), true, true, syscall.EINVAL},
	} {
		if got := policies[test.view].checkMake(test.name, test.dir, test.inRoot); got != test.want {
			t.Errorf("%v: make %q (directory %v, in root %v): %v, want %v", test.view, test.name, test.dir, test.inRoot, got, test.want)
		}
	}
}

func TestShow(t *testing.T) {
	p := &policies[ViewDlmfs]
	if got := p.show([]byte("ab"), false); string(got) != "ab"+strings.Repeat("\x00", 62) {
		t.Errorf("short value shows as %q", got)
	}
	if got := p.show(make([]byte, 100), false); len(got) != 64 {
		t.Errorf("long value shows as %d bytes", len(got))
	}
	if got := p.show([]byte("ab"), true); len(got) != 0 {
		t.Errorf("invalid value shows as %q", got)
	}
	if got := policies[ViewLock].show([]byte("ab"), true); string(got) != "ab" {
		t.Errorf("view lock: invalid value shows as %q", got)
	}
}
