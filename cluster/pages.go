package cluster

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
)

// bbolt trusts its file: a damaged page makes it panic or read outside its memory map, and only its two meta pages have
// a checksum. checkPages therefore walks the whole file (it is small) in a byte slice before bbolt opens it: both metas,
// every page that is reachable, the free list, and that each page is one or the other. The values carry checksums
// of their own (store.go).
//
// Layout: bbolt v1.5 internal/common/{page,meta,inode,bucket}.go.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageMeta     = 0x04
	pageFreelist = 0x10

	pageHeader    = 16
	pageElement   = 16
	bucketHeader  = 16
	bucketElement = 0x01
	noFreelist    = ^uint64(0)
)

// pageWalk is one pass over a bbolt file.
type pageWalk struct {
	b    []byte
	size uint64 // of a page
	used map[uint64]bool
	high uint64 // pages from here on are not in use
	kv   func(bucket string, key, value []byte) error
}

// checkPages says what is wrong with the bbolt file b, and calls kv for each value of each top-level bucket.
func checkPages(b []byte, kv func(bucket string, key, value []byte) error) (err error) {
	defer func() {
		if r := recover(); r != nil { // an offset that leads out of the file
			err = fmt.Errorf("a page leads outside the file (%v)", r)
		}
	}()
	if len(b) < 2*pageHeader+128 {
		return fmt.Errorf("the file is too short (%d bytes)", len(b))
	}
	w := pageWalk{b: b, kv: kv, used: map[uint64]bool{}}
	w.size = uint64(binary.LittleEndian.Uint32(b[pageHeader+8:]))
	if w.size < 1024 || w.size > 1<<16 || w.size&(w.size-1) != 0 || uint64(len(b)) < 4*w.size {
		return fmt.Errorf("page 0 names an impossible page size (%d)", w.size)
	}
	var newest meta
	for id := range uint64(2) {
		m, err := w.meta(id)
		if err != nil {
			return err
		}
		if id == 0 || m.txid > newest.txid {
			newest = m
		}
	}
	if newest.high*w.size > uint64(len(b)) {
		return fmt.Errorf("the file is truncated: %d bytes of at least %d", len(b), newest.high*w.size)
	}
	w.high = newest.high
	w.used[0], w.used[1] = true, true
	if err := w.bucket(newest.root, "", nil); err != nil {
		return err
	}
	return w.free(newest.freelist)
}

type meta struct{ root, freelist, high, txid uint64 }

func (w *pageWalk) meta(id uint64) (meta, error) {
	p := w.b[id*w.size : (id+1)*w.size]
	m := p[pageHeader:]
	sum := fnv.New64a()
	sum.Write(m[:56])
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(m[at:]) }
	switch {
	case binary.LittleEndian.Uint32(m) != boltMagic,
		binary.LittleEndian.Uint16(p[8:]) != pageMeta,
		binary.LittleEndian.Uint32(m[4:]) != boltVersion,
		uint64(binary.LittleEndian.Uint32(m[8:])) != w.size,
		u64(56) != sum.Sum64():
		return meta{}, fmt.Errorf("page %d (a meta page) is damaged", id)
	}
	return meta{root: u64(16), freelist: u64(32), high: u64(40), txid: u64(48)}, nil
}

// bucket walks a bucket from its root page; an inline bucket has its page in the value.
func (w *pageWalk) bucket(root uint64, name string, inline []byte) error {
	if root == 0 && inline != nil {
		return w.elements(0, inline, name)
	}
	return w.page(root, name)
}

func (w *pageWalk) page(id uint64, bucket string) error {
	p, err := w.take(id)
	if err != nil {
		return err
	}
	return w.elements(id, p, bucket)
}

// take returns a page with its overflow pages and counts them as used.
func (w *pageWalk) take(id uint64) ([]byte, error) {
	if id < 2 || id >= w.high {
		return nil, fmt.Errorf("a page number is out of range (%d)", id)
	}
	p := w.b[id*w.size:]
	over := uint64(binary.LittleEndian.Uint32(p[12:]))
	if binary.LittleEndian.Uint64(p) != id || id+over >= w.high {
		return nil, fmt.Errorf("page %d is damaged", id)
	}
	for i := id; i <= id+over; i++ {
		if w.used[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.used[i] = true
	}
	return p[:(over+1)*w.size], nil
}

func (w *pageWalk) elements(id uint64, p []byte, bucket string) error {
	flags, count := binary.LittleEndian.Uint16(p[8:]), int(binary.LittleEndian.Uint16(p[10:]))
	var last []byte
	for i := range count {
		at := pageHeader + i*pageElement
		e := p[at : at+pageElement]
		u32 := func(o int) int { return int(binary.LittleEndian.Uint32(e[o:])) }
		var key []byte
		switch flags {
		case pageBranch:
			key = p[at+u32(0):][:u32(4)]
			if err := w.page(binary.LittleEndian.Uint64(e[8:]), bucket); err != nil {
				return err
			}
		case pageLeaf:
			key = p[at+u32(4):][:u32(8)]
			value := p[at+u32(4)+u32(8):][:u32(12)]
			if err := w.leaf(u32(0), bucket, key, value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("page %d is of an unknown kind (%#x)", id, flags)
		}
		if i > 0 && slices.Compare(last, key) >= 0 {
			return fmt.Errorf("page %d is out of order", id)
		}
		last = key
	}
	if flags != pageLeaf && (flags != pageBranch || count == 0) {
		return fmt.Errorf("page %d is of an unknown kind (%#x)", id, flags)
	}
	return nil
}

func (w *pageWalk) leaf(flags int, bucket string, key, value []byte) error {
	switch {
	case flags&bucketElement == 0 && bucket != "":
		return w.kv(bucket, key, value)
	case flags&bucketElement != 0 && bucket == "":
		return w.bucket(binary.LittleEndian.Uint64(value), string(key), value[bucketHeader:])
	}
	return fmt.Errorf("%q is not where it belongs", key)
}

// free checks the free list: in range, and together with the used pages every page once.
func (w *pageWalk) free(id uint64) error {
	if id == noFreelist {
		return fmt.Errorf("the free list is missing")
	}
	p, err := w.take(id)
	if err != nil {
		return err
	}
	if flags := binary.LittleEndian.Uint16(p[8:]); flags != pageFreelist {
		return fmt.Errorf("page %d is not the free list (%#x)", id, flags)
	}
	count, at := uint64(binary.LittleEndian.Uint16(p[10:])), uint64(pageHeader)
	if count == 0xffff {
		count, at = binary.LittleEndian.Uint64(p[at:]), at+8
	}
	for i := range count {
		free := binary.LittleEndian.Uint64(p[at+8*i:])
		if free < 2 || free >= w.high || w.used[free] {
			return fmt.Errorf("the free list names page %d, which is not free", free)
		}
		w.used[free] = true
	}
	if uint64(len(w.used)) != w.high {
		return fmt.Errorf("%d of %d pages are neither used nor free", w.high-uint64(len(w.used)), w.high)
	}
	return nil
}
