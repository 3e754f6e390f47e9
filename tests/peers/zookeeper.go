package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

// classpath is where Debian has ZooKeeper; the archive names what it needs.
const classpath = "/usr/share/java/zookeeper.jar"

// zkConfig is one node's configuration. forceSync, the fsync of the log, is on by default.
const zkConfig = `tickTime=500
initLimit=20
syncLimit=10
dataDir=%s
clientPort=%d
clientPortAddress=127.0.0.1
maxClientCnxns=0
maxSessionTimeout=60000
admin.enableServer=false
4lw.commands.whitelist=srvr
%s`

func zookeeper() *service {
	s := &service{Name: "ZooKeeper", What: "three nodes; the lock recipe, which is fair", Kind: replicated}
	s.start = startZooKeeper
	s.dial = dialZooKeeper
	var dead *server
	s.leader = func(s *service) (func() error, []string, error) {
		for i, address := range s.addresses {
			if mode, err := zkMode(address); err != nil {
				return nil, nil, err
			} else if mode == "leader" {
				dead = s.servers[i]
				return dead.kill, hasty(slices.Delete(slices.Clone(s.addresses), i, i+1)), nil
			}
		}
		return nil, nil, errors.New("ZooKeeper: no node leads")
	}
	s.recover = func(s *service) error {
		if err := dead.launch(syscall.SIGKILL); err != nil {
			return err
		}
		return awaitZooKeeper(s, slices.Index(s.servers, dead))
	}
	return s
}

func startZooKeeper(s *service, dir string) error {
	java, err := lookFor("java", "default-jre-headless")
	if err != nil {
		return err
	}
	if _, err := os.Stat(classpath); err != nil {
		return &missing{"zookeeper"}
	}
	ports, err := free(3 * hosts)
	if err != nil {
		return err
	}
	var members strings.Builder
	for i := range hosts {
		fmt.Fprintf(&members, "server.%d=127.0.0.1:%d:%d\n", i+1, ports[3*i+1], ports[3*i+2])
	}
	log4j := filepath.Join(dir, "log4j.properties")
	if err := os.WriteFile(log4j, []byte("log4j.rootLogger=ERROR, C\nlog4j.appender.C=org.apache.log4j.ConsoleAppender\n"+
		"log4j.appender.C.layout=org.apache.log4j.SimpleLayout\n"), 0o644); err != nil {
		return err
	}
	for i := range hosts {
		name := fmt.Sprintf("zookeeper%d", i+1)
		data, config := filepath.Join(dir, name+".data"), filepath.Join(dir, name+".cfg")
		if err := errors.Join(
			os.Mkdir(data, 0o755),
			os.WriteFile(filepath.Join(data, "myid"), []byte(fmt.Sprint(i+1)), 0o644),
			os.WriteFile(config, fmt.Appendf(nil, zkConfig, data, ports[3*i], members.String()), 0o644),
		); err != nil {
			return err
		}
		p, err := launch(dir, name, syscall.SIGKILL, java, "-Xmx1g", "-Dlog4j.configuration=file:"+log4j, "-cp", classpath,
			"org.apache.zookeeper.server.quorum.QuorumPeerMain", config)
		if err != nil {
			return err
		}
		s.servers = append(s.servers, p)
		s.addresses = append(s.addresses, at(ports[3*i]))
	}
	for i := range hosts {
		if err := awaitZooKeeper(s, i); err != nil {
			return err
		}
	}
	return nil
}

func awaitZooKeeper(s *service, i int) error {
	return await(s.servers[i], func() error { _, err := zkMode(s.addresses[i]); return err })
}

// zkMode asks a node whether it is leader or follower.
func zkMode(address string) (string, error) {
	c, err := net.DialTimeout("tcp", address, askLimit)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(askLimit))
	if _, err := c.Write([]byte("srvr")); err != nil {
		return "", err
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		if mode, ok := strings.CutPrefix(lines.Text(), "Mode: "); ok {
			return mode, nil
		}
	}
	return "", errors.Join(fmt.Errorf("%s is neither leader nor follower yet", address), lines.Err())
}

