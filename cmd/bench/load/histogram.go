package load

import "math/bits"

// histogram counts durations in nanoseconds, exact to one part in 64.
type histogram struct {
	Count  [buckets]uint32 `json:"-"`
	Sparse []uint32        `json:"hist"` // pairs of bucket and count, for the way to the parent
	Ops    uint64          `json:"ops"`
	Max    uint64          `json:"max"`
}

const (
	subBits = 6
	buckets = (64 - subBits) << subBits
)

// bucket numbers the durations: below 2^subBits each its own, above with subBits significant bits.
func bucket(ns uint64) int {
	shift := max(0, bits.Len64(ns)-subBits-1)
	return shift<<subBits + int(ns>>shift)
}

// low is the least duration of a bucket.
func low(b int) uint64 {
	shift := max(0, b>>subBits-1)
	return uint64(b-shift<<subBits) << shift
}

func (h *histogram) add(ns uint64) {
	h.Count[min(bucket(ns), buckets-1)]++
	h.Ops++
	h.Max = max(h.Max, ns)
}

// merge adds another's counts.
func (h *histogram) merge(o *histogram) {
	for i, n := range o.Count {
		h.Count[i] += n
	}
	h.Ops += o.Ops
	h.Max = max(h.Max, o.Max)
}

// quantile returns the duration that a part q of all do not exceed, 0 without any.
func (h *histogram) quantile(q float64) uint64 {
	rank := uint64(q * float64(h.Ops))
	var seen uint64
	for i, n := range h.Count {
		seen += uint64(n)
		if n > 0 && seen > rank {
			return low(i)
		}
	}
	return h.Max
}

// pack and unpack are for the way from a worker to its parent.
func (h *histogram) pack() {
	for i, n := range h.Count {
		if n > 0 {
			h.Sparse = append(h.Sparse, uint32(i), n)
		}
	}
}

func (h *histogram) unpack() {
	for i := 0; i+1 < len(h.Sparse); i += 2 {
		h.Count[min(int(h.Sparse[i]), buckets-1)] = h.Sparse[i+1]
	}
	h.Sparse = nil
}
