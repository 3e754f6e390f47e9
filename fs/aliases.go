package fs

import "sync"

// aliasNode is the inode of an alias: what it names, and of which file. LOOKUP makes a new one each time, so that
// nothing of it is ever shared or stale.
type aliasNode struct {
	alias
	node uint64 // of the file or .lock file that it is an alias of
}

// aliases are the alias inodes that the kernel knows.
type aliases struct {
	mu    sync.Mutex
	last  uint64
	nodes map[uint64]aliasNode
}

// add returns the node id of a new alias.
func (t *aliases) add(a aliasNode) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.nodes == nil {
		t.nodes = make(map[uint64]aliasNode)
	}
	t.last++
	node := aliasBit | t.last
	t.nodes[node] = a
	return node
}

// get returns the alias of a node id, if the kernel still has it.
func (t *aliases) get(node uint64) (aliasNode, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.nodes[node]
	return a, ok
}

// forget drops an alias: its one LOOKUP was forgotten.
func (t *aliases) forget(node uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.nodes, node)
}
