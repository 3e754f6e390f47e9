package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

// consul is measured where its program is found: Debian has none.
func consul() *service {
	s := &service{Name: "Consul", What: "three servers; session and key, a blocking query to wait: not fair", Kind: replicated}
	s.start = startConsul
	s.dial = dialConsul
	var dead *server
	s.leader = func(s *service) (func() error, []string, error) {
		for i, address := range s.addresses {
			var self struct {
				Stats struct{ Consul struct{ Leader string } }
			}
			if err := consulCall("GET", address, "/v1/agent/self", nil, &self); err != nil {
				return nil, nil, err
			}
			if self.Stats.Consul.Leader == "true" {
				dead = s.servers[i]
				return dead.kill, slices.Delete(slices.Clone(s.addresses), i, i+1), nil
			}
		}
		return nil, nil, errors.New("Consul: no server leads")
	}
	s.recover = func(s *service) error {
		if err := dead.launch(syscall.SIGKILL); err != nil {
			return err
		}
		return awaitConsul(s, slices.Index(s.servers, dead))
	}
	return s
}

func startConsul(s *service, dir string) error {
	binary, err := lookFor("consul", "consul")
	if err != nil {
		return err
	}
	const each = 4 // http, server, serf LAN, serf WAN
	ports, err := free(each * hosts)
	if err != nil {
		return err
	}
	for i := range hosts {
		name := fmt.Sprintf("consul%d", i+1)
		p := ports[each*i : each*(i+1)]
		c, err := launch(dir, name, syscall.SIGKILL, binary, "agent", "-server", "-node", name, "-bind", "127.0.0.1", "-client", "127.0.0.1",
			"-data-dir", filepath.Join(dir, name+".data"), "-bootstrap-expect", fmt.Sprint(hosts), "-http-port", fmt.Sprint(p[0]), "-dns-port", "-1",
			"-grpc-port", "-1", "-grpc-tls-port", "-1", "-server-port", fmt.Sprint(p[1]), "-serf-lan-port", fmt.Sprint(p[2]), "-serf-wan-port", fmt.Sprint(p[3]),
			"-retry-join", at(ports[2]), "-log-level", "error",
			"-hcl", "performance { raft_multiplier = 1 }", "-hcl", "limits { http_max_conns_per_client = 1000 }")
		if err != nil {
			return err
		}
		s.servers = append(s.servers, c)
		s.addresses = append(s.addresses, "http://"+at(p[0]))
	}
	for i := range hosts {
		if err := awaitConsul(s, i); err != nil {
			return err
		}
	}
	return nil
}

func awaitConsul(s *service, i int) error {
	return await(s.servers[i], func() error {
		var done bool
		return consulCall("PUT", s.addresses[i], "/v1/kv/ready", []byte("x"), &done)
	})
}

// consulHTTP keeps a connection for each of the clients.
var consulHTTP = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 200}, Timeout: 6 * time.Minute}

// consulCall makes a call and decodes its answer, unless answer is nil.
func consulCall(method, address, path string, body []byte, answer any) error {
	_, err := consulAsk(method, address, path, body, answer)
	return err
}

// consulAsk is consulCall that returns the index of the answer too; 404 leaves answer as it is.
func consulAsk(method, address, path string, body []byte, answer any) (index string, err error) {
	q, err := http.NewRequest(method, address+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r, err := consulHTTP.Do(q)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	index = r.Header.Get("X-Consul-Index")
	if r.StatusCode == http.StatusNotFound {
		return index, nil
	}
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("consul: %s %s: %s: %s", method, path, r.Status, strings.TrimSpace(string(data)))
	}
	if answer == nil {
		return index, nil
	}
	return index, json.Unmarshal(data, answer)
}

type consulClient struct{ address, session string }

func dialConsul(address string) (load.Client, error) {
	var made struct{ ID string }
	err := consulCall("PUT", address, "/v1/session/create", []byte(`{"TTL": "60s", "LockDelay": "0s", "Behavior": "delete"}`), &made)
	return consulClient{address, made.ID}, err
}

func (c consulClient) Lock(name string) (load.Lock, error) {
	return consulLock{c, "/v1/kv/" + name}, nil
}
func (c consulClient) Fresh(name string) (load.Lock, error) { return c.Lock(name) }
func (c consulClient) Value(name string) (load.Value, error) {
	return consulValue{c, "/v1/kv/" + name}, nil
}

func (c consulClient) Close() error {
	return consulCall("PUT", c.address, "/v1/session/destroy/"+c.session, nil, nil)
}

type consulLock struct {
	c    consulClient
	path string
}

func (l consulLock) Acquire() error {
	for {
		got, err := l.Try()
		if got || err != nil {
			return err
		}
		if err := l.wait(); err != nil {
			return err
		}
	}
}

// wait returns when the lock is, or may be, free.
func (l consulLock) wait() error {
	index := "0"
	for {
		var keys []struct{ Session string }
		next, err := consulAsk("GET", l.c.address, l.path+"?wait=60s&index="+index, nil, &keys)
		if err != nil || len(keys) == 0 || keys[0].Session == "" {
			return err
		}
		index = next
	}
}

func (l consulLock) Try() (got bool, err error) {
	err = consulCall("PUT", l.c.address, l.path+"?acquire="+l.c.session, nil, &got)
	return got, err
}

func (l consulLock) Release() error {
	var done bool
	err := consulCall("PUT", l.c.address, l.path+"?release="+l.c.session, nil, &done)
	if err == nil && !done {
		err = errors.New("the lock was not this client's")
	}
	return err
}

func (l consulLock) Remove() error { return consulCall("DELETE", l.c.address, l.path, nil, nil) }

type consulValue struct {
	c    consulClient
	path string
}

// Read is what the server at hand knows.
func (v consulValue) Read(p []byte) (int, error) {
	var keys []struct{ Value []byte }
	err := consulCall("GET", v.c.address, v.path+"?stale", nil, &keys)
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	return copy(p, keys[0].Value), nil
}

func (v consulValue) Write(p []byte) error { return consulCall("PUT", v.c.address, v.path, p, nil) }
func (v consulValue) Remove() error        { return consulCall("DELETE", v.c.address, v.path, nil, nil) }
