package fs

import "sync"

// opened is what a handle id stands for: *handle, *dirHandle or a file of .lockfs.
type opened any

// handles gives out the ids of open files. An id is never given out twice, so that one that the kernel should no
// longer know leads nowhere.
type handles struct {
	mu    sync.Mutex
	slots []handleSlot
	free  []uint32 // slots without a file
	count int
}

type handleSlot struct {
	turn uint32 // how often the slot was used: the upper half of the id
	file opened
}

// add returns a new id, which is not 0.
func (t *handles) add(file opened) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var at uint32
	if n := len(t.free); n > 0 {
		at, t.free = t.free[n-1], t.free[:n-1]
	} else {
		at = uint32(len(t.slots))
		t.slots = append(t.slots, handleSlot{})
	}
	s := &t.slots[at]
	s.turn++
	s.file = file
	t.count++
	return uint64(s.turn)<<32 | uint64(at)
}

// get returns the open file, or nil.
func (t *handles) get(id uint64) opened {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.slot(id); s != nil {
		return s.file
	}
	return nil
}

// remove takes the id away and returns its file, or nil.
func (t *handles) remove(id uint64) opened {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.slot(id)
	if s == nil {
		return nil
	}
	file := s.file
	s.file = nil
	t.count--
	t.free = append(t.free, uint32(id))
	return file
}

// all returns every open file.
func (t *handles) all() []opened {
	t.mu.Lock()
	defer t.mu.Unlock()
	files := make([]opened, 0, t.count)
	for i := range t.slots {
		if f := t.slots[i].file; f != nil {
			files = append(files, f)
		}
	}
	return files
}

func (t *handles) slot(id uint64) *handleSlot {
	at := uint32(id)
	if int(at) >= len(t.slots) {
		return nil
	}
	s := &t.slots[at]
	if s.turn != uint32(id>>32) || s.file == nil {
		return nil
	}
	return s
}
