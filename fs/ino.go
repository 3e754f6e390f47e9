package fs

// Node ids. The tree's own numbers stay below 1<<61.
const (
	rootIno = 1

	aliasBit   uint64 = 1 << 63 // an alias, numbered by a counter, one for each LOOKUP
	lockBit    uint64 = 1 << 62 // the .lock file of the directory in the other bits: its lock resource and value
	specialBit uint64 = 1 << 61 // a node of .lockfs

	lockName    = ".lock"
	specialName = ".lockfs" // reserved in the root only
)

// isAlias, isSpecial and isLockFile tell the node ids apart.
func isAlias(node uint64) bool    { return node&aliasBit != 0 }
func isSpecial(node uint64) bool  { return node>>61 == specialBit>>61 }
func isLockFile(node uint64) bool { return node>>62 == lockBit>>62 }

// resource returns the tree's inode number behind a node id that is neither an alias nor special.
func resource(node uint64) uint64 { return node &^ lockBit }
