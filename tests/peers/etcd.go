package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

// etcd is one cluster of three for both kinds of its locks.
var etcd struct {
	servers []*server
	clients []string
	started bool
	dead    *server
}

func etcdMutex() *service {
	return etcdService("etcd mutex", "three nodes; concurrency.Mutex, which is fair", func(c *etcdClient, name string) load.Lock {
		return &etcdMutexLock{c: c, m: concurrency.NewMutex(c.session, "/lock/"+name)}
	})
}

func etcdTransaction() *service {
	return etcdService("etcd txn", "three nodes; one transaction to take, one delete to release, a watch to wait: not fair",
		func(c *etcdClient, name string) load.Lock { return &etcdTxnLock{c, "/txn/" + name} })
}

func etcdService(name, what string, lock func(*etcdClient, string) load.Lock) *service {
	s := &service{Name: name, What: what, Kind: replicated}
	s.start = func(s *service, dir string) error {
		if !etcd.started {
			etcd.started = true
			if err := startEtcd(dir); err != nil {
				return err
			}
		}
		s.servers, s.addresses = etcd.servers, etcd.clients
		return nil
	}
	s.dial = func(address string) (load.Client, error) {
		node, soon := strings.CutSuffix(address, impatient)
		c, err := dialEtcd(node)
		if err != nil {
			return nil, err
		}
		session, err := concurrency.NewSession(c)
		if err != nil {
			c.Close()
			return nil, err
		}
		return &etcdClient{c, session, lock, soon}, nil
	}
	s.leader = func(*service) (outage func() error, others []string, err error) {
		for i, address := range etcd.clients {
			c, err := dialEtcd(address)
			if err != nil {
				return nil, nil, err
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(context.Background(), askLimit)
			defer cancel()
			status, err := c.Status(ctx, address)
			if err != nil {
				return nil, nil, err
			}
			if status.Leader == status.Header.MemberId {
				etcd.dead = etcd.servers[i]
				return etcd.dead.kill, hasty(slices.Delete(slices.Clone(etcd.clients), i, i+1)), nil
			}
		}
		return nil, nil, errors.New("etcd: no node leads")
	}
	s.recover = func(*service) error {
		if err := etcd.dead.launch(syscall.SIGKILL); err != nil {
			return err
		}
		return awaitEtcd(slices.Index(etcd.servers, etcd.dead))
	}
	return s
}

func startEtcd(dir string) error {
	ports, err := free(2 * hosts)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var cluster []string
	for i := range hosts {
		cluster = append(cluster, fmt.Sprintf("etcd%d=http://%s", i+1, at(ports[i])))
	}
	for i := range hosts {
		name := fmt.Sprintf("etcd%d", i+1)
		p, err := launch(dir, name, syscall.SIGKILL, self, "etcd", name, filepath.Join(dir, name+".data"), "http://"+at(ports[i]),
			"http://"+at(ports[hosts+i]), strings.Join(cluster, ","))
		if err != nil {
			return err
		}
		etcd.servers = append(etcd.servers, p)
		etcd.clients = append(etcd.clients, "http://"+at(ports[hosts+i]))
	}
	for i := range hosts {
		if err := awaitEtcd(i); err != nil {
			return err
		}
	}
	return nil
}

func awaitEtcd(i int) error {
	return await(etcd.servers[i], func() error {
		c, err := dialEtcd(etcd.clients[i])
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err = c.Get(ctx, "/") // through the leader
		return err
	})
}

// serveEtcd is the life of one node: NAME DIR PEER-URL CLIENT-URL CLUSTER.
func serveEtcd(args []string) error {
	c := embed.NewConfig()
	c.Name, c.Dir, c.LogLevel = args[0], args[1], "error"
	c.InitialCluster, c.ClusterState = args[4], embed.ClusterStateFlagNew
	for _, u := range []struct {
		to   []*[]url.URL
		text string
	}{
		{[]*[]url.URL{&c.ListenPeerUrls, &c.AdvertisePeerUrls}, args[2]},
		{[]*[]url.URL{&c.ListenClientUrls, &c.AdvertiseClientUrls}, args[3]},
	} {
		parsed, err := url.Parse(u.text)
		if err != nil {
			return err
		}
		for _, to := range u.to {
			*to = []url.URL{*parsed}
		}
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	select {
	case <-signals:
		return nil
	case err := <-e.Err():
		return err
	}
}

func dialEtcd(address string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: askLimit, Logger: zap.NewNop()})
}