// zkSession is how long a session lives without its client.
const zkSession = 20 * time.Second

type quiet struct{}

func (quiet) Printf(string, ...any) {}

func dialZooKeeper(address string) (load.Client, error) {
	z := &zkClient{}
	z.address, z.hasty = strings.CutSuffix(address, impatient)
	return z, z.connect()
}

// zkClient is a client of one node, with a session.
type zkClient struct {
	address string
	hasty   bool // see impatient
	c       *zk.Conn
}

func (z *zkClient) connect() error {
	c, events, err := zk.Connect([]string{z.address}, zkSession, zk.WithLogger(quiet{}), zk.WithLogInfo(false))
	if err != nil {
		return err
	}
	z.c = c
	late := time.After(askLimit)
	for {
		select {
		case e := <-events:
			if e.State == zk.StateHasSession {
				return nil
			}
		case <-late:
			c.Close()
			return fmt.Errorf("ZooKeeper: no session with %s within %v", z.address, askLimit)
		}
	}
}

// make makes a node without a session.
func (z *zkClient) make(name string) (path string, err error) {
	path = "/" + name
	if _, err = z.c.Create(path, nil, 0, zk.WorldACL(zk.PermAll)); errors.Is(err, zk.ErrNodeExists) {
		err = nil
	}
	return path, err
}

func (z *zkClient) Lock(name string) (load.Lock, error) {
	if _, err := z.make(name); err != nil {
		return nil, err
	}
	return z.Fresh(name)
}

// Fresh leaves it to the recipe to make the lock's node.
func (z *zkClient) Fresh(name string) (load.Lock, error) {
	l := &zkLock{z: z, path: "/" + name}
	l.renew()
	return l, nil
}

func (z *zkClient) Value(name string) (load.Value, error) {
	path, err := z.make(name)
	return zkValue{z.c, path}, err
}

func (z *zkClient) Close() error { z.c.Close(); return nil }

type zkLock struct {
	z    *zkClient
	path string
	l    *zk.Lock
}

// renew begins anew, in the client's session.
func (l *zkLock) renew() { l.l = zk.NewLock(l.z.c, l.path, zk.WorldACL(zk.PermAll)) }

func (l *zkLock) Acquire() error {
	failed, err := l.bounded(l.l.Lock)
	return errors.Join(failed, err)
}

// Release is done if the session has ended: the lock has gone with it.
func (l *zkLock) Release() error {
	failed, err := l.bounded(l.l.Unlock)
	if !l.z.hasty {
		return failed
	}
	return err
}

// zkPatience bounds a call of an impatient client.
const zkPatience = time.Second

// bounded makes a call. If that of an impatient client fails, or is not answered in time, its session ends and another begins: the
// recipe can leave a node in the queue when a leader dies, and then waits for that node as long as its own session lives. err
// says that none could be begun.
func (l *zkLock) bounded(call func() error) (failed, err error) {
	if !l.z.hasty {
		return call(), nil
	}
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case failed = <-done:
	case <-time.After(zkPatience):
		failed = errors.New("no answer in time")
	}
	if failed != nil {
		l.z.c.Close()
		err = l.z.connect()
		l.renew()
	}
	return failed, err
}

// Try looks before it takes: the recipe has no other way.
func (l *zkLock) Try() (bool, error) {
	children, _, err := l.z.c.Children(l.path)
	if err != nil && !errors.Is(err, zk.ErrNoNode) {
		return false, err
	}
	if len(children) > 0 {
		return false, nil
	}
	return true, l.l.Lock()
}

func (l *zkLock) Remove() error { return l.z.c.Delete(l.path, -1) }

type zkValue struct {
	c    *zk.Conn
	path string
}

// Read is what the node at hand knows.
func (v zkValue) Read(p []byte) (int, error) {
	data, _, err := v.c.Get(v.path)
	return copy(p, data), err
}

func (v zkValue) Write(p []byte) error {
	_, err := v.c.Set(v.path, p, -1)
	return err
}

func (v zkValue) Remove() error { return v.c.Delete(v.path, -1) }
