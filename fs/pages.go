package fs

import (
	"sync"
	"time"

	"github.com/lockfs/lockfs/lockd/state"
)

// pages knows of which inodes the kernel may have cached pages.
//
// A read through the page cache takes the size from the kernel's attributes and the bytes from a page, so a value
// that changes between the two would be read half old, half new. Hence three rules. Only values of one page are
// cached that have not changed for a second. A cached READ is answered with the value of the attributes that the kernel
// was told last, not with the newest: if those were older, the change's invalidation makes the kernel ask for
// attributes again before the next read, and pages go when mtime or size has changed. And what is larger, or changes
// often, is read by DIRECT_IO.
type pages struct {
	mu    sync.Mutex
	inode map[uint64]*page // by node id
}

type page struct {
	generation uint64      // that the last cached open was told of
	node       *state.Node // whose attributes the kernel was told last
	opens      int         // cached descriptors
}

const (
	cacheSize   = 4096        // of the largest value that is cached
	cacheStable = time.Second // how long a value has stood when it is cached
)

// cacheable reports whether plain descriptors may read a value through the page cache.
func cacheable(n *state.Node, now time.Time) bool {
	return len(n.Value) <= cacheSize && now.UnixNano()-n.Mtime > int64(cacheStable)
}

// open notes a cached descriptor and reports whether pages of former ones are still good.
func (p *pages) open(node uint64, n *state.Node) (keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inode == nil {
		p.inode = make(map[uint64]*page)
	}
	e := p.inode[node]
	if e == nil {
		e = &page{generation: n.Generation, node: n}
		p.inode[node] = e
	} else {
		keep = e.generation == n.Generation
		e.generation = n.Generation
	}
	e.opens++
	return keep
}

// close ends a cached descriptor.
func (p *pages) close(node uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.inode[node]; e != nil {
		e.opens--
	}
}

// told notes what attributes the kernel was told.
func (p *pages) told(node uint64, n *state.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.inode[node]; e != nil && n.Generation >= e.node.Generation {
		e.node = n
	}
}

// value returns the node that a cached READ is answered from, nil if there is none.
func (p *pages) value(node uint64) *state.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.inode[node]; e != nil {
		return e.node
	}
	return nil
}

// forget drops an inode that the kernel has dropped, and its pages with it.
func (p *pages) forget(node uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e := p.inode[node]; e != nil && e.opens == 0 {
		delete(p.inode, node)
	}
}

// all returns the node ids that the kernel may have pages of.
func (p *pages) all() []uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	nodes := make([]uint64, 0, len(p.inode))
	for node := range p.inode {
		nodes = append(nodes, node)
	}
	return nodes
}
