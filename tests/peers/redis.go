package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

// fsyncAlways is Redis's log with an fsync before every answer; inMemory is nothing on disk.
var (
	fsyncAlways = []string{"--appendonly", "yes", "--appendfsync", "always"}
	inMemory    = []string{"--appendonly", "no"}
)

func redisVolatile() *service {
	return redisService("Redis", "one server, nothing on disk; SET NX, polled: not fair", volatile, 1, inMemory)
}

func redisDurable() *service {
	return redisService("Redis fsync", "one server, appendfsync always; SET NX, polled: not fair", durable, 1, fsyncAlways)
}

func redlock() *service {
	s := redisService("Redlock", "majority of three servers that know nothing of each other, appendfsync always, polled: not fair", durable,
		hosts, fsyncAlways)
	s.not = map[string]string{"W7": "no common value"}
	s.leader = func(s *service) (func() error, []string, error) { return s.servers[0].kill, s.addresses, nil }
	s.recover = func(s *service) error {
		if err := s.servers[0].launch(syscall.SIGKILL); err != nil {
			return err
		}
		return awaitRedis(s.servers[0], strings.Split(s.addresses[0], ",")[0])
	}
	return s
}

func redisService(name, what string, k kind, n int, flags []string) *service {
	s := &service{Name: name, What: what, Kind: k, dial: dialRedis, not: map[string]string{"W5": "one server"}}
	s.start = func(s *service, dir string) error {
		binary, err := lookFor("redis-server", "redis-server")
		if err != nil {
			return err
		}
		ports, err := free(n)
		if err != nil {
			return err
		}
		var all []string
		for i, port := range ports {
			id := fmt.Sprintf("%s%d", strings.ReplaceAll(strings.ToLower(name), " ", "-"), i+1)
			args := append([]string{binary, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning", "--dir", dir,
				"--appenddirname", id + ".data"}, flags...)
			p, err := launch(dir, id, syscall.SIGKILL, args...)
			if err != nil {
				return err
			}
			s.servers = append(s.servers, p)
			all = append(all, at(port))
			if err := awaitRedis(p, at(port)); err != nil {
				return err
			}
		}
		s.addresses = []string{strings.Join(all, ",")}
		return nil
	}
	return s
}

// silent keeps the library from printing what its calls answer anyway.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

func init() { redis.SetLogger(silent{}) }

func awaitRedis(p *server, address string) error {
	return await(p, func() error {
		c := redis.NewClient(&redis.Options{Addr: address, MaxRetries: -1})
		defer c.Close()
		return c.Ping(context.Background()).Err()
	})
}

// redisClient has a connection to each server; a lock needs a majority of them.
type redisClient struct {
	servers []*redis.Client
	token   string // the value of its keys
}

func dialRedis(address string) (load.Client, error) {
	c := &redisClient{token: rand.Text()}
	for a := range strings.SplitSeq(address, ",") {
		c.servers = append(c.servers, redis.NewClient(&redis.Options{Addr: a, PoolSize: 2, MaxRetries: -1, DialTimeout: time.Second,
			DialerRetries: 1, ReadTimeout: askLimit}))
	}
	return c, nil
}

func (c *redisClient) Lock(name string) (load.Lock, error)  { return redisLock{c, name}, nil }
func (c *redisClient) Fresh(name string) (load.Lock, error) { return redisLock{c, name}, nil }
func (c *redisClient) Value(name string) (load.Value, error) {
	return redisValue{c.servers[0], name}, nil
}

func (c *redisClient) Close() error {
	var errs []error
	for _, s := range c.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// all asks every server at once and returns how many did it; err is an answer that is an error.
func (c *redisClient) all(do func(*redis.Client) (bool, error)) (n int, err error) {
	if len(c.servers) == 1 {
		done, err := do(c.servers[0])
		if done {
			n = 1
		}
		return n, err
	}
	type answer struct {
		done bool
		err  error
	}
	answers := make(chan answer, len(c.servers))
	for _, s := range c.servers {
		go func() {
			done, err := do(s)
			answers <- answer{done, err}
		}()
	}
	for range c.servers {
		a := <-answers
		if a.done {
			n++
		}
		err = errors.Join(err, a.err)
	}
	return n, err
}

type redisLock struct {
	c    *redisClient
	name string
}

// redisTTL is when a lock is taken away from its holder; pollMin and pollMax are how long a client waits before it looks again.
const (
	redisTTL = 10 * time.Minute
	pollMin  = 100 * time.Microsecond
	pollMax  = 2 * time.Millisecond
)

func (l redisLock) Acquire() error {
	for wait := pollMin; ; wait = min(2*wait, pollMax) {
		got, err := l.Try()
		if got || err != nil {
			return err
		}
		// Jitter, or two clients that each have one of three servers try at the same moment again.
		time.Sleep(wait/2 + time.Duration(time.Now().UnixNano())%wait)
	}
}

func (l redisLock) Try() (bool, error) {
	n, err := l.c.all(func(s *redis.Client) (bool, error) {
		return s.SetNX(context.Background(), l.name, l.c.token, redisTTL).Result()
	})
	if n > len(l.c.servers)/2 {
		return true, nil
	}
	if n > 0 {
		l.Release()
	}
	if len(l.c.servers) > 1 { // a minority may be down
		err = nil
	}
	return false, err
}

// release deletes the key if it is this client's.
var release = redis.NewScript(`if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end`)

func (l redisLock) Release() error {
	n, err := l.c.all(func(s *redis.Client) (bool, error) {
		n, err := release.Run(context.Background(), s, []string{l.name}, l.c.token).Int()
		return n == 1, err
	})
	if n > len(l.c.servers)/2 {
		return nil
	}
	return errors.Join(errors.New("the lock was not this client's"), err)
}

func (l redisLock) Remove() error { return nil }

type redisValue struct {
	c    *redis.Client
	name string
}

func (v redisValue) Read(p []byte) (int, error) {
	data, err := v.c.Get(context.Background(), v.name).Bytes()
	if errors.Is(err, redis.Nil) {
		return 0, nil
	}
	return copy(p, data), err
}

func (v redisValue) Write(p []byte) error { return v.c.Set(context.Background(), v.name, p, 0).Err() }
func (v redisValue) Remove() error        { return v.c.Del(context.Background(), v.name).Err() }