// etcdClient is a client of one node, with a session.
type etcdClient struct {
	*clientv3.Client
	session *concurrency.Session
	lock    func(*etcdClient, string) load.Lock
	hasty   bool // see impatient
}

// etcdPatience bounds a call of an impatient client.
const etcdPatience = 300 * time.Millisecond

// context is that of a call.
func (c *etcdClient) context() (context.Context, context.CancelFunc) {
	if c.hasty {
		return context.WithTimeout(context.Background(), etcdPatience)
	}
	return context.Background(), func() {}
}

func (c *etcdClient) Lock(name string) (load.Lock, error)  { return c.lock(c, name), nil }
func (c *etcdClient) Fresh(name string) (load.Lock, error) { return c.lock(c, name), nil }
func (c *etcdClient) Value(name string) (load.Value, error) {
	return etcdValue{c, "/value/" + name}, nil
}

func (c *etcdClient) Close() error { return errors.Join(c.session.Close(), c.Client.Close()) }

type etcdMutexLock struct {
	c *etcdClient
	m *concurrency.Mutex
}

func (l *etcdMutexLock) Acquire() error {
	ctx, cancel := l.c.context()
	defer cancel()
	return l.m.Lock(ctx)
}

func (l *etcdMutexLock) Try() (bool, error) {
	err := l.m.TryLock(context.Background())
	if errors.Is(err, concurrency.ErrLocked) {
		return false, nil
	}
	return err == nil, err
}

func (l *etcdMutexLock) Release() error {
	ctx, cancel := l.c.context()
	defer cancel()
	return l.m.Unlock(ctx)
}

func (l *etcdMutexLock) Remove() error { return nil }

type etcdTxnLock struct {
	c   *etcdClient
	key string
}

func (l *etcdTxnLock) take(ctx context.Context) (took bool, revision int64, err error) {
	r, err := l.c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(l.key), "=", 0)).
		Then(clientv3.OpPut(l.key, "", clientv3.WithLease(l.c.session.Lease()))).Else(clientv3.OpGet(l.key)).Commit()
	if err != nil {
		return false, 0, err
	}
	took = r.Succeeded
	if !took { // taken by a transaction of this client whose answer was lost
		for _, kv := range r.Responses[0].GetResponseRange().Kvs {
			took = clientv3.LeaseID(kv.Lease) == l.c.session.Lease()
		}
	}
	return took, r.Header.Revision, nil
}

func (l *etcdTxnLock) Acquire() error {
	ctx, cancel := l.c.context()
	defer cancel()
	for {
		took, revision, err := l.take(ctx)
		if took || err != nil {
			return err
		}
		if err := l.gone(ctx, revision+1); err != nil {
			return err
		}
	}
}

// gone waits until the key is deleted at or after a revision.
func (l *etcdTxnLock) gone(ctx context.Context, revision int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for r := range l.c.Watch(ctx, l.key, clientv3.WithRev(revision)) {
		if err := r.Err(); err != nil {
			return err
		}
		for _, e := range r.Events {
			if e.Type == clientv3.EventTypeDelete {
				return nil
			}
		}
	}
	return errors.New("etcd: the watch ended")
}

func (l *etcdTxnLock) Try() (bool, error) {
	took, _, err := l.take(context.Background())
	return took, err
}

func (l *etcdTxnLock) Release() error {
	ctx, cancel := l.c.context()
	defer cancel()
	_, err := l.c.Delete(ctx, l.key)
	return err
}

func (l *etcdTxnLock) Remove() error { return nil }

type etcdValue struct {
	c   *etcdClient
	key string
}

// Read is serializable: what the node at hand knows, the fastest that etcd has.
func (v etcdValue) Read(p []byte) (int, error) {
	r, err := v.c.Get(context.Background(), v.key, clientv3.WithSerializable())
	if err != nil || len(r.Kvs) == 0 {
		return 0, err
	}
	return copy(p, r.Kvs[0].Value), nil
}

func (v etcdValue) Write(p []byte) error {
	_, err := v.c.Put(context.Background(), v.key, string(p))
	return err
}

func (v etcdValue) Remove() error {
	_, err := v.c.Delete(context.Background(), v.key)
	return err
}
