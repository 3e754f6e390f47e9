package mount

import (
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/harness"
)

func init() { programs["mapped"] = mapped }

// TestMappingAfterLease: the pages of a mapping, the only ones of a value that the kernel keeps, go with the lease.
func TestMappingAfterLease(t *testing.T) {
	d := harness.StartShort(t, 4*time.Second, "lock")
	s := d.Shell(t)
	s.OK("echo value > $M/a")
	p := s.Start("$C mapped $M/a $T/mapped")
	until(d.Shell(t), "test -e $T/mapped")
	p.Waits(waits)
	d.Cut()
	if r := p.Wait(); r.Out != "gone\n" {
		t.Errorf("a mapping after the lease: %d %s", r.Code, r.Out)
	}
}

// mapped PATH MARK maps a value, makes the file MARK, and reads the mapping until there is nothing to read any more.
func mapped(args []string) int {
	fd, err := open(args[0], unix.O_RDONLY)
	must(err)
	m, err := unix.Mmap(fd, 0, 1, unix.PROT_READ, unix.MAP_SHARED)
	must(err)
	debug.SetPanicOnFault(true)
	look := func() (there bool) {
		defer func() { recover() }() // of SIGBUS
		return m[0] == 'v'
	}
	if !look() {
		fmt.Println("never there")
		return 1
	}
	must(os.WriteFile(args[1], nil, 0o666))
	for end := time.Now().Add(45 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !look() {
			fmt.Println("gone")
			return 0
		}
	}
	fmt.Println("still there")
	return 1
}
