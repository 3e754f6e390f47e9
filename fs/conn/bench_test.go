package conn

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The benchmarks compare, in one run and in turns, servers that answer the same calls:
//
//	conn      this package's Loop over a testFS
//	server    go-fuse's own Server over the same testFS
//	loopback  go-fuse's loopback file system (its fs bridge) over a directory in memory
//
// Each server is a process, and so is the client, whose calls are raw and on a thread of its own. A figure is the
// median of a call in µs, or with several threads the mean time from one call to the next. For handoff it is the time
// from the unlock of one thread to the lock of another that has been waiting for it.

var benchServers = []string{"conn", "server", "loopback"}

// benchOps are what the client can measure. stat and read reach the server each time: nothing is cached.
var benchOps = []string{"stat", "open+close", "flock+unlock", "read"}

func init() {
	children["bench-server"] = func(args []string) error {
		kind, dir := args[0], args[1]
		fsys := newTestFS()
		fsys.quiet = true
		switch kind {
		case "conn":
			c, err := Mount(Options{MountPoint: dir, AllowOther: true})
			if err != nil {
				return err
			}
			fsys.loop = NewLoop(c, fsys, fsys)
			go fsys.loop.Serve()
			<-fsys.loop.Ready()
		case "server":
			s, err := fuse.NewServer(fsys, dir, &fuse.MountOptions{DirectMountStrict: true, EnableLocks: true,
				Options: []string{"default_permissions"}, AllowOther: true, Name: "lockfsbench"})
			if err != nil {
				return err
			}
			go s.Serve()
		case "loopback":
			for i := range 8 {
				if err := os.WriteFile(fmt.Sprintf("%s/file-%d", args[2], i), []byte(testData), 0o644); err != nil {
					return err
				}
			}
			root, err := gofs.NewLoopbackRoot(args[2])
			if err != nil {
				return err
			}
			var zero time.Duration
			if _, err := gofs.Mount(dir, root, &gofs.Options{AttrTimeout: &zero, EntryTimeout: &zero, MountOptions: fuse.MountOptions{
				DirectMountStrict: true, EnableLocks: true, Options: []string{"default_permissions"}, AllowOther: true,
				DisabledCapabilities: fuse.CAP_PASSTHROUGH}}); err != nil {
				return err
			}
		}
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		unix.Unmount(dir, unix.MNT_DETACH)
		return nil
	}
	children["bench-client"] = benchClient
}

// benchClient reads lines "OP DIR THREADS TIMES" and answers "P50 P99 MEAN", in ns.
func benchClient([]string) error {
	runtime.GOMAXPROCS(16) // raw calls hold their P
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		threads, _ := strconv.Atoi(f[2])
		times, _ := strconv.Atoi(f[3])
		if f[0] == "handoff" {
			if err := benchHandoff(f[1]+"/file-0", times); err != nil {
				return err
			}
			continue
		}
		took := make([]int64, threads*times)
		var group errgroup
		begin := monotonic()
		for i := range threads {
			group.Go(func() error {
				lockThread()
				call, err := benchCall(f[0], f[1]+"/file-"+strconv.Itoa(i))
				if err != nil {
					return err
				}
				mine := took[i*times : (i+1)*times]
				for j := range mine {
					start := monotonic()
					if errno := call(); errno != 0 {
						return fmt.Errorf("%s: %w", f[0], errno)
					}
					mine[j] = monotonic() - start
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		mean := (monotonic() - begin) / int64(threads*times)
		slices.Sort(took)
		fmt.Println(took[len(took)/2], took[len(took)*99/100], mean)
	}
	return nil
}

// benchHandoff measures from the unlock of one thread to the lock of another that has been waiting for it.
func benchHandoff(path string, times int) error {
	var fds [2]int
	var err error
	for i := range fds {
		if fds[i], err = unix.Open(path, unix.O_RDONLY, 0); err != nil {
			return err
		}
		defer unix.Close(fds[i])
	}
	ask, locked := make(chan bool), make(chan int64)
	defer close(ask)
	go func() {
		lockThread()
		for range ask {
			if err := unix.Flock(fds[1], unix.LOCK_EX); err != nil {
				panic(err)
			}
			locked <- monotonic()
			unix.Flock(fds[1], unix.LOCK_UN)
			locked <- 0
		}
	}()
	lockThread()
	took := make([]int64, times)
	for i := range took {
		if err := unix.Flock(fds[0], unix.LOCK_EX); err != nil {
			return err
		}
		ask <- true
		time.Sleep(200 * time.Microsecond) // until the other waits
		begin := monotonic()
		if err := unix.Flock(fds[0], unix.LOCK_UN); err != nil {
			return err
		}
		took[i] = <-locked - begin
		<-locked
	}
	slices.Sort(took)
	fmt.Println(took[times/2], took[times*99/100], took[times/2])
	return nil
}

// benchCall makes the call to be measured, with raw system calls only.
func benchCall(op, path string) (func() unix.Errno, error) {
	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return nil, err
	}
	at := uintptr(unsafe.Pointer(name))
	flags := unix.O_RDONLY
	if op == "read" {
		flags |= unix.O_DIRECT // else loopback's is a read from the page cache
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return nil, err
	}
	pinned := func() { runtime.KeepAlive(name) }
	atCWD := -100
	switch op {
	case "stat":
		var st unix.Stat_t
		return func() unix.Errno {
			defer pinned()
			_, _, errno := unix.RawSyscall6(unix.SYS_NEWFSTATAT, uintptr(fd), uintptr(unsafe.Pointer(&empty)), uintptr(unsafe.Pointer(&st)), unix.AT_EMPTY_PATH, 0, 0)
			return errno
		}, nil
	case "open+close":
		return func() unix.Errno {
			defer pinned()
			fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(atCWD), at, unix.O_RDONLY, 0, 0, 0)
			if errno == 0 {
				unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
			}
			return errno
		}, nil
	case "flock+unlock":
		return func() unix.Errno {
			_, _, errno := unix.RawSyscall(unix.SYS_FLOCK, uintptr(fd), unix.LOCK_EX, 0)
			if errno == 0 {
				_, _, errno = unix.RawSyscall(unix.SYS_FLOCK, uintptr(fd), unix.LOCK_UN, 0)
			}
			return errno
		}, nil
	case "read":
		var buf [64]byte
		return func() unix.Errno {
			_, _, errno := unix.RawSyscall6(unix.SYS_PREAD64, uintptr(fd), uintptr(unsafe.Pointer(&buf)), 64, 0, 0, 0)
			return errno
		}, nil
	}
	return nil, errors.New("no such operation: " + op)
}

var empty [1]byte

// piped is a child that is talked to by lines.
type piped struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startPiped(b *testing.B, name string, args ...string) *piped {
	b.Helper()
	p := &piped{cmd: selfCommand(name, args...)}
	p.cmd.Stderr = os.Stderr
	p.in, _ = p.cmd.StdinPipe()
	out, _ := p.cmd.StdoutPipe()
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		p.in.Close()
		kill := time.AfterFunc(limit, func() { p.cmd.Process.Kill() })
		p.cmd.Wait()
		kill.Stop()
	})
	return p
}

