package queue

import (
	"maps"
	"slices"
)

// This file keeps the lists and their counts in step.

// position returns where the holder's lock is in granted, or -1.
func (q *Queue[H]) position(h H) int {
	if q.index != nil {
		if i, ok := q.index[h]; ok {
			return int(i)
		}
		return -1
	}
	for i := range q.granted {
		if q.granted[i].holder == h {
			return i
		}
	}
	return -1
}

// indexed enters the lock at i, the last, in the index, and makes one when
// they have become many.
func (q *Queue[H]) indexed(i int) {
	if q.index != nil {
		q.index[q.granted[i].holder] = int32(i)
		return
	}
	if len(q.granted) <= indexAbove {
		return
	}
	q.index = make(map[H]int32, 2*len(q.granted))
	for i := range q.granted {
		q.index[q.granted[i].holder] = int32(i)
	}
}

// drop removes the lock at i; the last takes its place.
func (q *Queue[H]) drop(i int) {
	last := len(q.granted) - 1
	gone := q.granted[i]
	q.granted[i] = q.granted[last]
	q.granted[last] = held[H]{}
	q.granted = q.granted[:last]
	q.sub(gone.mode)
	if q.index != nil {
		delete(q.index, gone.holder)
		if i < last {
			q.index[q.granted[i].holder] = int32(i)
		}
	}
	if last == 0 {
		q.index = nil
		q.granted = spare(q.granted)
	}
}

// spare returns an empty list with the room of one that was emptied, unless
// that is much: a resource keeps no trace of its busiest hour.
func spare[E any](emptied []E) []E {
	if cap(emptied) > 4*indexAbove {
		return nil
	}
	return emptied[:0]
}

// setMode changes the mode of the lock at i.
func (q *Queue[H]) setMode(i int, m Mode) {
	q.sub(q.granted[i].mode)
	q.granted[i].mode = m
	q.add(m)
}

func (q *Queue[H]) add(m Mode) {
	q.count[m]++
	q.present |= m.bit()
}

func (q *Queue[H]) sub(m Mode) {
	q.count[m]--
	if q.count[m] == 0 {
		q.present &^= m.bit()
	}
}

// waiters returns the line: the conversions, then the new requests.
func (q *Queue[H]) waiters() []waiter[H] {
	if q.line == nil {
		return nil
	}
	return q.line.list[q.line.head:]
}

// conversions returns how many of the line are conversions.
func (q *Queue[H]) conversions() int {
	if q.line == nil {
		return 0
	}
	return int(q.line.nconv)
}

// find returns the holder's place in the line, or -1.
func (q *Queue[H]) find(h H) int {
	line := q.waiters()
	for i := range line {
		if line[i].holder == h {
			return i
		}
	}
	return -1
}

// place returns where in the line a request belongs that has to wait.
func (q *Queue[H]) place(w *waiter[H]) int {
	switch {
	case w.conv && w.flags&HeadQue != 0:
		return 0
	case w.conv || w.flags&HeadQue != 0:
		return q.conversions()
	}
	return q.Waiters()
}

// passes returns 1 if w might overtake others in the line: NL, which the
// ceiling alone holds up, and who has own entries.
func (w *waiter[H]) passes() uint32 {
	if w.mode == NL || len(w.own) > 0 {
		return 1
	}
	return 0
}

// insert puts w at place i of the line.
func (q *Queue[H]) insert(i int, w waiter[H]) {
	if q.line == nil {
		q.line = new(line[H])
		q.line.list = q.line.room[:0]
	}
	l := q.line
	if l.head > 0 && len(l.list) == cap(l.list) {
		n := copy(l.list, q.waiters())
		clear(l.list[n:])
		l.list, l.head = l.list[:n], 0
	}
	l.list = slices.Insert(l.list, int(l.head)+i, w)
	if w.conv {
		l.nconv++
	}
	l.passers += w.passes()
}

// remove takes the waiter at place i out of the line. From the front it costs
// nothing; the room is used again. The last one takes the line with it.
func (q *Queue[H]) remove(i int) {
	l := q.line
	at := int(l.head) + i
	w := &l.list[at]
	if w.conv {
		l.nconv--
	}
	l.passers -= w.passes()
	switch {
	case q.Waiters() == 1:
		q.line = nil
	case i == 0:
		*w = waiter[H]{}
		l.head++
	default:
		l.list = slices.Delete(l.list, at, at+1)
	}
}

// Clone returns a copy that shares nothing that either of them changes.
func (q *Queue[H]) Clone() Queue[H] {
	c := *q
	c.granted = slices.Clone(q.granted)
	c.index = maps.Clone(q.index)
	if q.line != nil {
		c.line = &line[H]{list: slices.Clone(q.waiters()), nconv: q.line.nconv, passers: q.line.passers}
	}
	return c
}
