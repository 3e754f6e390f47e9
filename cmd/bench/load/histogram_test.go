package load

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestBuckets: every duration is in a bucket whose least is not above it and not below it by more than a 64th.
func TestBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Uint64Range(0, 1<<40).Draw(t, "ns")
		b := bucket(ns)
		if l := low(b); l > ns || ns-l > ns/64 || bucket(l) != b || b > 0 && low(b-1) >= l {
			t.Fatalf("%d is in bucket %d, which begins at %d", ns, b, l)
		}
	})
}

func TestQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Uint64Range(0, 1<<30), 1, 200).Draw(t, "ns")
		split := rapid.IntRange(0, len(values)).Draw(t, "split")
		var a, b histogram
		for i, v := range values {
			if i < split {
				a.add(v)
			} else {
				b.add(v)
			}
		}
		b.pack()
		wire := histogram{Sparse: b.Sparse, Ops: b.Ops, Max: b.Max}
		wire.unpack()
		a.merge(&wire)
		slices.Sort(values)
		for _, q := range []float64{0, 0.5, 0.9, 0.99} {
			want := low(bucket(values[int(q*float64(len(values)))]))
			if got := a.quantile(q); got != want {
				t.Fatalf("quantile %v is %d, want %d", q, got, want)
			}
		}
	})
}
