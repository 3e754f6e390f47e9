package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/lockfs/lockfs/cmd/bench/load"
)

// made are results of lockfs and three peers: W1 of all, W3 of the two that are replicated, one of which is not fair.
func made() *results {
	r := &results{Rounds: 3}
	us, fair, unfair, memory := &service{Name: "lockfs", Kind: ours}, &service{Name: "fair", Kind: replicated},
		&service{Name: "unfair", Kind: replicated}, &service{Name: "memory", Kind: volatile}
	for _, s := range []*service{us, fair, unfair, memory} {
		r.add(s)
	}
	for s, v := range map[*service]float64{us: 1000, fair: 10, unfair: 20, memory: 500} {
		for _, off := range []float64{0, -5, 5} { // the middle is v
			r.put("W1", 1, s, measured{Figures: load.Figures{OpsPerSecond: v + off}})
		}
	}
	for s, h := range map[*service]load.HandOff{us: {PerSecond: 100, WaitToFair: 6}, fair: {PerSecond: 10, WaitToFair: 1}, unfair: {PerSecond: 90, WaitToFair: 50}} {
		r.put("W3", 16, s, measured{Figures: load.Figures{OpsPerSecond: h.PerSecond, HandOff: &h}})
	}
	return r
}

func TestTable(t *testing.T) {
	r := made()
	r.fail("W3", 16, &service{Name: "memory"}, errors.New("the lock does not exclude"))
	table := r.table()
	for _, want := range []string{
		"| W1 | 1 | pairs/s | 1,000 | 10.0 | 20.0 | 500 |\n",
		"| W3 | 16 | hand-offs/s | 100 | 10.0 | 90.0 | failed |\n",
		"| W1, 1: pairs/s | at least 30 times the best replicated peer (unfair) | 50 times | met |\n",
		"| W1, 1: pairs/s | at least 3 times Redis in memory (memory) | 2 times | **missed** |\n",
		"| W3, 16: hand-offs/s | at least 10 times the best fair replicated peer (fair) | 10 times | met |\n",
		"| W3, 16: longest wait, in fair turns | at most 5.00 | 6.00 | **missed** |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
}

// TestFailed: one round that failed takes the others' figures away.
func TestFailed(t *testing.T) {
	r := made()
	r.fail("W1", 1, r.Services[1], errors.New("a value went back"))
	if _, ok := r.look("W1", 1, "fair").middle(); ok {
		t.Error("figures of a service that failed")
	}
}

func TestPlot(t *testing.T) {
	plot := made().plot()
	d := xml.NewDecoder(strings.NewReader(plot))
	circles := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, plot)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	// W1: 3 ratios; W3: 2 of hand-offs, 2 of waits, none of shares, which are 0; and 3 in the legend.
	if circles != 3+2+2+3 {
		t.Errorf("%d dots, want 10:\n%s", circles, plot)
	}
}

func TestDigits(t *testing.T) {
	for v, want := range map[float64]string{0.126: "0.13", 12.34: "12.3", 123.4: "123", 1234.4: "1,234", 1099.9: "1,100", 1234567: "1.23 M"} {
		if got := digits(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
	if got := span(1.5e6); got != "1.50 ms" {
		t.Errorf("span is %q", got)
	}
}
