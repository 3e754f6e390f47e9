package inotify

// What package fs asks when a request comes of the Raiser's own thread, and of no other. No such request ever does anything.

// Own reports whether a request of that thread is the Raiser's own.
func (r *Raiser) Own(thread uint32) bool { return thread == r.thread.ID() }

// Shown returns what a name leads to as far as watchers know; differs is false if that is as it is.
func (r *Raiser) Shown(n Name) (e Entry, differs bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.world.Shown(n)
}

// PermitsMake returns what a name is to lead to that is made, and whether it is the Raiser's call.
func (r *Raiser) PermitsMake(n Name, dir bool) (Entry, bool) {
	s := r.acting()
	if s == nil || !s.Made || s.Name != n || s.Entry.Dir != dir {
		return Entry{}, false
	}
	return s.Entry, true
}

// PermitsRemove reports whether the removal of a name is the Raiser's call.
func (r *Raiser) PermitsRemove(n Name, dir bool) bool {
	s := r.acting()
	return s != nil && !s.Made && !s.Move() && s.Name == n && s.Entry.Dir == dir
}

// PermitsMove reports whether a move is the Raiser's call.
func (r *Raiser) PermitsMove(from, to Name) bool {
	s := r.acting()
	return s != nil && s.Move() && s.Name == from && s.To == to
}

// PermitsTouch reports whether a change of a node's times is the Raiser's call.
func (r *Raiser) PermitsTouch(node uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.node == node
}

func (r *Raiser) acting() *Step {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.world.Acting()
}
