package load

// Dial connects a client to a service. What an address looks like is the service's own affair. All clients of one
// worker are made and used on one goroutine.
type Dial func(address string) (Client, error)

// Client is one client of a lock service: what a process that needs locks has open.
type Client interface {
	// Lock names a lock that others may have used before. Whatever a service makes before it can grant is made.
	Lock(name string) (Lock, error)
	// Fresh names a lock that nobody ever used; Acquire makes what there is to make.
	Fresh(name string) (Lock, error)
	// Value names a value and makes it if it is not there.
	Value(name string) (Value, error)
	Close() error
}

// Lock is one client's handle of an exclusive lock.
type Lock interface {
	// Acquire waits for the lock.
	Acquire() error
	// Try takes the lock if nobody has it and says whether it did.
	Try() (bool, error)
	Release() error
	// Remove takes away what the lock leaves behind; nobody uses it any more.
	Remove() error
}

// Value is one client's handle of a small value that all clients can read.
type Value interface {
	// Read reads the value, which is at most as long as p, and returns its length.
	Read(p []byte) (int, error)
	Write(p []byte) error
	Remove() error
}
