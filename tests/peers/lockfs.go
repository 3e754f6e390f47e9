package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// hosts is how many nodes a replicated service has.
const hosts = 3

// lockfsService is three daemons of one cluster, each with a mount.
func lockfsService(binary string) *service {
	s := &service{Name: "lockfs", What: "three daemons, three mounts", Kind: ours}
	var mounts []string
	ready := func(p *server) error {
		return await(p, func() error {
			log, err := os.ReadFile(p.log)
			if err != nil {
				return err
			}
			if !slices.Contains(strings.Split(string(log), "\n"), "ready") {
				return errors.New("it is not ready")
			}
			return nil
		})
	}
	s.start = func(s *service, dir string) error {
		ports, err := free(2 * hosts)
		if err != nil {
			return err
		}
		for i := range hosts {
			name := fmt.Sprintf("host%d", i+1)
			mount := filepath.Join(dir, name)
			if err := os.Mkdir(mount, 0o755); err != nil {
				return err
			}
			args := []string{binary, "mount", "--data-dir", filepath.Join(dir, name+".data"), "--name", name, "--voters", "3",
				"--bind", at(ports[i]), "--gossip", at(ports[hosts+i])}
			if i > 0 {
				args = append(args, "--join", at(ports[hosts]))
			}
			mounts = append(mounts, mount)
			p, err := launch(dir, name, syscall.SIGTERM, append(args, mount)...)
			if err != nil {
				return err
			}
			s.servers = append(s.servers, p)
			if err := ready(p); err != nil {
				return err
			}
		}
		if err := await(s.servers[0], func() error { return vote(mounts[0]) }); err != nil {
			return err
		}
		if _, err := ask("mkdir", filepath.Join(mounts[0], "bench")); err != nil {
			return err
		}
		for i, mount := range mounts {
			place := filepath.Join(mount, "bench")
			if err := await(s.servers[i], func() error { _, err := ask("stat", place); return err }); err != nil {
				return err
			}
			s.addresses = append(s.addresses, "open:"+place)
		}
		return nil
	}
	var dead *server
	s.leader = func(s *service) (func() error, []string, error) {
		for i, mount := range mounts {
			status, err := ask("cat", filepath.Join(mount, ".lockfs/status"))
			if err != nil {
				return nil, nil, err
			}
			if !slices.Contains(strings.Split(status, "\n"), "role=leader") {
				continue
			}
			dead = s.servers[i]
			return dead.kill, slices.Delete(slices.Clone(s.addresses), i, i+1), nil
		}
		return nil, nil, errors.New("lockfs: no host says that it leads")
	}
	s.recover = func(s *service) error {
		i := slices.Index(s.servers, dead)
		unix.Unmount(mounts[i], unix.MNT_DETACH)
		if err := os.Truncate(dead.log, 0); err != nil {
			return err
		}
		if err := dead.launch(syscall.SIGTERM); err != nil {
			return err
		}
		if err := ready(dead); err != nil {
			return err
		}
		place := filepath.Join(mounts[i], "bench")
		return await(dead, func() error { _, err := ask("stat", place); return err })
	}
	s.clear = func(*service) {
		for _, mount := range mounts {
			for unix.Unmount(mount, unix.MNT_DETACH) == nil {
				time.Sleep(time.Millisecond)
			}
		}
	}
	return s
}

// vote checks that all hosts vote.
func vote(mount string) error {
	voters, err := ask("sh", "-c", `cat "$1"/.lockfs/hosts/* | grep -cE '^role=(leader|voter)$'`, "sh", mount)
	if err == nil && strings.TrimSpace(voters) != fmt.Sprint(hosts) {
		err = fmt.Errorf("%s hosts vote", strings.TrimSpace(voters))
	}
	return err
}
