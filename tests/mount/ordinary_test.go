package mount

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/harness"
)

func init() { programs["mmap"] = mmap }

// TestOrdinaryPrograms does with a mount what people do with directories.
func TestOrdinaryPrograms(t *testing.T) {
	for _, view := range []string{"lock", "posix"} {
		t.Run(view, func(t *testing.T) {
			d := harness.Start(t, view)
			s := d.Shell(t)
			s.OK("V=${M:-$P}; cd $V")
			s.OK("mkdir -p src/sub; echo one > src/a; head -c 100000 /dev/urandom > src/sub/b; chmod 750 src/sub; touch -d 2001-02-03 src/a")
			s.OK("cp -a src copy; diff -r src copy; test $(stat -c %Y copy/a) = $(date -d 2001-02-03 +%s); test $(stat -c %a copy/sub) = 750")
			s.OK("tar cf $T/x.tar src; mkdir untar; tar xf $T/x.tar -C untar; diff -r src untar/src")
			s.OK("sed -i s/one/two/ src/a; test $(cat src/a) = two")
			s.OK("test $(find . -type f | wc -l) = 6; test -z \"$(find . -name .lock)\"; test $(du -s --apparent-size -B1 src/sub/b | cut -f1) = 100000")
			s.OK("printf '#!/bin/sh\\necho ran' > prog; chmod +x prog; test $(./prog) = ran")
			s.OK("df . > /dev/null; test $(stat -f -c %l .) = 255")
			s.OK("echo x | tee t1 > t2; cmp t1 t2; mv t1 t2; ln t2 t3 2>/dev/null; test $? = 1")
			s.OK("dd if=src/sub/b of=dd bs=1000 oflag=append conv=notrunc 2>/dev/null; cmp dd src/sub/b")
			s.OK("mkdir deep; cd deep; for i in $(seq 70); do mkdir x 2>$T/err && cd x || break; done; pwd | grep -o x | wc -l; cd $V; rm -r deep")
			s.Exits(1, "touch $(printf 'n%.0s' {1..256})")
			s.OK("touch $(printf 'n%.0s' {1..255}); rm n*")
			s.OK("cd /; rm -r $V/*; test -z \"$(ls -A $V)\"")
		})
	}
}

func TestExclusiveCreation(t *testing.T) {
	d := harness.Start(t, "lock", "posix")
	r := d.Run(t, `set -C
for i in $(seq 50); do
	for p in 1 2 3 4; do
		V=$M; test $p -gt 2 && V=$P
		(echo $p > $V/new$i) 2>/dev/null && echo won >> $T/won &
	done
	wait
done
test $(wc -l < $T/won) = 50 || { wc -l < $T/won; exit 1; }
set +C
for i in $(seq 50); do
	for p in 1 2 3 4; do
		V=$M; test $p -gt 2 && V=$P
		(exec 9<>$V/any$i) || echo failed &
	done
	wait
done
`, 0)
	if r.Code != 0 || r.Out != "" {
		t.Errorf("%d %s", r.Code, r.Out)
	}
}

func TestMapping(t *testing.T) {
	d := harness.Start(t, "lock", "posix")
	s := d.Shell(t)
	for _, view := range []string{"$M", "$P"} {
		s.OK("echo a value > " + view + "/m; $C mmap " + view + "/m; test \"$(cat " + view + "/m)\" = 'A value'")
	}
}

// mmap PATH changes the first byte of a value through a shared mapping.
func mmap(args []string) int {
	fd, err := open(args[0], unix.O_RDWR)
	must(err)
	m, err := unix.Mmap(fd, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(err)
	if m[0] != 'a' {
		fmt.Fprintf(os.Stderr, "the mapping shows %q\n", m[:1])
		return 1
	}
	m[0] = 'A'
	must(unix.Munmap(m))
	must(unix.Close(fd))
	return 0
}