func (p *piped) line(b *testing.B) string {
	b.Helper()
	if !p.out.Scan() {
		b.Fatalf("%v: ended", p.cmd.Args)
	}
	return p.out.Text()
}

// BenchmarkCalls prints for each call and number of threads what it costs with each server, and the ratios of the
// others' time to ours. b.N is the number of rounds, in each of which every server has its turn.
func BenchmarkCalls(b *testing.B) {
	needRoot(b)
	memory := b.TempDir()
	if err := unix.Mount("tmpfs", memory, "tmpfs", 0, ""); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { unix.Unmount(memory, unix.MNT_DETACH) })
	dirs := map[string]string{}
	for _, kind := range benchServers {
		dirs[kind] = b.TempDir()
		s := startPiped(b, "bench-server", kind, dirs[kind], memory)
		s.line(b)
		b.Cleanup(func() { unix.Unmount(dirs[kind], unix.MNT_DETACH) })
	}
	client := startPiped(b, "bench-client")
	b.Run("handoff", func(b *testing.B) { benchRounds(b, client, dirs, "handoff", 2) })
	for _, threads := range []int{1, 8} {
		for _, op := range benchOps {
			b.Run(fmt.Sprintf("%s/threads=%d", op, threads), func(b *testing.B) {
				benchRounds(b, client, dirs, op, threads)
			})
		}
	}
}

func benchRounds(b *testing.B, client *piped, dirs map[string]string, op string, threads int) {
	figures := map[string][]float64{}
	for b.Loop() {
		for _, kind := range benchServers {
			fmt.Fprintln(client.in, op, dirs[kind], threads, 1000/threads)
			var p50, p99, mean float64
			if _, err := fmt.Sscan(client.line(b), &p50, &p99, &mean); err != nil {
				b.Fatal(err)
			}
			figure := p50
			if threads > 2 {
				figure = mean
			}
			figures[kind] = append(figures[kind], figure/1000)
		}
	}
	median := func(kind string) float64 {
		slices.Sort(figures[kind])
		return figures[kind][len(figures[kind])/2]
	}
	b.ReportMetric(0, "ns/op")
	for _, kind := range benchServers {
		b.ReportMetric(median(kind), kind+"-µs")
		if kind != "conn" {
			b.ReportMetric(median(kind)/median("conn"), kind+"/conn")
		}
	}
}

// BenchmarkHandle is a request without the kernel: what go-fuse and the file system cost, and what the loop adds.
func BenchmarkHandle(b *testing.B) {
	fsys := newTestFS()
	o, _ := Options{MountPoint: "/"}.withDefaults()
	l := NewLoop(&Conn{options: o, fd: -1}, fsys, fsys)
	fsys.loop = l
	l.in, l.out = l.buffer(), l.buffer()
	request := make([]byte, 56) // GETATTR
	h := header(request)
	*h = fuse.InHeader{Length: uint32(len(request)), Opcode: 3, Unique: 2, NodeId: 1}
	b.Run("gofuse", func(b *testing.B) {
		b.ReportAllocs()
		in, out := [1][]byte{request}, [1][]byte{*l.out}
		for b.Loop() {
			l.server.HandleRequest(in[:], out[:])
		}
	})
	b.Run("conn", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f := l.enter(request)
			if l.handle(f) == nil || !l.current.CompareAndSwap(f.unique, 0) {
				b.Fatal("no reply")
			}
			l.leave(f)
		}
	})
}
