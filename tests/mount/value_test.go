package mount

import (
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// The value block, DESIGN 1.4.

func TestEachDuplicateCommits(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("exec 9<>$M/a; echo one >&9")
	if out := b.OK("cat $M/a"); out != "one\n" {
		t.Errorf("after the first echo: %q", out)
	}
	a.OK("echo two >&9")
	if out := b.OK("cat $M/a"); out != "one\ntwo\n" {
		t.Errorf("after the second echo: %q", out)
	}
	a.OK("exec 9>&-")
	a.OK("echo three >> $M/a; test $(wc -l < $M/a) = 3; echo -n short > $M/a; test $(cat $M/a) = short")
}

func TestTruncationAlone(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("echo old > $M/a; exec 9>$M/a")
	if out := b.OK("cat $M/a"); out != "old\n" {
		t.Errorf("O_TRUNC alone was committed: %q", out)
	}
	a.OK("exec 9>&-; test -z \"$(cat $M/a)\"")
	for range 100 {
		a.OK("echo old > $M/a; test -s $M/a; : > $M/a; flock -n $M/a test -z \"$(cat $M/a)\"")
	}
	a.OK("echo old > $M/a; : > $M/a; test -z \"$(cat $M/a)\" && test $(stat -c %s $M/a) = 0")
}

func TestTruncate(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("echo long value > $M/a")
	if out := s.Exits(1, "truncate -s 0 $M/a@pr"); !strings.Contains(out, "Permission denied") {
		t.Errorf("truncate says %s", out)
	}
	s.OK("$C truncate $M/a 13") // by path: EACCES
	s.OK("truncate -s 4 $M/a; test \"$(cat $M/a)\" = long")
	s.OK("truncate -s 6 $M/a; test $(stat -c %s $M/a) = 6; test $(tr -d '\\0' < $M/a) = long")
}

// TestWholeValues reads a value that changes size and contents all the time, and so now and then.
func TestWholeValues(t *testing.T) {
	for _, test := range []struct {
		name    string
		pause   string
		sizes   string
		how     string
		seconds string
	}{
		{"small, often", "0", "a b c d", "", "4"},
		{"large, often", "0", "a z y x", "", "4"},
		{"small, now and then", "1.2", "a b c d a", "", "8"},
		{"one descriptor, often", "0", "a b c d", "keep", "4"},
		{"one descriptor, large", "0", "a z y x", "keep", "4"},
		{"one descriptor, now and then", "1.2", "a b c d a", "keep", "8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := harness.Start(t, "lock")
			readers := []*harness.Shell{d.Shell(t), d.Shell(t)}
			w := d.Shell(t)
			w.OK(`put() { n=$(( ($(printf %d "'$1") - 96) * 100 )); head -c $n /dev/zero | tr '\0' $1 > $M/a; }; put a; sleep 1.2`)
			var pending []*harness.Pending
			for _, r := range readers {
				pending = append(pending, r.Start("timeout -s INT "+test.seconds+" $C torn $M/a "+test.how))
			}
			w.OK("end=$((SECONDS+2)); while test $SECONDS -lt $end; do for c in " + test.sizes + "; do put $c; sleep " + test.pause + "; done; done")
			for _, p := range pending {
				if r := p.Wait(); r.Code != 124 || !strings.Contains(r.Out, "reads") {
					t.Errorf("reader: %d %s", r.Code, r.Out)
				}
			}
		})
	}
}

func TestViewsSeeEachOther(t *testing.T) {
	d := harness.Start(t, "lock", "posix")
	s := d.Shell(t)
	s.OK("echo v0 > $M/a; sleep 1.2; cat $P/a $M/a >/dev/null; cat $P/a $M/a >/dev/null")
	for range 50 {
		s.OK("v=$RANDOM$RANDOM; echo $v > $M/a; test $(cat $P/a) = $v && test $(cat $M/a) = $v && test $(stat -c %s $P/a) = $((${#v}+1))")
		s.OK("v=$RANDOM; echo $v > $P/a; test $(cat $P/a) = $v && test $(cat $M/a) = $v")
	}
	s.OK("for i in 1 2 3 4 5; do test ! -e $P/n$i; touch $M/n$i; test -e $P/n$i; rm $P/n$i; test ! -e $M/n$i; done")
	s.OK("ls $P > /dev/null; mkdir $M/dir; test -n \"$(ls $P | grep dir)\"; touch $P/dir/x; ls $M/dir | grep -q x; mv $M/dir $M/dir2; ls $P/dir2 | grep -q x; test ! -e $P/dir")
}

func TestSyncedReads(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("echo one > $M/a; test $(dd if=$M/a iflag=sync 2>/dev/null) = one")
}

func TestStale(t *testing.T) {
	d := harness.Start(t, "lock", "posix")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("echo old > $M/a")
	p := a.Start("$C fsync $M/a $T/go")
	b.OK("until test -e $T/go; do sleep 0.01; done; echo moved > $P/a; rm $T/go")
	if r := p.Wait(); r.Code != 116 { // ESTALE
		t.Errorf("fsync: %d %s", r.Code, r.Out)
	}
	if out := b.OK("cat $M/a"); out != "moved\n" {
		t.Errorf("value: %q", out)
	}
}

func TestLargeDirectory(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("mkdir $M/d; cd $M/d; for i in $(seq 2000); do echo > n$i; done; test $(ls | wc -l) = 2000; cd /")
	s.OK("test $(ls $M/d | wc -l) = 2000; touch $M/d/one-more; test $(ls $M/d | wc -l) = 2001")
	s.OK("rm -r $M/d; test ! -e $M/d")
}

func TestAsync(t *testing.T) {
	d := harness.Start(t, "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("touch $M/a; exec 9<>$M/a")
	p := b.Start("$C async $M/a@ex,async")
	p.Waits(waits)
	a.OK("exec 9>&-")
	if r := p.Soon(); r.Code != 0 || !strings.Contains(r.Out, "granted") {
		t.Errorf("async: %d %s", r.Code, r.Out)
	}
}

func TestRangesWait(t *testing.T) {
	d := harness.Start(t, "posix")
	a, b, c := d.Shell(t), d.Shell(t), d.Shell(t)
	a.OK("touch $P/f; coproc H { exec $C fcntl $P/f w 10 10 hold; }; read -u ${H[0]} line; test \"$line\" = held")
	p := b.Start("bash -c 'echo $$ > $T/pid; exec $C fcntl $P/f W 0 0'")
	q := c.Start("$C fcntl $P/f R 0 0")
	p.Waits(waits)
	q.Waits(time.Millisecond)
	d.Shell(t).OK("kill -9 $(cat $T/pid)")
	if r := p.Soon(); r.Code != 137 {
		t.Errorf("killed waiter: %d %s", r.Code, r.Out)
	}
	q.Waits(waits)
	a.OK("kill -9 $H_PID; wait $H_PID; true")
	if r := q.Soon(); r.Code != 0 {
		t.Errorf("waiter: %d %s", r.Code, r.Out)
	}
}
