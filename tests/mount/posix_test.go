package mount

import (
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// The posix view: programs with a lock protocol of their own.

func TestPosixGit(t *testing.T) {
	d := harness.Start(t, "posix")
	r := d.Run(t, `set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git init -q $P/repo
cd $P/repo
for p in 1 2 3 4; do
	(for i in 1 2 3 4 5; do
		echo $p $i > file$p
		until git add file$p 2>/dev/null && git commit -q -m "$p $i" -- file$p 2>/dev/null; do sleep 0.02; done
	done) &
done
wait
git fsck --strict
test $(git log --oneline | wc -l) -ge 5
test "$(cat file1 file2 file3 file4)" = "$(printf '1 5\n2 5\n3 5\n4 5')"
git status --porcelain
`, 2*time.Minute)
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s", r.Code, r.Out)
	}
}

func TestPosixSqlite(t *testing.T) {
	d := harness.Start(t, "posix")
	r := d.Run(t, `set -e
sqlite3 $P/db 'create table t (n integer)'
for p in 1 2; do
	(for i in $(seq 20); do echo ".timeout 30000
insert into t values ($p);"; done | sqlite3 $P/db) &
done
wait
test "$(sqlite3 $P/db 'select n, count(*) from t group by n; pragma integrity_check')" = "$(printf '1|20\n2|20\nok')"
`, time.Minute)
	if r.Code != 0 {
		t.Fatalf("exit code %d\n%s", r.Code, r.Out)
	}
}

func TestPosixFcntl(t *testing.T) {
	d := harness.Start(t, "posix", "lock")
	a, b := d.Shell(t), d.Shell(t)
	const eagain = 11
	a.OK("touch $P/f")
	a.OK("coproc H { exec $C fcntl $P/f w 10 10 hold; }; read -u ${H[0]} line; test \"$line\" = held")
	b.Exits(eagain, "$C fcntl $P/f w 15 1")
	b.Exits(eagain, "$C fcntl $P/f r 0 0")
	b.Exits(eagain, "$C fcntl $P/f ow 19 1")
	b.Exits(eagain, "$C fcntl $M/f w 10 1") // the same file through another view
	b.OK("$C fcntl $P/f w 0 10")
	b.OK("$C fcntl $P/f w 20 0")
	a.OK("kill -9 $H_PID; wait $H_PID; true")
	b.OK("$C fcntl $P/f w 15 1")
	a.OK("coproc H { exec $C fcntl $P/f ow 10 10 hold; }; read -u ${H[0]} line; test \"$line\" = held")
	b.Exits(eagain, "$C fcntl $P/f r 15 1")
	a.OK("kill -9 $H_PID; wait $H_PID; true")
	b.OK("$C fcntl $P/f w 15 1")
}

func TestPosixFlock(t *testing.T) {
	d := harness.Start(t, "posix", "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("exec 9>$P/f; flock 9")
	b.OK("echo through > $P/f; test $(cat $P/f) = through")
	b.Exits(1, "flock -n $P/f true")
	b.Exits(1, "flock -n $M/f true")
	if out := b.Exits(1, "rm $M/f"); !strings.Contains(out, "busy") {
		t.Errorf("rm says %s", out)
	}
	a.OK("exec 9>&-")
	b.OK("flock -n $P/f true")
}

func TestPosixWrites(t *testing.T) {
	d := harness.Start(t, "posix")
	s := d.Shell(t)
	s.OK("exec 9>$P/f; echo one >&9; test \"$(cat $P/f)\" = one; echo two >&9; test \"$(cat $P/f)\" = \"$(printf 'one\\ntwo')\"")
	s.OK("echo three >> $P/f; test $(wc -l < $P/f) = 3")
	s.OK("truncate -s 3 $P/f; test \"$(cat $P/f)\" = one")
	s.OK("for p in 1 2 3 4; do (for i in $(seq 50); do echo x >> $P/app; done) & done; wait; test $(wc -l < $P/app) = 200")
	s.OK("dd if=/dev/zero of=$P/big bs=200K count=1 2>/dev/null; printf abc | dd of=$P/big bs=1 seek=100000 conv=notrunc 2>/dev/null; test $(stat -c %s $P/big) = 204800")
	s.OK("test $(tail -c +100001 $P/big | head -c 3) = abc")
	s.Exits(1, "dd if=/dev/zero of=$P/big bs=300K count=1 2>/dev/null")
}

func TestPosixUnlinkWhileOpen(t *testing.T) {
	d := harness.Start(t, "posix", "lock")
	a, b := d.Shell(t), d.Shell(t)
	a.OK("echo one > $P/f; exec 9<>$P/f; flock 9")
	b.OK("rm $P/f; test ! -e $P/f")
	a.OK("cat <&9; echo two >&9; test \"$(cat /proc/self/fd/9)\" = \"$(printf 'one\\ntwo')\"")
	b.OK("echo new > $P/f; flock -n $P/f true") // another file of that name
	a.OK("exec 9>&-")
	a.OK("echo a > $P/from; echo b > $P/to; exec 8<$P/to; mv $P/from $P/to; test $(cat $P/to)$(cat <&8) = ab; exec 8<&-")
	a.OK("exec 7<>$M/f")
	if out := b.Exits(1, "rm $P/f"); !strings.Contains(out, "busy") { // the other view holds it
		t.Errorf("rm says %s", out)
	}
	a.OK("exec 7<&-; rm $P/f")
}
