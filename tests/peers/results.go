package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

// measured are the figures of one measurement.
type measured struct {
	load.Figures
	BytesPerLock float64 `json:"bytes_per_lock,omitempty"` // W4: what the servers have grown
}

// cell is a workload on a service.
type cell struct {
	Workload string     `json:"workload"`
	Clients  int        `json:"clients"`
	Service  string     `json:"service"`
	Not      string     `json:"not,omitempty"` // why nothing was measured
	Rounds   []measured `json:"rounds,omitempty"`
}

// results are all cells, and of what run.
type results struct {
	Date     string     `json:"date"`
	Cores    int        `json:"cores"`
	Kernel   string     `json:"kernel"`
	For      string     `json:"for"`
	Rounds   int        `json:"rounds"`
	Services []*service `json:"services"`
	Cells    []*cell    `json:"cells"`
}

func newResults(o options) *results {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return &results{Date: time.Now().Format(time.DateOnly), Cores: runtime.NumCPU(), Kernel: strings.TrimSpace(string(kernel)),
		For: o.duration.String(), Rounds: o.rounds}
}

func (r *results) add(s *service) { r.Services = append(r.Services, s) }

// cell finds a cell, and makes it if need be.
func (r *results) cell(workload string, clients int, s *service) *cell {
	if c := r.look(workload, clients, s.Name); c != nil {
		return c
	}
	c := &cell{Workload: workload, Clients: clients, Service: s.Name}
	r.Cells = append(r.Cells, c)
	return c
}

// look finds a cell; nil if there is none.
func (r *results) look(workload string, clients int, service string) *cell {
	for _, c := range r.Cells {
		if c.Workload == workload && c.Clients == clients && c.Service == service {
			return c
		}
	}
	return nil
}

func (r *results) put(workload string, clients int, s *service, m measured) {
	c := r.cell(workload, clients, s)
	c.Rounds = append(c.Rounds, m)
}

func (r *results) leave(workload string, clients int, s *service, reason string) {
	r.cell(workload, clients, s).Not = reason
}

// fail notes an error, which takes the place of all rounds: figures of a lock that does not do what it is for are none.
func (r *results) fail(workload string, clients int, s *service, err error) {
	r.leave(workload, clients, s, "failed: "+strings.SplitN(err.Error(), "\n", 2)[0])
}

// middle is the round in the middle.
func (c *cell) middle() (measured, bool) {
	if c == nil || len(c.Rounds) == 0 || strings.HasPrefix(c.Not, "failed") {
		return measured{}, false
	}
	of := make([]load.Figures, len(c.Rounds))
	for i, m := range c.Rounds {
		of[i] = m.Figures
	}
	f := load.Middle(of)
	i := slices.Index(of, f)
	return c.Rounds[max(i, 0)], true
}

// String is one round, for the log.
func (m measured) String() string {
	text := fmt.Sprintf("%.0f/s, p50 %s, p99 %s", m.OpsPerSecond, span(float64(m.P50)), span(float64(m.P99)))
	if h := m.HandOff; h != nil {
		text += fmt.Sprintf(", %.0f hand-offs/s of %s, longest wait %.1f fair ones, shares %.2f to %.2f", h.PerSecond, span(float64(h.P50)),
			h.WaitToFair, h.LeastShare, h.MostShare)
	}
	if o := m.Outage; o != nil {
		text += fmt.Sprintf(", new lock after %s, warm gap %s, %d failures", span(float64(o.NewLock)), span(float64(o.WarmGap)), o.Failures)
	}
	if n := m.News; n != nil {
		text += fmt.Sprintf(", %d values, seen after %s", n.Changes, span(float64(n.P50)))
	}
	if m.BytesPerLock != 0 {
		text += fmt.Sprintf(", %.2f s, %.0f bytes a lock", m.Elapsed.Seconds(), m.BytesPerLock)
	}
	return text
}

// span is a duration in nanoseconds with three digits.
func span(ns float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if ns >= u.size {
			return digits(ns/u.size) + " " + u.name
		}
	}
	return fmt.Sprintf("%.0f ns", ns)
}

// digits is a number with three significant digits, thousands apart.
func digits(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 1000:
		return fmt.Sprintf("%d,%03d", int(v+0.5)/1000, int(v+0.5)%1000)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// write writes results.json, table.md and ratios.svg.
func (r *results) write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	for _, f := range []struct{ name, text string }{
		{"results.json", string(data)}, {"table.md", r.table()}, {"ratios.svg", r.plot()},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), []byte(f.text), 0o644); err != nil {
			return err
		}
	}
	fmt.Print(r.table())
	return nil
}
