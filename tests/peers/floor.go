package main

import (
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// onlyCalls are the workloads of calls alone: what a file system without locks by open can be asked.
func onlyCalls(reason string) map[string]string {
	return map[string]string{"W2": reason, "W3": reason, "W4": reason, "W5": reason, "W6": reason, "W7": reason, "W8": reason}
}

// tmpfs is flock(2) on a tmpfs: what one kernel does without any file system's help.
func tmpfs() *service {
	const reason = "one kernel"
	s := &service{Name: "flock", What: "flock(2) on a tmpfs of this kernel", Kind: local, not: map[string]string{"W5": reason}}
	var dir string
	s.start = func(s *service, _ string) (err error) {
		dir, err = os.MkdirTemp("/dev/shm", "lockfs-peers.")
		s.addresses = []string{"flock:" + dir}
		return err
	}
	s.clear = func(*service) { os.RemoveAll(dir) }
	return s
}

// loopback is go-fuse's own loopback file system: the same calls through FUSE, without a lock to take.
func loopback(binary string) *service {
	s := &service{Name: "loopback", What: "go-fuse's loopback file system on a tmpfs: the same calls, open takes no lock", Kind: local,
		not: onlyCalls("takes no lock")}
	var original, mount string
	s.start = func(s *service, dir string) (err error) {
		if original, err = os.MkdirTemp("/dev/shm", "lockfs-peers."); err != nil {
			return err
		}
		mount = filepath.Join(dir, "loopback")
		if err := os.Mkdir(mount, 0o755); err != nil {
			return err
		}
		p, err := launch(dir, "loopback", syscall.SIGTERM, binary, mount, original)
		if err != nil {
			return err
		}
		s.servers = []*server{p}
		s.addresses = []string{"open:" + mount}
		return await(p, func() error { _, err := ask("mountpoint", "-q", mount); return err })
	}
	s.clear = func(*service) {
		unix.Unmount(mount, unix.MNT_DETACH)
		os.RemoveAll(original)
	}
	return s
}
