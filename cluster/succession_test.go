package cluster

import (
	"testing"
	"time"
)

// TestSuccession: a leader whose daemon ended has a successor long before it would be missed.
func TestSuccession(t *testing.T) {
	c := newTestCluster(t, 4, testOptions{config: func(_ int, c *Config) { c.miss, c.calm = time.Minute, 2*time.Minute }})
	for range 2 {
		first := c.leader()
		insist(t, func() error { return propose(first.Node, openSession("x", 1)) })
		first.crash()
		<-first.gone
		began := time.Now()
		next := c.leader()
		if next == first || time.Since(began) > 30*time.Second {
			t.Fatalf("%s leads after %v", next.name(), time.Since(began))
		}
		insist(t, func() error { return propose(next.Node, openSession("x", 2)) })
		first.again()
	}
	c.agree()
}
