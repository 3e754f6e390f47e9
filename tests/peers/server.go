package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// server is a process that this one started.
type server struct {
	name string
	args []string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// startLimit, stopLimit and askLimit bound how long a server may take to answer, to end, and to answer a question.
const (
	startLimit = 90 * time.Second
	stopLimit  = 30 * time.Second
	askLimit   = 10 * time.Second
)

// launch starts a process. Its output goes to a file NAME.log in dir. It ends with this one, by end; so this must be called
// on the main goroutine, which is locked to the thread that lives as long as the program.
func launch(dir, name string, end syscall.Signal, args ...string) (*server, error) {
	s := &server{name: name, args: args, log: filepath.Join(dir, name+".log")}
	return s, s.launch(end)
}

func (s *server) launch(end syscall.Signal) error {
	log, err := os.OpenFile(s.log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.Dir = filepath.Dir(s.log)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: end, Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() { cmd.Wait(); close(done) }()
	return nil
}

// kill ends the process as a crash does.
func (s *server) kill() error {
	err := s.cmd.Process.Kill()
	<-s.done
	return err
}

// stop ends the process as it should be ended, and by force if it does not.
func (s *server) stop() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(stopLimit):
		s.kill()
	}
}

// gone reports whether the process has ended.
func (s *server) gone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// resident is what the process has resident, in bytes.
func (s *server) resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if n, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(n), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%s: no VmRSS", s.name)
}

// await waits until a server answers, or has ended, or the time is up.
func await(s *server, answers func() error) error {
	var err error
	for began := time.Now(); time.Since(began) < startLimit; time.Sleep(50 * time.Millisecond) {
		if err = answers(); err == nil {
			return nil
		}
		if s.gone() {
			err = errors.New("it has ended")
			break
		}
	}
	log, _ := os.ReadFile(s.log)
	return fmt.Errorf("%s does not answer: %w\n%s", s.name, err, log[max(0, len(log)-4000):])
}

// ask runs a command, for a short time: what touches a mount is a process of its own.
func ask(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// given are the ports that free has given away.
var given struct {
	sync.Mutex
	ports map[int]bool
}

// free returns n ports of 127.0.0.1 that nobody uses.
func free(n int) (ports []int, err error) {
	given.Lock()
	defer given.Unlock()
	if given.ports == nil {
		given.ports = map[int]bool{}
	}
	for len(ports) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		if !given.ports[port] {
			given.ports[port] = true
			ports = append(ports, port)
		}
	}
	return ports, nil
}

func at(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
