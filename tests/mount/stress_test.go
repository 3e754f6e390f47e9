package mount

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/harness"
)

func init() {
	programs["count"] = count
	programs["chaos"] = chaos
}

// TestCounter lets processes count in a value under EX, in each way to take it; not one increment may be lost.
func TestCounter(t *testing.T) {
	for _, how := range []string{"open", "alias", "convert", "flock"} {
		t.Run(how, func(t *testing.T) {
			d := harness.Start(t, "lock", "posix")
			s := d.Shell(t)
			s.OK("echo 0 > $M/a")
			const processes, times = 6, 100
			s.OK(fmt.Sprintf("for i in {1..%d}; do $C count %s %d & done; wait", processes, how, times))
			if out := strings.TrimSpace(s.OK("cat $M/a")); out != strconv.Itoa(processes*times) {
				t.Errorf("counted to %s, want %d", out, processes*times)
			}
		})
	}
}

// count HOW N increments the number in the value N times.
func count(args []string) int {
	lock, posix := os.Getenv("M")+"/a", os.Getenv("P")+"/a"
	n, err := strconv.Atoi(args[1])
	must(err)
	for range n {
		fd := -1
		switch args[0] {
		case "open":
			fd, err = open(lock, unix.O_RDWR)
		case "alias":
			fd, err = open(lock+"@ex", unix.O_RDWR)
		case "convert":
			fd, err = open(lock+"@nl", unix.O_RDWR)
			if err == nil {
				err = retry(func() error { return unix.Flock(fd, unix.LOCK_EX) })
			}
		case "flock":
			fd, err = open(posix, unix.O_RDWR)
			if err == nil {
				err = retry(func() error { return unix.Flock(fd, unix.LOCK_EX) })
			}
		}
		must(err)
		buf := make([]byte, 32)
		got, err := unix.Pread(fd, buf, 0)
		must(err)
		value, err := strconv.Atoi(strings.TrimSpace(string(buf[:got])))
		must(err)
		_, err = unix.Pwrite(fd, []byte(fmt.Sprintf("%d\n", value+1)), 0)
		must(err)
		must(unix.Close(fd))
	}
	return 0
}

// TestChaos lets processes do everything at once to few names, and be killed at any moment. Afterwards nothing may be
// held or awaited, and nothing may hang.
func TestChaos(t *testing.T) {
	d := harness.Start(t, "lock", "posix", "dlmfs")
	s := d.Shell(t)
	s.OK("mkdir -p $M/d/e; touch $M/{a,b} $M/d/{a,b} $M/d/e/a")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := d.Run(t, fmt.Sprintf(`end=$((SECONDS+8)); n=0
while test $SECONDS -lt $end; do
	n=$((n+1))
	for p in 1 2 3 4 5 6; do
		timeout -s KILL 0.$((RANDOM%%8+1)) $C chaos %d $n $p 2>/dev/null &
	done
	wait
done 2>/dev/null
`, seed), time.Minute)
	if r.Code != 0 {
		t.Fatalf("%d %s", r.Code, r.Out)
	}
	r = d.Run(t, "for i in {1..100}; do grep -qx locks=0 $M/.lockfs/status && exit 0; sleep 0.05; done; cat $M/.lockfs/status; find $M/.lockfs/held $M/.lockfs/waiting; exit 1", 0)
	if r.Code != 0 {
		t.Errorf("something is held by nobody:\n%s", r.Out)
	}
	s.OK("rm -rf $M/a $M/b $M/d; test -z \"$(ls $M)\"; touch $M/a; flock -n $M/a true")
}

// chaos SEED… does random things.
func chaos(args []string) int {
	var seed uint64
	for _, a := range args {
		n, _ := strconv.ParseUint(a, 10, 64)
		seed = seed*31 + n
	}
	r := rand.New(rand.NewPCG(seed, 1))
	roots := []string{os.Getenv("M"), os.Getenv("P"), os.Getenv("D")}
	names := []string{"/a", "/b", "/d/a", "/d/b", "/d/e/a", "/d/new", "/d/.lock", "/d/e"}
	modes := []string{"", "", "", "@nl", "@cr", "@cw", "@pr", "@pw", "@ex", "@ex,wait=20ms", "@pr,async"}
	pick := func(list []string) string { return list[r.IntN(len(list))] }
	var fds []int
	buf := make([]byte, 100)
	for {
		name := pick(roots) + pick(names)
		fd := -1
		if len(fds) > 0 {
			fd = fds[r.IntN(len(fds))]
		}
		switch r.IntN(16) {
		case 0, 1, 2, 3:
			flags := []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR}[r.IntN(3)]
			if r.IntN(3) > 0 {
				flags |= unix.O_NONBLOCK
			}
			if r.IntN(4) == 0 {
				flags |= unix.O_TRUNC
			}
			if fd, err := unix.Open(name+pick(modes), flags, 0); err == nil {
				fds = append(fds, fd)
			}
		case 4, 5:
			if len(fds) > 0 {
				i := r.IntN(len(fds))
				unix.Close(fds[i])
				fds = append(fds[:i], fds[i+1:]...)
			}
		case 6:
			unix.Write(fd, buf[:r.IntN(len(buf))])
		case 7:
			unix.Pread(fd, buf, 0)
		case 8:
			unix.Flock(fd, []int{unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_UN}[r.IntN(3)]|unix.LOCK_NB)
		case 9:
			if r.IntN(4) == 0 {
				unix.Flock(fd, unix.LOCK_EX)
			}
		case 10:
			lock := unix.Flock_t{Type: []int16{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK}[r.IntN(3)], Start: r.Int64N(10), Len: r.Int64N(10)}
			unix.FcntlFlock(uintptr(fd), []int{unix.F_SETLK, unix.F_OFD_SETLK, unix.F_GETLK}[r.IntN(3)], &lock)
		case 11:
			unix.Mknod(name, unix.S_IFREG|0o644, 0)
		case 12:
			unix.Unlink(name)
		case 13:
			unix.Rename(name, pick(roots)+pick(names))
		case 14:
			unix.Stat(name, new(unix.Stat_t))
			unix.Fsync(fd)
		case 15:
			if dir, err := unix.Open(pick(roots)+"/d", unix.O_RDONLY|unix.O_DIRECTORY, 0); err == nil {
				unix.Getdents(dir, make([]byte, 4096))
				unix.Close(dir)
			}
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLPRI}}
			unix.Poll(poll, 1)
		}
	}
}
