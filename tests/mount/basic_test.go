package mount

import (
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/harness"
)

// waits is how long a command must not go on that should wait.
const waits = 300 * time.Millisecond

func TestTree(t *testing.T) {
	d := harness.Start(t, "lock")
	s := d.Shell(t)
	s.OK("mkdir $M/db && touch $M/db/orders && ls $M/db")
	s.OK("echo v41 > $M/db/orders")
	if out := s.OK("cat $M/db/orders"); out != "v41\n" {
		t.Errorf("cat: %q", out)
	}
	if out := s.OK("stat -c '%s %a %F' $M/db/orders"); out != "4 644 regular file\n" {
		t.Errorf("stat: %q", out)
	}
	s.OK("mv $M/db/orders $M/db/o2 && ls $M/db | grep -qx o2")
	s.OK("chmod 600 $M/db/o2 && test $(stat -c %a $M/db/o2) = 600")
	s.OK("test -e $M/db/.lock && ! ls -a $M/db | grep -q lock")
	s.Exits(1, "rmdir $M/db")
	s.Exits(1, "ln $M/db/o2 $M/x")
	s.Exits(1, "ln -s a $M/x")
	s.Exits(1, "mkfifo $M/x")
	s.Exits(1, "rm $M/db/.lock")
	s.Exits(1, "mv $M/db/.lock $M/x")
	s.OK("rm -r $M/db && test ! -e $M/db")
}
