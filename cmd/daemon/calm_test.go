package daemon

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestCalm: the thread that is calmed is the monitor, which wakes up again and again while a goroutine runs; any other thread
// of a process that has nothing else to do sleeps.
func TestCalm(t *testing.T) {
	if err := calm(); errors.Is(err, os.ErrPermission) {
		t.Log("not permitted here, and then all is as it was:", err)
		return
	} else if err != nil {
		t.Fatal(err)
	}
	threads, err := os.Open("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	defer threads.Close()
	names, err := threads.Readdirnames(0)
	if err != nil {
		t.Fatal(err)
	}
	var calmed []string
	for _, name := range names {
		slack, err := os.ReadFile("/proc/" + name + "/timerslack_ns")
		if err == nil && strings.TrimSpace(string(slack)) == strconv.Itoa(monitorSlack) {
			calmed = append(calmed, name)
		}
	}
	if len(calmed) != 1 {
		t.Fatalf("threads %q have the slack", calmed)
	}
	for began, first := time.Now(), sleeps(t, calmed[0]); sleeps(t, calmed[0]) < first+20; {
		if time.Since(began) > 30*time.Second {
			t.Fatal("the thread sleeps")
		}
		for busy := time.Now(); time.Since(busy) < 20*time.Millisecond; {
		}
	}
}

// sleeps is how often a thread has gone to sleep.
func sleeps(t *testing.T, thread string) int {
	status, err := os.ReadFile("/proc/self/task/" + thread + "/status")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(regexp.MustCompile(`(?m)^voluntary_ctxt_switches:\s*(\d+)$`).FindStringSubmatch(string(status))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
